"""How many pods there are: who says it while scaling comes and goes, what load and evictions do, shown by the cluster's own controllers."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from e2e import examples
from e2e.cluster import Cluster
from e2e.operator_process import OperatorProcess
from e2e.policies import a_policy
from e2e.proofs import evict
from e2e.waiting import eventually
from lab import backend_control, load
from lab.load import Load, Target
from perfpolicy.vocabulary import REPLICAS_MANAGER

NAMESPACE = "scaling"
POLICIES = ("checkout", "ledger")
HPA_CONTROLLER = "kube-controller-manager"
MANUAL: dict[str, Any] = {"scaling": {"mode": "Disabled"}}


def scaled(least: int) -> dict[str, Any]:
    """Scaling between so many pods and five. Without figures of use an autoscaler only keeps the bounds."""
    return {"scaling": {"minReplicas": least, "maxReplicas": 5, "target": {"cpu": "70%"}}}


def replicas(cluster: Cluster, namespace: str, name: str = "web") -> tuple[int, int, set[str]]:
    """spec.replicas of a Deployment, how often its spec or annotations were written so far, and who owns spec.replicas."""
    found = cluster.get("deployment", name, namespace)
    assert found is not None
    managed = found["metadata"]["managedFields"]
    owners = {entry["manager"] for entry in managed if "f:replicas" in entry["fieldsV1"].get("f:spec", {})}
    return found["spec"]["replicas"], found["metadata"]["generation"], owners


def settles(cluster: Cluster, namespace: str, expected: tuple[int, int, set[str]], seconds: float = 30) -> None:
    """`replicas` comes to say what is expected."""

    def check() -> None:
        found = replicas(cluster, namespace)
        assert found == expected, found

    eventually(check, seconds)


def bounds(cluster: Cluster, namespace: str) -> tuple[int, int] | None:
    """Fewest and most pods of the policy's autoscaler."""
    found = cluster.get("hpa", "web", namespace)
    return None if found is None else (found["spec"]["minReplicas"], found["spec"]["maxReplicas"])


def test_scaling_comes_and_goes_without_a_pod_too_few(cluster: Cluster, operator: OperatorProcess, mesh_namespace: str) -> None:
    """A Deployment's generation counts every change of its spec or annotations: with a dip between there would be one more."""
    cluster.apply(a_policy("web", mesh_namespace, replicas=3, **MANUAL))
    settles(cluster, mesh_namespace, (3, 1, {"perfpolicy"}))
    cluster.apply(a_policy("web", mesh_namespace, replicas=3, **scaled(2)))
    eventually(lambda: bounds(cluster, mesh_namespace) == (2, 5))
    settles(cluster, mesh_namespace, (3, 1, {"perfpolicy"}))
    # A change of the manifest, here of its replicas, lets go of the field, and leaves the three pods alone.
    cluster.apply(a_policy("web", mesh_namespace, replicas=2, **scaled(2)))
    settles(cluster, mesh_namespace, (3, 2, {REPLICAS_MANAGER}))
    # The real autoscaler: more pods, because fewer than its bound allow are there. What the policy says of replicas means nothing now.
    cluster.apply(a_policy("web", mesh_namespace, replicas=2, **scaled(4)))
    settles(cluster, mesh_namespace, (4, 3, {HPA_CONTROLLER}), seconds=60)
    eventually(lambda: cluster.condition("web", mesh_namespace, "Ready") == ("True", "Ready"))
    # Something else of the Deployment changes meanwhile.
    changed = a_policy("web", mesh_namespace, replicas=2, **scaled(4))
    changed["spec"]["workload"]["deployment"]["env"] = [{"name": "CHANGED", "value": "yes"}]
    cluster.apply(changed)
    settles(cluster, mesh_namespace, (4, 4, {HPA_CONTROLLER}))
    changed["spec"] |= MANUAL
    cluster.apply(changed)
    settles(cluster, mesh_namespace, (2, 5, {"perfpolicy"}))
    assert bounds(cluster, mesh_namespace) is None


def test_a_targets_replicas_are_its_autoscalers_and_never_ours(cluster: Cluster, operator: OperatorProcess, mesh_namespace: str) -> None:
    container = {
        "name": "app",
        "image": "localhost/backend:lab",
        "ports": [{"name": "http", "containerPort": 8080}],
        "resources": {"requests": {"cpu": "10m"}},
    }
    template = {"metadata": {"labels": {"app": "shop"}}, "spec": {"containers": [container]}}
    spec = {"replicas": 1, "selector": {"matchLabels": {"app": "shop"}}, "template": template}
    metadata = {"name": "shop", "namespace": mesh_namespace}
    cluster.apply({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec})
    workload = {"targetRef": {"group": "apps", "kind": "Deployment", "name": "shop"}}
    cluster.apply(a_policy("web", mesh_namespace, workload=workload, **scaled(2)))
    eventually(lambda: replicas(cluster, mesh_namespace, "shop")[0] == 2, seconds=60)
    eventually(lambda: cluster.condition("web", mesh_namespace, "Ready") == ("True", "Ready"))
    cluster.apply(a_policy("web", mesh_namespace, workload=workload, **MANUAL))
    eventually(lambda: bounds(cluster, mesh_namespace) is None)
    assert replicas(cluster, mesh_namespace, "shop")[0] == 2, "nobody says otherwise"
    written = cluster.writes(datetime.fromtimestamp(0, UTC), mesh_namespace)
    assert "deployments" not in {write.resource for write in written}


@pytest.fixture(scope="module")
def scaling(real: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """examples/scaling, applied with kubectl, and an operator for its namespace; every policy Ready."""
    with examples.applied(real, NAMESPACE, tmp_path_factory.mktemp("operator") / "operator.log"):
        examples.await_ready(real, NAMESPACE, POLICIES)
        yield real


def test_a_new_deployment_is_rolled_out_once(scaling: Cluster) -> None:
    """Namespace, class and policies came at once, and its pods are what they will be from the first."""
    made = scaling.kubectl("get", "replicasets", "-n", NAMESPACE, "-o", "name").split()
    assert len(made) == len(POLICIES), made


def test_evictions_take_no_more_pods_than_the_budget_lets_go(scaling: Cluster) -> None:
    def spares() -> Any:
        return (scaling.get("pdb", "ledger", NAMESPACE) or {}).get("status", {}).get("disruptionsAllowed")

    eventually(lambda: spares() == 1)
    first, second = sorted(backend_control.pod_addresses(scaling.lab, NAMESPACE, "app=ledger"))
    assert evict(scaling, NAMESPACE, first) == ""
    assert "Cannot evict pod as it would violate the pod's disruption budget" in evict(scaling, NAMESPACE, second)
    # Replaced, the next may go.
    eventually(lambda: spares() == 1, seconds=60)
    assert evict(scaling, NAMESPACE, second) == ""


def test_load_adds_pods_and_its_end_takes_them_away(scaling: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    """10 requests/s of 20 ms CPU each are four times what one pod's target is."""
    began, seen = datetime.now(UTC), list[str]()

    def pods() -> int:
        status = (scaling.get("deployment", "checkout", NAMESPACE) or {})["status"]
        return int(status.get("availableReplicas", 0))

    def note(what: str) -> None:
        seen.append(f"{(datetime.now(UTC) - began).total_seconds():5.1f} s  {what}")

    assert pods() == 1
    generation = replicas(scaling, NAMESPACE, "checkout")[1]
    backend_control.set_fault(scaling.lab, NAMESPACE, "app=checkout", cpu_burn_ms=20)
    with load.start(scaling.lab, Load(10, 300, [Target(f"http://checkout.{NAMESPACE}/pay")])) as running:
        eventually(lambda: pods() == 3, seconds=120)
        note(f"3 pods: {autoscaler(scaling)}")
        running.stop()
        sent = running.result()
    eventually(lambda: replicas(scaling, NAMESPACE, "checkout")[0] == 1, seconds=180)
    note(f"1 pod: {autoscaler(scaling)}")
    # Each change of the Deployment's replicas was the autoscaler's; the operator let go of the field once, after the first of all.
    count, changes, owners = replicas(scaling, NAMESPACE, "checkout")
    assert (count, owners) == (1, {HPA_CONTROLLER})
    written = [write.resource for write in scaling.writes(began, NAMESPACE)].count("deployments")
    assert written <= 1
    assert 2 <= changes - generation - written <= 4
    assert sent.error_share < 0.05, sent
    with capsys.disabled():
        print("".join(f"\n{line}" for line in seen), end="")


def autoscaler(cluster: Cluster) -> str:
    """What the autoscaler of `checkout` says it has done last."""
    conditions = (cluster.get("hpa", "checkout", NAMESPACE) or {}).get("status", {}).get("conditions", ())
    return "; ".join(condition["message"] for condition in conditions if condition["type"] == "AbleToScale")
