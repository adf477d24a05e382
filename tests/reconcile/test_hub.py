"""Which observation concerns which policy."""

from typing import Any

import pytest

from perfpolicy.policy.model import PolicyKey
from perfpolicy.reconcile.children import ChildRef
from perfpolicy.reconcile.foreign import VIRTUAL_SERVICE
from perfpolicy.reconcile.hub import NAMESPACE, SERVICE, Dependents, Hub, host_token, pods_token, replicas_token
from perfpolicy.reconcile.queue import Work
from perfpolicy.reconcile.workloads import Workload, workload_of
from perfpolicy.render.manifest import GroupKind

DEPLOYMENT = GroupKind("apps", "Deployment")
CONFIG_MAP = GroupKind("", "ConfigMap")
A, B = PolicyKey("ns", "a"), PolicyKey("ns", "b")


class Bench:
    def __init__(self) -> None:
        self.queued: list[tuple[PolicyKey, Work]] = []
        self.hub = Hub(lambda key, work: self.queued.append((key, work)), frozenset({CONFIG_MAP, DEPLOYMENT, VIRTUAL_SERVICE}))


@pytest.fixture
def bench() -> Bench:
    return Bench()


def obj(name: str = "x", version: int = 1, **more: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "ns", "uid": name, "resourceVersion": str(version), **more.pop("metadata", {})}
    return {"metadata": metadata, **more}


def deployment(version: int, generation: int, available: int) -> dict[str, Any]:
    status = {"availableReplicas": available, "observedGeneration": generation}
    return obj(version=version, metadata={"generation": generation}, spec={"replicas": 2}, status=status)


def test_a_policys_child_concerns_its_owner_before_and_after(bench: Bench) -> None:
    def owned(name: str) -> dict[str, Any]:
        reference = {"apiVersion": "perfpolicy.io/v1alpha1", "kind": "PerformancePolicy", "name": name, "uid": name, "controller": True}
        return {"ownerReferences": [reference]}

    bench.hub.put(CONFIG_MAP, obj(metadata=owned("a")))
    bench.hub.put(CONFIG_MAP, obj(version=2, metadata=owned("b")))
    assert bench.queued[0] == (A, Work.RECONCILE)
    assert {key for key, _ in bench.queued[1:]} == {A, B}


def test_a_targets_pods_need_a_status_and_its_spec_a_whole_look(bench: Bench) -> None:
    ref = ChildRef(DEPLOYMENT, "ns", "x")
    bench.hub.dependents.set(A, {ref, replicas_token(ref)})
    bench.hub.dependents.set(B, {replicas_token(ref)})
    bench.hub.put(DEPLOYMENT, deployment(1, 1, 0))
    bench.queued.clear()
    bench.hub.put(DEPLOYMENT, deployment(2, 1, 2))
    assert sorted(bench.queued) == [(A, Work.STATUS), (B, Work.STATUS)]
    bench.queued.clear()
    bench.hub.put(DEPLOYMENT, deployment(3, 2, 2))
    assert sorted(bench.queued) == [(A, Work.STATUS), (A, Work.RECONCILE), (B, Work.STATUS)]


def test_a_service_concerns_who_refers_to_it(bench: Bench) -> None:
    bench.hub.dependents.set(A, {ChildRef(SERVICE, "ns", "x")})
    bench.hub.put(SERVICE, obj())
    bench.hub.drop(SERVICE, obj())
    assert bench.queued == [(A, Work.RECONCILE)] * 2


def test_a_namespace_concerns_its_policies_when_its_labels_change(bench: Bench) -> None:
    bench.hub.dependents.set(A, {ChildRef(NAMESPACE, "", "ns")})
    for labels in ({"a": "1"}, {"a": "1"}, {"a": "2"}):
        bench.hub.put(NAMESPACE, {"metadata": {"name": "ns", "labels": labels}})
    assert len(bench.queued) == 2
    bench.hub.retain(NAMESPACE, None, set())
    assert bench.hub.namespaces == {}


def test_a_foreign_route_concerns_who_has_the_host(bench: Bench) -> None:
    bench.hub.dependents.set(A, {host_token("api.test")})
    bench.hub.dependents.set(B, {pods_token("ns")})
    bench.hub.put(VIRTUAL_SERVICE, obj(spec={"hosts": ["api.test"]}))
    assert {key for key, _ in bench.queued} == {A}
    bench.queued.clear()
    bench.hub.retain(VIRTUAL_SERVICE, None, set())
    assert {key for key, _ in bench.queued} == {A}


def test_a_complete_list_tells_of_workloads_that_are_gone(bench: Bench) -> None:
    ref = ChildRef(DEPLOYMENT, "ns", "x")
    bench.hub.put(DEPLOYMENT, deployment(1, 1, 2))
    assert bench.hub.workloads.get(ref) == Workload(1, 2, 2)
    bench.hub.retain(DEPLOYMENT, "other", set())
    assert bench.hub.workloads.get(ref) is not None
    bench.hub.retain(DEPLOYMENT, "ns", set())
    assert bench.hub.workloads.get(ref) is None


def test_dependents_forget_what_is_no_longer_looked_at() -> None:
    dependents = Dependents()
    dependents.set(A, {"x", "y"})
    dependents.set(A, {"y"})
    dependents.add(A, {"z"})
    assert dependents.of("x") == ()
    assert dependents.of("y") == (A,)
    assert dependents.of("z") == (A,)
    dependents.set(A, ())
    assert dependents.of("y") == ()


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({"metadata": {}, "spec": {"replicas": 3}, "status": {"availableReplicas": 3}}, (3, 3)),
        ({"metadata": {}, "spec": {}, "status": {}}, (1, 0)),
        ({"metadata": {}, "status": {"desiredNumberScheduled": 4, "numberAvailable": 2}}, (4, 2)),
        ({"kind": "DaemonSet", "metadata": {}, "status": {}}, (0, 0)),
        ({"metadata": {"generation": 2}, "spec": {"replicas": 3}, "status": {"availableReplicas": 3, "observedGeneration": 1}}, (3, 2)),
        ({"metadata": {"generation": 2}, "spec": {"replicas": 1}, "status": {"availableReplicas": 1, "observedGeneration": "2"}}, (1, 1)),
    ],
)
def test_replica_counts_of_every_kind(raw: dict[str, Any], expected: tuple[int, int]) -> None:
    found = workload_of(raw)
    assert (found.desired, found.available) == expected
