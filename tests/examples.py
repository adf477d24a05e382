"""The policies of examples/, resolved against the other documents of their folder, as the operator would against the cluster."""

from pathlib import Path
from typing import Any

from perfpolicy import yaml_text
from perfpolicy.api.performance_class import parse_class
from perfpolicy.api.policy import parse_policy
from perfpolicy.policy.classes import select_class
from perfpolicy.policy.facts import Facts, in_mesh, needed_facts
from perfpolicy.policy.model import Policy
from perfpolicy.policy.resolve import resolve

EXAMPLES = Path(__file__).parents[1] / "examples"


def policies(example: str) -> tuple[Policy, ...]:
    """Every policy of one folder, in file order."""
    documents = [document for path in sorted((EXAMPLES / example).glob("*.yaml")) for document in yaml_text.load_all(path.read_text())]
    objects = {(document["kind"], document["metadata"]["name"]): document for document in documents}
    classes = [parse_class(document) for (kind, _), document in objects.items() if kind == "PerformanceClass"]
    wire = [parse_policy(document) for (kind, _), document in objects.items() if kind == "PerformancePolicy"]
    return tuple(resolve(policy, select_class(policy, classes), _facts(policy, objects)) for policy in wire)


def _facts(policy: Any, objects: dict[tuple[str, str], Any]) -> Facts:
    needed = needed_facts(policy)
    labels = objects["Namespace", needed.namespace]["metadata"].get("labels", {})
    target = objects.get((needed.target.kind, needed.target.name)) if needed.target else None
    services = {name: objects["Service", name] for name in needed.services if ("Service", name) in objects}
    return Facts(labels, target, services, in_mesh(labels))
