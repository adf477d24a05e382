"""A pass that finds everything as it was left has nothing to render, and one that does not looks at every child."""

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from perfpolicy.errors import ApiUnavailable
from perfpolicy.reconcile import settled
from perfpolicy.reconcile.applier import ref_of
from perfpolicy.reconcile.children import ChildRef
from perfpolicy.render.manifest import GroupKind, Manifest
from perfpolicy.render.registry import EVERYTHING, render
from perfpolicy.vocabulary import ADOPT_ANNOTATION, APPLIED_ANNOTATION, POLICY_LABEL
from tests.reconcile.test_reconciler import DEPLOYMENT, WEB, Bench, changed, raw_class, raw_policy

SERVICE = ChildRef(GroupKind("", "Service"), "ns", "web")
AUTHENTICATION = GroupKind("security.istio.io", "PeerAuthentication")


class Rendered:
    """How often policies are rendered."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.times = 0
        monkeypatch.setattr("perfpolicy.reconcile.reconciler.render", self)

    def __call__(self, *args: Any) -> Any:
        self.times += 1
        return render(*args)


@pytest.fixture
def rendered(monkeypatch: pytest.MonkeyPatch) -> Rendered:
    return Rendered(monkeypatch)


@pytest.fixture
async def bench() -> Bench:
    """With a policy whose children are all as wanted."""
    bench = Bench()
    bench.classes.put(raw_class())
    await bench.create(raw_policy())
    return bench


async def again(bench: Bench) -> None:
    """A resync."""
    bench.enqueue(WEB)
    await bench.settle()


async def restarted(bench: Bench, cls: dict[str, Any] | None = None, **spec: Any) -> None:
    """A new process, which finds the status the former one wrote."""
    bench.restart()
    bench.classes.put(cls or raw_class())
    await bench.create({**raw_policy(**spec), "status": bench.api.statuses[WEB]})


async def test_looking_again_renders_nothing(bench: Bench, rendered: Rendered) -> None:
    before = bench.api.statuses[WEB]
    await again(bench)
    assert rendered.times == 0
    assert bench.api.statuses[WEB] is before


async def test_a_restart_renders_nothing_and_its_first_resync_does(bench: Bench, rendered: Rendered) -> None:
    bench.api.log.clear()
    await restarted(bench)
    assert rendered.times == 0
    assert bench.condition("Programmed") == ("True", "Programmed")
    expected = bench.states[WEB].memory.expected
    for times in (1, 1):
        await again(bench)
        assert rendered.times == times
    assert bench.states[WEB].memory.expected == expected
    assert bench.api.log == []


def _deleted(bench: Bench) -> None:
    bench.api.remove(SERVICE)


def _edited(bench: Bench) -> None:
    bench.api.edit(SERVICE, {"spec": {"selector": {"app": "another"}}})


def _relabelled(bench: Bench) -> None:
    bench.api.edit(SERVICE, {"metadata": {"labels": {POLICY_LABEL: "another"}}})


def _unmarked(bench: Bench) -> None:
    bench.api.edit(SERVICE, {"metadata": {"annotations": {APPLIED_ANNOTATION: ""}}})


DRIFTS = pytest.mark.parametrize("drift", [_deleted, _edited, _relabelled, _unmarked])


@DRIFTS
async def test_drift_after_a_restart_that_rendered_nothing_is_repaired(bench: Bench, drift: Callable[[Bench], None]) -> None:
    await restarted(bench)
    bench.api.log.clear()
    drift(bench)
    await bench.settle()
    assert [ref for _, ref in bench.api.writes()] == [str(SERVICE)]


@DRIFTS
async def test_drift_that_nobody_saw_is_repaired_after_a_restart(bench: Bench, drift: Callable[[Bench], None]) -> None:
    drift(bench)
    bench.api.log.clear()
    await restarted(bench)
    assert [ref for _, ref in bench.api.writes()] == [str(SERVICE)]


async def test_a_write_under_our_name_after_a_restart_that_rendered_nothing_is_repaired(bench: Bench) -> None:
    await restarted(bench)
    bench.api.log.clear()
    service = bench.api.objects[SERVICE]
    kept = {"annotations": service["metadata"]["annotations"], "labels": service["metadata"]["labels"]}
    metadata = {"name": "web", "namespace": "ns", "ownerReferences": service["metadata"]["ownerReferences"], **kept}
    bench.api.apply_as_us({**service, "metadata": metadata, "spec": {**service["spec"], "selector": {"app": "another"}}})
    await bench.settle()
    assert bench.api.writes() == [("apply", str(SERVICE))]


async def test_what_drifts_while_others_are_written_is_not_taken_for_wanted(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    apply = bench.api.apply

    async def drifting(manifest: Manifest, *, force: bool, manager: str = "perfpolicy") -> Any:
        answer = await apply(manifest, force=force, manager=manager)
        if manifest["kind"] == "PrometheusRule":
            bench.api.edit(SERVICE, {"spec": {"selector": {"app": "another"}}})
        return answer

    monkeypatch.setattr(bench.api, "apply", drifting)
    bench.policies.put(changed(raw_policy(), thresholds={"window": "2m", "errorRate": {"max": "6%"}}))
    await bench.settle()
    assert bench.api.objects[SERVICE]["spec"]["selector"] != {"app": "another"}


async def test_a_child_on_its_way_out_is_waited_for(bench: Bench) -> None:
    bench.api.edit(SERVICE, {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}})
    await bench.settle()
    assert bench.condition("Programmed") == ("Unknown", "Progressing")


async def test_a_claim_of_somebody_else_is_heard_of(bench: Bench) -> None:
    """Nothing of the policy's own has changed then."""
    foreign = {"apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": {"name": "theirs", "namespace": "ns"}}
    bench.api.create({**foreign, "spec": {"host": "web.ns.svc.cluster.local"}})
    await bench.settle()
    assert bench.condition("Conflict") == ("True", "HostClaimed")


def an_autoscaler(name: str, **annotations: str) -> dict[str, Any]:
    """Somebody else's, of the policy's Deployment."""
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    metadata = {"name": name, "namespace": "ns", "annotations": annotations}
    return {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": metadata, "spec": {"scaleTargetRef": target}}


@pytest.mark.parametrize("scaler", [an_autoscaler("theirs"), an_autoscaler("web", **{ADOPT_ANNOTATION: "web"})], ids=["theirs", "offered"])
async def test_replicas_are_taken_back_from_an_autoscaler_that_goes(bench: Bench, scaler: dict[str, Any]) -> None:
    deployment = ChildRef(DEPLOYMENT, "ns", "web")
    bench.api.create(scaler)
    await bench.settle()
    bench.api.edit(deployment, {"spec": {"replicas": 8}}, "kube-controller-manager", "scale")
    await bench.settle()
    await again(bench)
    assert bench.api.objects[deployment]["spec"]["replicas"] == 8
    bench.api.remove(ref_of(scaler))
    await bench.settle()
    assert bench.api.objects[deployment]["spec"]["replicas"] == 2


async def test_an_autoscaler_of_somebody_else_beside_it_is_no_reason_to_render(bench: Bench, rendered: Rendered) -> None:
    bench.api.create(an_autoscaler("theirs"))
    await bench.settle()
    assert rendered.times == 1
    await again(bench)
    assert rendered.times == 1


async def test_what_an_observing_policy_left_alone_is_not_taken_for_wanted_when_it_is_enforced_again(bench: Bench) -> None:
    bench.policies.put(changed(raw_policy(), mode="Observe"))
    await bench.settle()
    _edited(bench)
    await bench.settle()
    await restarted(bench, mode="Observe")
    await again(bench)
    bench.policies.put(changed(raw_policy(), version=3))
    await bench.settle()
    assert bench.api.objects[SERVICE]["spec"]["selector"] != {"app": "another"}


async def test_a_child_made_anew_is_in_the_inventory_though_the_first_status_was_not_taken(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = bench.api.write

    async def refused(*_: Any) -> bool:
        raise ApiUnavailable("conflict")

    monkeypatch.setattr(bench.api, "write", refused)
    bench.api.remove(SERVICE)
    with pytest.raises(ApiUnavailable):
        await bench.settle()
    monkeypatch.setattr(bench.api, "write", write)
    await again(bench)
    uids = {item["kind"]: item["uid"] for item in bench.api.statuses[WEB]["resources"]}
    assert uids["Service"] == bench.api.objects[SERVICE]["metadata"]["uid"]


async def test_a_controller_that_takes_a_route_over_while_others_are_written_is_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    apply = bench.api.apply
    route = ChildRef(GroupKind("networking.istio.io", "VirtualService"), "ns", "web")

    async def sharing(manifest: Manifest, *, force: bool, manager: str = "perfpolicy") -> Any:
        answer = await apply(manifest, force=force, manager=manager)
        if manifest["kind"] == "PrometheusRule":
            ours = bench.api.objects[route]
            bench.api._merge(route, {**ours, "metadata": {"name": "web", "namespace": "ns"}}, "flagger", "Apply", force=True)
        return answer

    monkeypatch.setattr(bench.api, "apply", sharing)
    bench.policies.put(changed(raw_policy(), traffic={"timeout": "3s"}, thresholds={"window": "2m", "errorRate": {"max": "6%"}}))
    await bench.settle()
    assert bench.condition("Programmed")[0] == "False"


async def test_another_program_renders_anew(bench: Bench, rendered: Rendered, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settled, "program", lambda: "another")
    await restarted(bench)
    assert rendered.times == 1


async def test_another_class_of_the_same_name_and_generation_renders_anew(bench: Bench) -> None:
    bench.api.log.clear()
    await restarted(bench, raw_class(defaults={"traffic": {"timeout": "3s"}}))
    assert ("create", "VirtualService ns/web") in bench.api.log


async def test_an_edit_while_nobody_looked_is_followed(bench: Bench) -> None:
    bench.api.log.clear()
    await restarted(bench, security={"mtls": "Inherit"})
    assert ("delete", "PeerAuthentication ns/web") in bench.api.writes()


async def test_a_child_that_is_no_longer_wanted_and_in_no_inventory_is_pruned(bench: Bench) -> None:
    (stray,) = render(bench.states[WEB].resolved, frozenset({AUTHENTICATION})).manifests  # type: ignore[arg-type]
    await bench.api.apply({**stray, "metadata": {**stray["metadata"], "name": "stray"}}, force=True)
    bench.api.log.clear()
    await restarted(bench)
    assert bench.api.writes() == [("delete", "PeerAuthentication ns/stray")]


async def test_kinds_that_are_served_now_are_rendered(bench: Bench, rendered: Rendered) -> None:
    bench.reconciler.served = EVERYTHING - {DEPLOYMENT}
    await again(bench)
    assert rendered.times == 1
    assert "settled" not in bench.api.statuses[WEB]


async def test_a_policy_that_is_refused_in_between_is_looked_at_again(bench: Bench, rendered: Rendered) -> None:
    bench.policies.put(changed(raw_policy(), className="none"))
    await bench.settle()
    assert "settled" not in bench.api.statuses[WEB]
    bench.policies.put(changed(raw_policy(), version=3))
    await bench.settle()
    assert bench.api.statuses[WEB]["settled"]["digest"]


def test_the_digest_is_the_same_in_every_process() -> None:
    """Sets of texts are written in another order in each."""
    code = "from tests import builders as a; print(repr(a.a_full_policy()))"
    said = {
        subprocess.run((sys.executable, "-c", code), env={**os.environ, "PYTHONHASHSEED": seed}, check=True, stdout=subprocess.PIPE).stdout
        for seed in ("1", "2")
    }
    assert len(said) == 1
