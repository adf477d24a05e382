"""The operator with the chart's roles and nothing else: no request is refused, and no right of the roles is left unused."""

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from e2e.access import SYSTEM, applied, may, rendered, service_account, user_name
from e2e.cluster import Cluster, exists, programmed
from e2e.operator_process import PROGRAM, OperatorProcess, free_port
from e2e.policies import CHILDREN, CLASS, SCRAPED, a_class, a_policy
from e2e.test_config_map import CRD
from e2e.waiting import eventually, throughout
from e2e.world import CLOCKS
from lab import audit
from perfpolicy import yaml_text

UNUSED = {
    ("get", "performancepolicies"): "only for a policy kopf has not delivered",
    **{(verb, "rollouts"): "the lab has no Argo Rollouts" for verb in ("get", "list", "watch")},
    **{(verb, "scaledobjects"): "the lab has no KEDA" for verb in ("get", "list", "watch")},
}
"""Rights of the roles that the flow below does not use, and why they are there."""


class Account:
    """What one ServiceAccount asked of the API server since it was made."""

    def __init__(self, cluster: Cluster, name: str, folder: Path) -> None:
        self.kubeconfig = service_account(cluster, name, folder)
        self.name, self._log, self._from = name, cluster.lab.audit_log, audit.position(cluster.lab.audit_log)

    def requests(self) -> list[audit.Request]:
        """All of it."""
        user = user_name(self.name)
        return [each for each in audit.requests(self._log, self._from, user) if each.user == user]

    def refused(self) -> list[audit.Request]:
        """What it may not do."""
        return [each for each in self.requests() if each.unauthorized]

    def used(self) -> set[tuple[str, str]]:
        """(verb, resource) of what it asked and may do. A server-side apply that creates is logged as a patch answered 201."""
        answered = [each for each in self.requests() if each.code < 400 or each.code == 404]
        created = {("create", each.resource) for each in answered if (each.verb, each.code) == ("patch", 201)}
        return created | {(each.verb, each.resource) for each in answered}


def granted(objects: list[dict[str, Any]]) -> set[tuple[str, str]]:
    """(verb, resource) of every rule."""
    rules = [rule for each in objects for rule in each.get("rules", ())]
    return {(verb, resource) for rule in rules for verb in rule["verbs"] for resource in rule["resources"]}


@contextmanager
def running(
    cluster: Cluster, account: Account, folder: Path, namespaces: str = "", lease: str = "", class_file: str = ""
) -> Iterator[OperatorProcess]:
    """An operator as the ServiceAccount; its log is shown where the block fails."""
    log = folder / "operator.log"
    settings = {"kubeconfig": str(account.kubeconfig), "lease": lease, "lease_namespace": SYSTEM, "class_file": class_file}
    try:
        with OperatorProcess(cluster.lab, log, free_port(), PROGRAM, namespaces=namespaces, **CLOCKS, **settings) as process:
            yield process
    except BaseException:
        print(f"--- operator log\n{log.read_text()[-10000:]}")
        raise


def spec(kind: str, name: str) -> dict[str, Any]:
    """Of a workload that stands still."""
    container = {"name": "app", "image": "localhost/backend:lab", "resources": {"requests": {"cpu": "10m"}}}
    template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [container]}}
    made: dict[str, Any] = {"selector": {"matchLabels": {"app": name}}, "template": template}
    if kind == "StatefulSet":
        made["serviceName"] = name
    return made if kind == "DaemonSet" else {**made, "replicas": 0}


def target(kind: str, namespace: str) -> list[dict[str, Any]]:
    """A workload and its Service, and a policy for both."""
    name = kind.lower()
    metadata = {"name": name, "namespace": namespace}
    service = {"selector": {"app": name}, "ports": [{"name": "http", "port": 80}]}
    policy = a_policy(name, namespace, mode="Observe")
    policy["spec"] |= {"workload": {"targetRef": {"group": "apps", "kind": kind, "name": name}, "serviceRef": {"name": name}}}
    del policy["spec"]["service"]
    if kind == "DaemonSet":
        del policy["spec"]["scaling"], policy["spec"]["disruptionBudget"]
    return [
        {"apiVersion": "apps/v1", "kind": kind, "metadata": metadata, "spec": spec(kind, name)},
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": service},
        policy,
    ]


def whole_life(cluster: Cluster, namespace: str) -> None:
    """Policies created, repaired, edited, stripped and deleted."""
    children = {**CHILDREN, "podmonitor": "{name}"}
    cluster.apply(a_policy("web", namespace, **SCRAPED))
    for kind in ("Deployment", "StatefulSet", "DaemonSet"):
        cluster.apply(*target(kind, namespace))
    programmed(cluster, "web", namespace)
    for name in ("deployment", "statefulset", "daemonset"):
        programmed(cluster, name, namespace)
    for kind, name in children.items():
        cluster.delete(kind, name.format(name="web"), namespace)
    for kind, name in children.items():
        eventually(lambda kind=kind, name=name: cluster.get(kind, name.format(name="web"), namespace) is not None)  # type: ignore[misc]
    copied = cluster.get("prometheusrule", "web", namespace)
    assert copied is not None
    copied["metadata"] = {key: copied["metadata"][key] for key in ("namespace", "labels", "ownerReferences")} | {"name": "copied"}
    cluster.apply(copied)
    eventually(lambda: cluster.get("prometheusrule", "copied", namespace) is None)
    stripped = {"workload": target("Deployment", namespace)[2]["spec"]["workload"], "service": None, "traffic": None, "security": None}
    stripped |= {"network": None, "observability": None, "scaling": None, "disruptionBudget": None}
    patch = json.dumps({"spec": {**stripped, "workload": {**stripped["workload"], "deployment": None}}})
    cluster.kubectl("delete", "pp", "deployment", "-n", namespace)
    cluster.kubectl("patch", "pp", "web", "-n", namespace, "--type=merge", "-p", patch)
    for kind in set(children) - {"prometheusrule"}:
        eventually(lambda kind=kind: "web" not in "".join(cluster.names(kind, namespace)))  # type: ignore[misc]


@contextmanager
def without_prometheus_rules(cluster: Cluster) -> Iterator[None]:
    """The lab without the kind, for as long as the block lasts."""
    definition = json.loads(cluster.kubectl("get", "crd", CRD, "-o", "json"))
    definition["metadata"] = {"name": CRD, "annotations": definition["metadata"].get("annotations", {})}
    definition.pop("status")
    cluster.kubectl("delete", "crd", CRD)
    try:
        yield
    finally:
        cluster.kubectl("create", "-f", "-", input=json.dumps(definition))
        eventually(lambda: exists(cluster, "prometheusrules"))


def test_the_roles_are_what_the_operator_needs_no_less_and_no_more(cluster: Cluster, mesh_namespace: str, tmp_path: Path) -> None:
    release = "perfpolicy-access"
    roles = rendered(cluster.lab, release, "rbac.yaml", {})
    account = Account(cluster, release, tmp_path)
    cluster.apply(a_class())
    cluster.kubectl("delete", "lease", release, "-n", SYSTEM, "--ignore-not-found")
    with applied(cluster, roles), running(cluster, account, tmp_path, lease=release):
        whole_life(cluster, mesh_namespace)
        with without_prometheus_rules(cluster):
            eventually(lambda: cluster.get("configmap", "web-rules", mesh_namespace) is not None)
            cluster.delete("configmap", "web-rules", mesh_namespace)
            eventually(lambda: cluster.get("configmap", "web-rules", mesh_namespace) is not None)
        eventually(lambda: cluster.get("configmap", "web-rules", mesh_namespace) is None)
        cluster.kubectl("delete", "pp", "--all", "-n", mesh_namespace)
    assert account.refused() == []
    # A sweep may meet a policy a moment before kopf delivers it, and read it.
    unused = granted(roles) - account.used() | {("get", "performancepolicies")}
    assert unused == set(UNUSED)


def test_without_the_switch_no_deployment_is_written_and_the_status_says_so(cluster: Cluster, mesh_namespace: str, tmp_path: Path) -> None:
    release = "perfpolicy-no-workloads"
    account = Account(cluster, release, tmp_path)
    cluster.apply(a_class())
    roles = rendered(cluster.lab, release, "rbac.yaml", {"workloads": {"create": False}})
    assert not [right for right in granted(roles) if right[1] == "deployments" and right[0] not in ("get", "list", "watch")]
    with applied(cluster, roles), running(cluster, account, tmp_path) as operator:
        cluster.apply(a_policy("web", mesh_namespace))
        eventually(lambda: cluster.condition("web", mesh_namespace, "Programmed") == ("False", "ApplyFailed"))
        assert 'cannot patch resource \\"deployments\\"' in cluster.kubectl("get", "pp", "web", "-n", mesh_namespace, "-o", "json")
        eventually(lambda: cluster.get("virtualservice", "web", mesh_namespace) is not None)
        assert cluster.names("deployment", mesh_namespace) == set()
        assert {each.resource for each in account.refused()} == {"deployments"}
        assert operator.running
        # Granted, it goes on by itself: at the latest when what was refused is tried again, here after the policy is touched.
        more = rendered(cluster.lab, release, "rbac.yaml", {})
        cluster.apply(*more)
        eventually(lambda: may(cluster, user_name(release), "patch", "deployments", mesh_namespace))
        cluster.kubectl("annotate", "pp", "web", "-n", mesh_namespace, "touch=1")
        programmed(cluster, "web", mesh_namespace)


@pytest.fixture
def limited(cluster: Cluster) -> Iterator[str]:
    """A namespace in the mesh, labelled as one of team a."""
    name = f"e2e-{secrets.token_hex(4)}"
    cluster.kubectl("create", "namespace", name)
    cluster.kubectl("label", "namespace", name, "istio-injection=enabled", "team=a")
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


def test_roles_and_a_class_file_are_enough_for_one_namespace(cluster: Cluster, limited: str, mesh_namespace: str, tmp_path: Path) -> None:
    release = "perfpolicy-limited"
    account = Account(cluster, release, tmp_path)
    roles = rendered(cluster.lab, release, "rbac.yaml", {"scope": {"namespaces": [limited]}})
    assert {each["kind"] for each in roles} == {"Role", "RoleBinding"}
    only_team_a = {"selector": {"matchLabels": {"team": "a"}}}
    classes = tmp_path / "classes"
    classes.mkdir()

    def write(timeout: str) -> None:
        defaults = {"traffic": {"timeout": timeout}}
        found = [a_class("mounted", allowedNamespaces=only_team_a, defaults=defaults), a_class("theirs", allowedNamespaces={"names": []})]
        (classes / "classes.yaml").write_text(yaml_text.dump_all(found))

    write("11s")
    with applied(cluster, roles), running(cluster, account, tmp_path, limited, lease=release, class_file=str(classes)):
        # A class of the cluster by the same name as the built-in tests' is not read: the file's is.
        cluster.apply(a_class())
        policies = [a_policy("web", limited, className="mounted"), a_policy("not-theirs", limited, className="theirs")]
        del policies[0]["spec"]["traffic"]["timeout"]
        cluster.apply(*policies, a_policy("absent", limited, className=CLASS), a_policy("elsewhere", mesh_namespace, className="mounted"))
        programmed(cluster, "web", limited)
        eventually(lambda: cluster.condition("not-theirs", limited, "Accepted") == ("False", "ClassNotPermitted"))
        eventually(lambda: cluster.condition("absent", limited, "Accepted") == ("False", "ClassNotFound"))

        def timeout() -> str:
            return str((cluster.get("virtualservice", "web", limited) or {})["spec"]["http"][0]["timeout"])

        assert timeout() == "11s"
        write("12s")
        eventually(lambda: timeout() == "12s")
        cluster.kubectl("label", "namespace", limited, "team=b", "--overwrite")
        eventually(lambda: cluster.condition("web", limited, "Accepted") == ("False", "ClassNotPermitted"))
        throughout(lambda: cluster.names("virtualservice", mesh_namespace) == set(), seconds=1)
    assert account.refused() == []
    asked = {each.resource for each in account.requests()}
    assert not {"performanceclasses", "customresourcedefinitions"} & asked
    assert {each.verb for each in account.requests() if each.resource == "namespaces"} == {"get"}
