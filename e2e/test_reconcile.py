"""The operator against a real API server: children appear, stay, are repaired and go, and nobody else's objects are touched."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from e2e.cluster import Cluster, programmed
from e2e.operator_process import OperatorProcess
from e2e.policies import CHILDREN, CLASS, a_class, a_policy
from e2e.waiting import eventually, throughout
from lab import audit
from lab.lab import wait_established

OURS = "app.kubernetes.io/managed-by=perfpolicy"

DRIFT: dict[str, Any] = {
    "networkpolicy": {"spec": {"podSelector": {"matchLabels": {"app": "somebody-else"}}}},
    "peerauthentication": {"spec": {"mtls": {"mode": "DISABLE"}}},
    "authorizationpolicy": {"spec": {"rules": [{}]}},
    "envoyfilter": {"spec": {"priority": 0}},
    "service": {"spec": {"ports": [{"name": "http", "port": 80, "targetPort": 1234}]}},
    "destinationrule": {"spec": {"trafficPolicy": {"outlierDetection": {"consecutive5xxErrors": 99}}}},
    "virtualservice": {"spec": {"http": [{"route": [{"destination": {"host": "elsewhere"}}]}]}},
    "telemetry": {"spec": {"accessLogging": [{"disabled": True}]}},
    "deployment": {"spec": {"template": {"spec": {"containers": [{"name": "web", "image": "localhost/evil:1"}]}}}},
    "poddisruptionbudget": {"spec": {"maxUnavailable": 3}},
    "horizontalpodautoscaler": {"spec": {"maxReplicas": 9}},
    "prometheusrule": {"spec": {"groups": []}},
}


WAYS = ("deleted", "edited", "relabelled")


def patch_style(kind: str) -> str:
    """By which a part of a child can be changed."""
    return "strategic" if kind in ("deployment", "networkpolicy") else "merge"


def unwritten(cluster: Cluster, since: int, namespace: str) -> bool:
    """The operator has written nothing but Events in the namespace since a position in the audit log."""
    if cluster.lab.node == "external":
        pytest.skip("a cluster of the user's keeps its audit log to itself")
    written = cluster.writes(since, namespace)
    assert not written, written
    return True


def spec_of(cluster: Cluster, kind: str, name: str, namespace: str) -> Any:
    """What a child says; None where it does not exist."""
    found = cluster.get(kind, name, namespace)
    return None if found is None else found.get("spec", found.get("data"))


def our_entry(child: Mapping[str, Any]) -> dict[str, Any]:
    """The operator's entry in a child's managedFields: what it wrote, and when."""
    return next(entry for entry in child["metadata"]["managedFields"] if entry["manager"] == "perfpolicy")


def owner(cluster: Cluster, kind: str, name: str, namespace: str) -> str:
    """UID of a child's controlling owner; empty without one."""
    found = cluster.get(kind, name, namespace)
    return next((ref["uid"] for ref in (found or {}).get("metadata", {}).get("ownerReferences", ()) if ref.get("controller")), "")


@pytest.fixture
def web(cluster: Cluster, operator: OperatorProcess, mesh_namespace: str) -> str:
    """A programmed policy called web; its namespace."""
    cluster.apply(a_policy("web", mesh_namespace))
    programmed(cluster, "web", mesh_namespace)
    return mesh_namespace


def test_a_policy_gets_every_child_and_a_status(cluster: Cluster, web: str) -> None:
    policy = programmed(cluster, "web", web)
    for kind, name in CHILDREN.items():
        assert owner(cluster, kind, name.format(name="web"), web) == policy["metadata"]["uid"], kind
    assert len(policy["status"]["resources"]) == len(CHILDREN)
    eventually(lambda: cluster.condition("web", web, "Ready") == ("True", "Ready"))
    assert "finalizers" not in policy["metadata"]
    assert all("kopf" not in key for key in policy["metadata"].get("annotations", {}))


def settled(cluster: Cluster, namespace: str) -> None:
    """Wait until nothing about the policy is still on its way: pods available, source asked, and all of it written."""
    eventually(lambda: cluster.condition("web", namespace, "Ready") == ("True", "Ready"))
    eventually(lambda: cluster.condition("web", namespace, "MetricsAvailable") == ("False", "SourceUnreachable"))

    def quiet() -> None:
        since = audit.position(cluster.lab.audit_log)
        throughout(lambda: unwritten(cluster, since, namespace), seconds=1)

    eventually(quiet)


@pytest.mark.parametrize("kind", sorted(CHILDREN))
def test_a_deleted_child_comes_back(cluster: Cluster, web: str, kind: str) -> None:
    name = CHILDREN[kind].format(name="web")
    before = cluster.get(kind, name, web)
    assert before is not None
    cluster.delete(kind, name, web)

    def is_back() -> bool:
        after = cluster.get(kind, name, web)
        return after is not None and after["metadata"]["uid"] != before["metadata"]["uid"] and owner(cluster, kind, name, web) != ""

    eventually(is_back)


@pytest.mark.parametrize("kind", sorted(CHILDREN))
def test_an_edited_child_is_repaired(cluster: Cluster, web: str, kind: str) -> None:
    name = CHILDREN[kind].format(name="web")
    wanted = spec_of(cluster, kind, name, web)
    cluster.kubectl("patch", kind, name, "-n", web, f"--type={patch_style(kind)}", "-p", json.dumps(DRIFT[kind]))
    eventually(lambda: spec_of(cluster, kind, name, web) == wanted)


@pytest.mark.parametrize("kind", sorted(CHILDREN))
def test_a_relabelled_or_disowned_child_is_repaired(cluster: Cluster, web: str, kind: str) -> None:
    name = CHILDREN[kind].format(name="web")
    uid = owner(cluster, kind, name, web)
    cluster.kubectl("label", kind, name, "-n", web, "--overwrite", "app.kubernetes.io/managed-by=somebody")
    eventually(lambda: name in cluster.names(kind, web, OURS))
    cluster.kubectl("patch", kind, name, "-n", web, "--type=merge", "-p", '{"metadata": {"ownerReferences": null}}')
    eventually(lambda: owner(cluster, kind, name, web) == uid)


def test_a_changed_spec_reaches_the_children_and_unwanted_ones_are_pruned(cluster: Cluster, web: str) -> None:
    changed = a_policy("web", web, network=None, security={"mtls": "Permissive"})
    del changed["spec"]["network"]
    changed["spec"]["traffic"]["timeout"] = "7s"
    cluster.apply(changed)
    programmed(cluster, "web", web)
    assert spec_of(cluster, "virtualservice", "web", web)["http"][0]["timeout"] == "7s"
    assert spec_of(cluster, "peerauthentication", "web", web)["mtls"]["mode"] == "PERMISSIVE"
    eventually(lambda: cluster.get("networkpolicy", "web", web) is None)
    eventually(lambda: cluster.get("authorizationpolicy", "web-allow", web) is None)


def test_a_deleted_policy_leaves_nothing(cluster: Cluster, web: str) -> None:
    cluster.delete("pp", "web", web)
    eventually(lambda: not [kind for kind, name in CHILDREN.items() if cluster.get(kind, name.format(name="web"), web)])
    assert cluster.names("pp", web) == set()


def test_a_policy_created_anew_under_its_name_gets_its_own_children(cluster: Cluster, web: str) -> None:
    former = programmed(cluster, "web", web)["metadata"]["uid"]
    cluster.delete("pp", "web", web)
    eventually(lambda: cluster.get("pp", "web", web) is None)
    cluster.apply(a_policy("web", web))
    current = programmed(cluster, "web", web)["metadata"]["uid"]
    assert current != former
    eventually(lambda: {owner(cluster, kind, name.format(name="web"), web) for kind, name in CHILDREN.items()} == {current})


def test_a_killed_operator_writes_nothing_after_its_restart(cluster: Cluster, web: str, operator: OperatorProcess) -> None:
    settled(cluster, web)

    def children() -> dict[str, Any]:
        found = {kind: cluster.get(kind, name.format(name="web"), web) or {} for kind, name in CHILDREN.items()}
        # Other controllers write the status, and with it a new resourceVersion.
        return {kind: (child["metadata"]["uid"], child.get("spec"), our_entry(child)) for kind, child in found.items()}

    before = children()
    operator.kill()
    since = audit.position(cluster.lab.audit_log)
    operator.start()
    throughout(lambda: unwritten(cluster, since, web), seconds=4)
    assert before == children()


@pytest.mark.parametrize("turn", range(len(WAYS)))
def test_drift_while_the_operator_is_down_is_repaired_at_its_start(
    cluster: Cluster, web: str, operator: OperatorProcess, turn: int, trust: bool
) -> None:
    """Of every kind at once, each in another way; in three turns every kind in every way."""
    if turn and not trust:
        pytest.skip("the other ways: make trust")
    children = {kind: name.format(name="web") for kind, name in CHILDREN.items()}
    ways = {kind: WAYS[(number + turn) % len(WAYS)] for number, kind in enumerate(children)}
    wanted = {kind: spec_of(cluster, kind, name, web) for kind, name in children.items()}
    operator.kill()
    for kind, name in children.items():
        match ways[kind]:
            case "deleted":
                cluster.delete(kind, name, web)
            case "edited":
                cluster.kubectl("patch", kind, name, "-n", web, f"--type={patch_style(kind)}", "-p", json.dumps(DRIFT[kind]))
            case _:
                cluster.kubectl("label", kind, name, "-n", web, "--overwrite", "app.kubernetes.io/managed-by=somebody")
    operator.start()

    def is_repaired(kind: str) -> bool:
        now = spec_of(cluster, kind, children[kind], web)
        # One made anew has another address, say.
        return children[kind] in cluster.names(kind, web, OURS) and (ways[kind] == "deleted" or now == wanted[kind])

    eventually(lambda: [kind for kind in children if not is_repaired(kind)] == [], seconds=60)


def test_a_foreign_object_is_left_alone_and_outlives_the_policy(cluster: Cluster, operator: OperatorProcess, mesh_namespace: str) -> None:
    theirs = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "web", "namespace": mesh_namespace},
        "spec": {"podSelector": {"matchLabels": {"app": "theirs"}}},
    }
    cluster.apply(theirs)
    before = cluster.get("networkpolicy", "web", mesh_namespace)
    cluster.apply(a_policy("web", mesh_namespace))
    eventually(lambda: cluster.condition("web", mesh_namespace, "Programmed") == ("False", "ForeignObject"))
    assert owner(cluster, "virtualservice", "web", mesh_namespace) != "", "only the kind in conflict is withheld"
    cluster.delete("pp", "web", mesh_namespace)
    eventually(lambda: cluster.get("virtualservice", "web", mesh_namespace) is None)
    assert cluster.get("networkpolicy", "web", mesh_namespace) == before


def test_a_foreign_object_is_taken_over_when_its_owner_says_so(cluster: Cluster, operator: OperatorProcess, mesh_namespace: str) -> None:
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "namespace": mesh_namespace},
        "spec": {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80}]},
    }
    cluster.apply(service)
    cluster.apply(a_policy("web", mesh_namespace))
    eventually(lambda: cluster.condition("web", mesh_namespace, "Programmed") == ("False", "ForeignObject"))
    cluster.kubectl("annotate", "service", "web", "-n", mesh_namespace, "perfpolicy.io/adopt=web")
    policy = programmed(cluster, "web", mesh_namespace)
    assert owner(cluster, "service", "web", mesh_namespace) == policy["metadata"]["uid"]


def test_the_younger_of_two_policies_on_one_workload_is_refused_until_the_elder_goes(
    cluster: Cluster, operator: OperatorProcess, mesh_namespace: str
) -> None:
    ports, resources = [{"name": "http", "containerPort": 8080}], {"requests": {"cpu": "10m"}}
    container = {"name": "app", "image": "localhost/backend:lab", "ports": ports, "resources": resources}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "shared", "namespace": mesh_namespace},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": "shared"}},
            "template": {
                "metadata": {"labels": {"app": "shared"}},
                "spec": {"containers": [container]},
            },
        },
    }
    target = {"targetRef": {"group": "apps", "kind": "Deployment", "name": "shared"}}
    cluster.apply(deployment)
    cluster.apply(a_policy("elder", mesh_namespace, workload=target))
    programmed(cluster, "elder", mesh_namespace)
    eventually(lambda: cluster.get("pp", "elder", mesh_namespace) is not None)
    cluster.apply(a_policy("younger", mesh_namespace, workload=target))
    eventually(lambda: cluster.condition("younger", mesh_namespace, "Accepted") == ("False", "Conflicted"))
    assert cluster.get("virtualservice", "younger", mesh_namespace) is None
    cluster.delete("pp", "elder", mesh_namespace)
    programmed(cluster, "younger", mesh_namespace)


def test_a_suspended_policy_is_neither_repaired_nor_changed(cluster: Cluster, web: str) -> None:
    cluster.apply(a_policy("web", web, suspend="All"))
    eventually(lambda: cluster.condition("web", web, "Suspended") == ("True", "Suspended"))
    cluster.delete("service", "web", web)
    throughout(lambda: cluster.get("service", "web", web) is None, seconds=3)
    cluster.apply(a_policy("web", web, suspend="Disabled"))
    eventually(lambda: owner(cluster, "service", "web", web) != "")


def test_observe_writes_only_rules(cluster: Cluster, operator: OperatorProcess, mesh_namespace: str) -> None:
    cluster.apply(a_policy("web", mesh_namespace, mode="Observe"))
    eventually(lambda: cluster.condition("web", mesh_namespace, "Programmed") == ("True", "ObserveOnly"))
    assert owner(cluster, "prometheusrule", "web", mesh_namespace) != ""
    assert [kind for kind, name in CHILDREN.items() if cluster.get(kind, name.format(name="web"), mesh_namespace)] == ["prometheusrule"]


def test_a_refused_policy_keeps_its_last_good_children(cluster: Cluster, web: str) -> None:
    cluster.apply(a_policy("web", web, className="no-such-class"))
    eventually(lambda: cluster.condition("web", web, "Accepted") == ("False", "ClassNotFound"))
    policy = cluster.get("pp", "web", web)
    assert policy is not None
    assert len(policy["status"]["resources"]) == len(CHILDREN)
    cluster.delete("service", "web", web)
    throughout(lambda: cluster.get("service", "web", web) is None, seconds=3)
    cluster.apply(a_policy("web", web))
    eventually(lambda: owner(cluster, "service", "web", web) != "")


def test_a_class_edit_reaches_its_policies(cluster: Cluster, operator: OperatorProcess, mesh_namespace: str) -> None:
    cluster.apply(a_class(f"{CLASS}-edited", defaults={"traffic": {"timeout": "11s"}}))
    policy = a_policy("web", mesh_namespace, className=f"{CLASS}-edited")
    del policy["spec"]["traffic"]["timeout"]
    cluster.apply(policy)
    programmed(cluster, "web", mesh_namespace)
    assert spec_of(cluster, "virtualservice", "web", mesh_namespace)["http"][0]["timeout"] == "11s"
    cluster.apply(a_class(f"{CLASS}-edited", defaults={"traffic": {"timeout": "12s"}}))
    eventually(lambda: spec_of(cluster, "virtualservice", "web", mesh_namespace)["http"][0]["timeout"] == "12s")


def test_scaling_by_the_scale_subresource_is_respected(cluster: Cluster, web: str) -> None:
    cluster.kubectl("scale", "deployment", "web", "-n", web, "--replicas=3")
    cluster.kubectl("annotate", "pp", "web", "-n", web, "touch=1")
    cluster.delete("service", "web", web)
    eventually(lambda: owner(cluster, "service", "web", web) != "")
    throughout(lambda: spec_of(cluster, "deployment", "web", web)["replicas"] == 3, seconds=3)


def test_a_route_taken_over_by_a_controller_is_a_conflict_not_a_fight(cluster: Cluster, web: str) -> None:
    patch = json.dumps(DRIFT["virtualservice"])
    cluster.kubectl("patch", "virtualservice", "web", "-n", web, "--type=merge", "-p", patch, "--field-manager=flagger")
    eventually(lambda: cluster.condition("web", web, "Conflict") == ("True", "ForeignObject"))
    throughout(
        lambda: spec_of(cluster, "virtualservice", "web", web)["http"][0]["route"][0]["destination"]["host"] == "elsewhere", seconds=3
    )


def test_crds_of_istio_may_go_and_come(cluster: Cluster, operator: OperatorProcess, web: str) -> None:
    crds = [f"{name}.security.istio.io" for name in ("peerauthentications", "authorizationpolicies")]
    definitions = json.loads(cluster.kubectl("get", "crd", *crds, "-o", "json"))["items"]
    for definition in definitions:
        definition["metadata"] = {"name": definition["metadata"]["name"], "labels": definition["metadata"].get("labels", {})}
        definition.pop("status")
    names = ("web", "second")

    def programmed_as(*condition: str) -> bool:
        return all(cluster.condition(name, web, "Programmed") == condition for name in names)

    cluster.kubectl("delete", "crd", *crds)
    try:
        cluster.apply(a_policy("second", web))
        eventually(lambda: programmed_as("False", "DependencyMissing"))
        assert owner(cluster, "virtualservice", "second", web) != "", "the other kinds are applied"
        assert cluster.condition("web", web, "Ready")[0] != "True"
    finally:
        for definition in definitions:
            cluster.kubectl("create", "-f", "-", input=json.dumps(definition))
    for name in names:
        policy = programmed(cluster, name, web)
        for kind in ("peerauthentication", "authorizationpolicy"):
            assert owner(cluster, kind, CHILDREN[kind].format(name=name), web) == policy["metadata"]["uid"]
    assert operator.running


def test_a_namespace_that_is_deleted_is_gone_within_a_minute(cluster: Cluster, operator: OperatorProcess, web: str) -> None:
    cluster.kubectl("delete", "namespace", web, "--timeout=60s")
    assert operator.running
    said = [line for line in operator.log.read_text().splitlines() if web in line and "Traceback" in line]
    assert said == []


def test_our_own_crd_may_go_and_come(cluster: Cluster, operator: OperatorProcess, mesh_namespace: str) -> None:
    crd = "performancepolicies.perfpolicy.io"
    definition = json.loads(cluster.kubectl("get", "crd", crd, "-o", "json"))
    definition["metadata"] = {"name": crd}
    definition.pop("status")
    cluster.kubectl("delete", "crd", crd)
    try:
        throughout(lambda: operator.running, seconds=2)
    finally:
        cluster.kubectl("create", "-f", "-", input=json.dumps(definition))
        wait_established(cluster.kubectl, [crd])
    cluster.apply(a_policy("web", mesh_namespace))
    programmed(cluster, "web", mesh_namespace, seconds=60)


@pytest.mark.timeout(900)
def test_a_converged_policy_is_not_written_again(cluster: Cluster, web: str, trust: bool) -> None:
    settled(cluster, web)
    since = audit.position(cluster.lab.audit_log)
    cluster.kubectl("annotate", "pp", "web", "-n", web, "touch=2")
    throughout(lambda: unwritten(cluster, since, web), seconds=600 if trust else 4)


def test_sigterm_ends_the_operator_within_three_seconds(cluster: Cluster, operator: OperatorProcess) -> None:
    started = datetime.now(UTC)
    assert operator.stop() == 0
    assert (datetime.now(UTC) - started).total_seconds() < 3
    operator.start()


def test_an_apply_under_our_own_name_is_repaired(cluster: Cluster, web: str) -> None:
    """With the digest annotation kept only the time of our entry in managedFields tells, in whole seconds."""
    settled(cluster, web)
    before = spec_of(cluster, "service", "web", web)
    copied = cluster.get("service", "web", web)
    assert copied is not None
    for name in ("managedFields", "resourceVersion", "creationTimestamp", "uid"):
        copied["metadata"].pop(name, None)
    spec = {"selector": {"app": "elsewhere"}, "ports": copied["spec"]["ports"]}
    ours = {**{name: copied[name] for name in ("apiVersion", "kind", "metadata")}, "spec": spec}
    written = datetime.fromisoformat(our_entry(cluster.get("service", "web", web) or {})["time"])
    eventually(lambda: datetime.now(UTC) - written > timedelta(seconds=2))
    cluster.kubectl("apply", "--server-side", "--field-manager=perfpolicy", "-f", "-", input=json.dumps(ours))
    eventually(lambda: spec_of(cluster, "service", "web", web) == before)
