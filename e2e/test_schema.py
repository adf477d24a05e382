"""What the API server itself does with policies and classes: the schema's rules refuse, its defaults say Pending, its names work."""

import re
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.conftest import ROOT, Kubectl
from e2e.waiting import eventually
from perfpolicy.policy.builtin import builtin_classes_text
from perfpolicy.yaml_text import dump, load_all
from tests.api.bad_input import CASES
from tests.api.objects import a_class_object, a_policy_object

EXAMPLES = sorted((ROOT / "examples").rglob("*.yaml"))


@pytest.fixture(scope="module")
def shops(kubectl: Kubectl) -> Iterator[str]:
    """One namespace for all: nothing is stored in it."""
    name = f"e2e-schema-{secrets.token_hex(4)}"
    kubectl("create", "namespace", name)
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="module")
def refusals(kubectl: Kubectl, shops: str, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What `kubectl apply` says of each of CASES, empty where it was accepted: one kubectl for all, each in a file of its own."""
    files = [tmp_path_factory.mktemp("mistakes") / "policy.yaml" for _ in CASES]
    for case, file in zip(CASES, files, strict=True):
        file.write_text(dump(a_policy_object(case.changes, name=case.name, namespace=shops)))
    answer = kubectl.run("apply", *(f"--filename={file}" for file in files))
    said = re.split(r"^(?=Error from server)", answer.stderr, flags=re.MULTILINE)
    return ["".join(part for part in said if f'"{file}"' in part) for file in files]


@pytest.mark.parametrize("number", range(len(CASES)), ids=lambda number: CASES[number].title)
def test_a_mistake_is_refused_at_apply(refusals: list[str], number: int) -> None:
    assert refusals[number], "accepted"
    assert CASES[number].expected_from_server in refusals[number]


def test_a_new_policy_reads_as_pending(kubectl: Kubectl, namespace: str) -> None:
    created = kubectl.apply(a_policy_object(namespace=namespace))
    assert created.returncode == 0, created.stderr
    conditions = kubectl.get("performancepolicy", "shop", "-n", namespace)["status"]["conditions"]
    assert {(c["type"], c["status"], c["reason"], c["observedGeneration"]) for c in conditions} == {
        ("Accepted", "Unknown", "Pending", 0),
        ("Ready", "Unknown", "Pending", 0),
    }


def test_the_status_cannot_be_written_with_the_spec(kubectl: Kubectl, namespace: str) -> None:
    kubectl.apply(a_policy_object(namespace=namespace))
    forged = {**a_policy_object(namespace=namespace), "status": {"summary": {"met": "6/6"}}}
    assert kubectl.apply(forged).returncode == 0
    assert "summary" not in kubectl.get("performancepolicy", "shop", "-n", namespace)["status"]


def test_short_names_list_policies_and_classes(kubectl: Kubectl, namespace: str) -> None:
    kubectl.apply(a_policy_object(namespace=namespace))
    for short in ("pp", "perfpolicy"):
        listed = kubectl("get", short, "-n", namespace, "-o", "wide").splitlines()
        assert listed[0].split() == [
            "NAME", "READY", "MET", "P95", "ERRORS", "BUDGET", "HEALTH", "SEVERITY", "AGE", "CLASS", "WORKLOAD", "RPS", "REASON",
        ]  # fmt: skip
        assert listed[1].split()[:2] == ["shop", "Unknown"]
    assert kubectl.run("get", "perfclass").returncode == 0


def test_every_field_is_explained(kubectl: Kubectl) -> None:
    # The API server publishes a schema it was just given a moment later.
    field = "performancepolicy.spec.traffic.circuitBreaker"
    eventually(lambda: "5xx answers in a row after which a pod is left out" in kubectl("explain", field))


def test_built_in_classes_are_accepted(kubectl: Kubectl) -> None:
    kubectl("apply", "--dry-run=server", "-f", "-", stdin=builtin_classes_text())


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: str(path.relative_to(ROOT)))
def test_examples_are_accepted(kubectl: Kubectl, namespace: str, path: Path) -> None:
    for document in load_all(path.read_text(encoding="utf-8")):
        if document["kind"] == "PerformancePolicy":
            document["metadata"]["namespace"] = namespace
        if document["kind"] in ("PerformancePolicy", "PerformanceClass"):
            answer = kubectl.run("apply", "--dry-run=server", "-f", "-", stdin=dump(document))
            assert answer.returncode == 0, answer.stderr


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"limits.minMtls": "Off"}, 'supported values: "Permissive", "Strict"'),
        ({"grants": [{"name": "a"}, {"name": "a"}]}, "Duplicate value"),
        ({"defaults.className": "other"}, 'unknown field "spec.defaults.className"'),
        ({"defaults.workload": {}}, 'unknown field "spec.defaults.workload"'),
        ({"metrics.address": "prometheus:9090"}, "should match"),
        ({"metrics.authFile": "/etc/../shadow"}, "should match"),
        ({"defaults.thresholds.window": "1s"}, "between 10s and 24h"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_mistake_in_a_class_is_refused_at_apply(kubectl: Kubectl, changes: dict[str, object], message: str) -> None:
    answer = kubectl.apply(a_class_object(changes, name="e2e-bad"))
    assert answer.returncode != 0, f"accepted: {answer.stdout}"
    assert message in answer.stderr
