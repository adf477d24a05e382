"""Applying children: what differs is written, nothing else, and nobody's object is touched."""

import copy
from dataclasses import replace
from typing import Any
from unittest.mock import AsyncMock

import pytest

from perfpolicy.errors import ApiRejected, ApiUnavailable
from perfpolicy.policy.model import Policy, PolicyKey
from perfpolicy.reconcile.applier import Applier, Held, Outcome
from perfpolicy.reconcile.children import ChildRef
from perfpolicy.reconcile.foreign import AUTOSCALER, VIRTUAL_SERVICE, Withheld
from perfpolicy.reconcile.hub import Hub
from perfpolicy.reconcile.queue import Work
from perfpolicy.render.manifest import GroupKind, Manifest
from perfpolicy.vocabulary import Reason
from tests.builders import a_policy
from tests.reconcile.fake_api import FakeApi

CONFIG_MAP = GroupKind("", "ConfigMap")
DEPLOYMENT = GroupKind("apps", "Deployment")
KINDS = frozenset({CONFIG_MAP, DEPLOYMENT, VIRTUAL_SERVICE, AUTOSCALER})
HPA_CONTROLLER = "kube-controller-manager"


def child(kind: GroupKind, version: str = "v1", uid: str = "me", name: str = "web", **spec: Any) -> Manifest:
    """A rendered manifest."""
    return {
        "apiVersion": f"{kind.group}/{version}" if kind.group else version,
        "kind": kind.kind,
        "metadata": {
            "name": name,
            "namespace": "ns",
            "labels": {"app.kubernetes.io/managed-by": "perfpolicy", "perfpolicy.io/policy": "web"},
            "ownerReferences": [
                {"apiVersion": "perfpolicy.io/v1alpha1", "kind": "PerformancePolicy", "name": "web", "uid": uid, "controller": True}
            ],
        },
        "spec": spec or {"a": 1},
    }


class Bench:
    """An applier on an API server in memory whose watch feeds the cache."""

    def __init__(self) -> None:
        self.queued: list[PolicyKey] = []
        self.complete: frozenset[GroupKind] = frozenset()
        self.hub = Hub(self._enqueue, KINDS)
        self.api = FakeApi(self.hub)
        self.restart()

    def restart(self) -> None:
        """The operator's memory is lost; the watches list what there is."""
        self.hub = self.api.hub = Hub(self._enqueue, KINDS)
        for ref, obj in self.api.objects.items():
            self.hub.put(ref.kind, obj)
        self.applier = Applier(self.api, self.api, self.hub.children, lambda kind: kind in self.complete, self.hub.foreign.scales)

    def _enqueue(self, key: PolicyKey, work: Work) -> None:
        assert work is Work.RECONCILE
        self.queued.append(key)

    async def apply(
        self,
        *manifests: Manifest,
        uid: str = "me",
        withheld: dict[GroupKind, Withheld] | None = None,
        inventory: tuple[Held, ...] = (),
        served: frozenset[GroupKind] = KINDS,
    ) -> Outcome:
        """One pass."""
        return await self.applier.apply(policy(uid), manifests, withheld or {}, inventory, served, 0.0)


def policy(uid: str = "me") -> Policy:
    return a_policy(name="web", namespace="ns", uid=uid)


def ref(kind: GroupKind, name: str = "web") -> ChildRef:
    return ChildRef(kind, "ns", name)


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_children_are_created_in_their_order_and_then_left_alone(bench: Bench) -> None:
    children = (child(CONFIG_MAP), child(DEPLOYMENT))
    outcome = await bench.apply(*children)
    assert [held.ref.kind for held in outcome.held] == [CONFIG_MAP, DEPLOYMENT]
    assert bench.api.writes() == [("create", "ConfigMap ns/web"), ("create", "Deployment ns/web")]
    assert (await bench.apply(*children)).writes == 0
    bench.restart()
    assert (await bench.apply(*children)).writes == 0
    assert len(bench.api.writes()) == 2


async def test_our_own_writes_do_not_queue_their_policy(bench: Bench) -> None:
    # The fake's watch tells before the write is answered; a real one may do either.
    await bench.apply(child(CONFIG_MAP))
    bench.hub.put(CONFIG_MAP, bench.api.objects[ref(CONFIG_MAP)])
    await bench.apply(child(CONFIG_MAP, a=2))
    await bench.apply()
    assert bench.api.writes()[-1] == ("delete", "ConfigMap ns/web")
    assert bench.queued == []


async def test_a_changed_manifest_is_applied_with_the_uid_it_is_meant_for(bench: Bench) -> None:
    await bench.apply(child(CONFIG_MAP, a=1))
    assert (await bench.apply(child(CONFIG_MAP, a=2))).writes == 1
    assert bench.api.objects[ref(CONFIG_MAP)]["spec"] == {"a": 2}


@pytest.mark.parametrize(
    "changes",
    [
        {"spec": {"a": 99}},
        {"spec": {"a": None}},
        {"metadata": {"labels": {"app.kubernetes.io/managed-by": "somebody"}}},
        {"metadata": {"labels": {"perfpolicy.io/policy": None}}},
        {"metadata": {"annotations": {"perfpolicy.io/applied": "forged"}}},
    ],
)
@pytest.mark.parametrize("restarted", [False, True])
async def test_drift_is_seen_and_repaired(bench: Bench, changes: Manifest, restarted: bool) -> None:
    await bench.apply(child(CONFIG_MAP))
    wanted = {key: value for key, value in bench.api.objects[ref(CONFIG_MAP)].items() if key == "spec"}
    labels = bench.api.objects[ref(CONFIG_MAP)]["metadata"]["labels"]
    bench.queued.clear()
    bench.api.edit(ref(CONFIG_MAP), changes)
    assert bench.queued == [PolicyKey("ns", "web")]
    if restarted:
        bench.restart()
    assert (await bench.apply(child(CONFIG_MAP))).writes == 1
    assert bench.api.objects[ref(CONFIG_MAP)]["spec"] == wanted["spec"]
    assert bench.api.objects[ref(CONFIG_MAP)]["metadata"]["labels"] == labels
    assert (await bench.apply(child(CONFIG_MAP))).writes == 0


async def test_a_field_of_somebody_else_is_neither_drift_nor_removed(bench: Bench) -> None:
    await bench.apply(child(CONFIG_MAP))
    bench.queued.clear()
    bench.api.edit(ref(CONFIG_MAP), {"spec": {"theirs": True}})
    assert bench.queued == []
    assert (await bench.apply(child(CONFIG_MAP, a=2))).writes == 1
    assert bench.api.objects[ref(CONFIG_MAP)]["spec"] == {"a": 2, "theirs": True}


async def test_a_deleted_child_is_created_anew(bench: Bench) -> None:
    await bench.apply(child(CONFIG_MAP))
    bench.queued.clear()
    bench.api.remove(ref(CONFIG_MAP))
    assert bench.queued == [PolicyKey("ns", "web")]
    await bench.apply(child(CONFIG_MAP))
    assert bench.api.writes("create") == [("create", "ConfigMap ns/web")] * 2


async def test_a_foreign_object_is_not_written_and_stops_only_its_own_kind(bench: Bench) -> None:
    theirs = bench.api.create({**child(CONFIG_MAP, b=1), "metadata": {"name": "web", "namespace": "ns"}})
    before = dict(theirs)
    outcome = await bench.apply(child(CONFIG_MAP), child(DEPLOYMENT))
    assert [conflict.reason for conflict in outcome.conflicts] == [Reason.FOREIGN_OBJECT]
    assert outcome.blocked_by == {ref(CONFIG_MAP)}
    assert bench.api.writes() == [("create", "Deployment ns/web")]
    assert bench.api.objects[ref(CONFIG_MAP)] == before


async def test_an_object_that_appears_just_before_our_write_is_given_back(bench: Bench) -> None:
    theirs = {**child(CONFIG_MAP, theirs=1), "metadata": {"name": "web", "namespace": "ns"}}
    bench.api.before_write[ref(CONFIG_MAP)] = theirs
    outcome = await bench.apply(child(CONFIG_MAP, a=1))
    assert outcome.conflicts
    assert not outcome.held
    left = bench.api.objects[ref(CONFIG_MAP)]
    assert left["spec"] == {"theirs": 1}
    assert not left["metadata"].get("ownerReferences")


async def test_an_object_with_the_same_field_is_not_overwritten_in_that_moment(bench: Bench) -> None:
    bench.api.before_write[ref(CONFIG_MAP)] = {**child(CONFIG_MAP, a=7), "metadata": {"name": "web", "namespace": "ns"}}
    outcome = await bench.apply(child(CONFIG_MAP, a=1))
    assert outcome.again, "the next look finds it and calls it foreign"
    assert bench.api.objects[ref(CONFIG_MAP)]["spec"] == {"a": 7}


async def test_an_object_is_taken_over_when_its_owner_says_so(bench: Bench) -> None:
    metadata = {"name": "web", "namespace": "ns", "annotations": {"perfpolicy.io/adopt": "web"}}
    bench.api.create({**child(CONFIG_MAP, a=7), "metadata": metadata})
    outcome = await bench.apply(child(CONFIG_MAP, a=1))
    assert len(outcome.held) == 1
    assert bench.api.objects[ref(CONFIG_MAP)]["spec"] == {"a": 1}


async def test_children_of_a_former_policy_are_waited_for(bench: Bench) -> None:
    await bench.apply(child(CONFIG_MAP, uid="former"), uid="former")
    outcome = await bench.apply(child(CONFIG_MAP))
    assert outcome.waiting
    assert outcome.again
    assert len(bench.api.writes()) == 1


async def test_an_orphan_of_ours_is_adopted_again(bench: Bench) -> None:
    await bench.apply(child(CONFIG_MAP, uid="former"), uid="former")
    former = bench.api.objects[ref(CONFIG_MAP)]["metadata"]["ownerReferences"][0]
    bench.api.edit(ref(CONFIG_MAP), {"metadata": {"ownerReferences": []}})
    bench.api.objects[ref(CONFIG_MAP)]["metadata"]["ownerReferences"] = []
    bench.restart()
    assert former["uid"] == "former"
    outcome = await bench.apply(child(CONFIG_MAP))
    assert len(outcome.held) == 1
    assert bench.api.objects[ref(CONFIG_MAP)]["metadata"]["ownerReferences"][0]["uid"] == "me"


async def test_what_is_no_longer_wanted_is_pruned_whether_recorded_or_only_alive(bench: Bench) -> None:
    outcome = await bench.apply(child(CONFIG_MAP, name="recorded"), child(CONFIG_MAP, name="unrecorded"), child(DEPLOYMENT))
    bench.api.edit(ref(CONFIG_MAP, "recorded"), {"metadata": {"labels": {"app.kubernetes.io/managed-by": "x"}}})
    inventory = tuple(held for held in outcome.held if held.ref.name == "recorded")
    # A selecting watch loses sight of a relabelled object: only the inventory remembers it.
    bench.hub.children.learn(ref(CONFIG_MAP, "recorded"), None)
    after = await bench.apply(child(DEPLOYMENT), inventory=inventory)
    assert [held.ref.kind for held in after.held] == [DEPLOYMENT]
    assert set(bench.api.objects) == {ref(DEPLOYMENT)}


async def test_what_is_not_ours_is_not_pruned_although_the_inventory_names_it(bench: Bench) -> None:
    bench.api.create({**child(CONFIG_MAP), "metadata": {"name": "web", "namespace": "ns"}})
    await bench.apply(inventory=(Held(ref(CONFIG_MAP), "v1", "whatever"),))
    assert bench.api.writes() == []


async def test_a_kind_the_api_server_does_not_show_is_not_pruned(bench: Bench) -> None:
    outcome = await bench.apply(child(CONFIG_MAP), child(VIRTUAL_SERVICE))
    after = await bench.apply(child(CONFIG_MAP), inventory=tuple(outcome.held), served=KINDS - {VIRTUAL_SERVICE})
    assert {held.ref.kind for held in after.held} == {CONFIG_MAP, VIRTUAL_SERVICE}
    assert bench.api.writes("delete") == []


async def test_nothing_is_pruned_while_something_could_not_be_applied(bench: Bench) -> None:
    outcome = await bench.apply(child(CONFIG_MAP, name="old"))
    bench.api.failures[ref(CONFIG_MAP, "new")] = [ApiUnavailable("no")]
    again = await bench.apply(child(CONFIG_MAP, name="new"), inventory=tuple(outcome.held))
    assert again.again
    assert [held.ref.name for held in again.held] == ["old"]
    assert set(bench.api.objects) == {ref(CONFIG_MAP, "old")}


async def test_a_refused_child_does_not_stop_the_others(bench: Bench) -> None:
    bench.api.failures[ref(CONFIG_MAP)] = [ApiRejected("invalid", 422, "Invalid")]
    outcome = await bench.apply(child(CONFIG_MAP), child(DEPLOYMENT))
    assert [refused.transient for refused in outcome.refused] == [False]
    assert not outcome.again
    assert [held.ref.kind for held in outcome.held] == [DEPLOYMENT]


async def test_an_api_server_that_does_not_answer_is_asked_only_twice(bench: Bench) -> None:
    names = [f"c{number}" for number in range(5)]
    for name in names:
        bench.api.failures[ref(CONFIG_MAP, name)] = [ApiUnavailable("no answer", retry_after=7)]
    outcome = await bench.apply(*(child(CONFIG_MAP, name=name) for name in names))
    assert outcome.retry_after == 7
    assert len(outcome.refused) == 5
    assert sum(len(left) for left in bench.api.failures.values()) == 3


async def test_a_child_replaced_behind_our_back_is_looked_at_anew(bench: Bench) -> None:
    await bench.apply(child(CONFIG_MAP, a=1))
    bench.api.hub = None  # events get lost
    bench.api.remove(ref(CONFIG_MAP))
    bench.api.create({**child(CONFIG_MAP, a=5), "metadata": {"name": "web", "namespace": "ns"}})
    assert (await bench.apply(child(CONFIG_MAP, a=2))).again
    outcome = await bench.apply(child(CONFIG_MAP, a=2))
    assert outcome.conflicts
    assert bench.api.objects[ref(CONFIG_MAP)]["spec"] == {"a": 5}


async def test_replicas_are_left_to_who_scales_and_never_reset(bench: Bench) -> None:
    await bench.apply(child(DEPLOYMENT, replicas=5, image="a"))
    bench.api.edit(ref(DEPLOYMENT), {"spec": {"replicas": 8}}, manager="hpa", subresource="scale")
    await bench.apply(child(DEPLOYMENT, replicas=5, image="b"))
    assert bench.api.objects[ref(DEPLOYMENT)]["spec"] == {"replicas": 8, "image": "b"}
    assert (await bench.apply(child(DEPLOYMENT, replicas=6, image="b"))).writes == 0


def replicas(bench: Bench) -> Any:
    return bench.api.objects[ref(DEPLOYMENT)]["spec"].get("replicas")


def owners(bench: Bench) -> set[str]:
    """Field managers that own spec.replicas."""
    managed = bench.api.objects[ref(DEPLOYMENT)]["metadata"]["managedFields"]
    return {entry["manager"] for entry in managed if "f:replicas" in entry["fieldsV1"].get("f:spec", {})}


def their_autoscaler(name: str = "theirs") -> Manifest:
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": name, "namespace": "ns"},
        "spec": {"scaleTargetRef": target},
    }


async def test_a_new_scaled_deployment_keeps_its_replicas_until_it_is_scaled(bench: Bench) -> None:
    children = (child(DEPLOYMENT, replicas=5, image="a"), child(AUTOSCALER, version="v2"))
    assert (await bench.apply(*children)).writes == 2
    for scaled_to, expected in ((None, (5, {"perfpolicy"})), (8, (8, {HPA_CONTROLLER})), (6, (6, {HPA_CONTROLLER}))):
        if scaled_to is not None:
            bench.api.edit(ref(DEPLOYMENT), {"spec": {"replicas": scaled_to}}, manager=HPA_CONTROLLER, subresource="scale")
            assert (await bench.apply(*children)).writes == (1 if scaled_to == 8 else 0), "our digest no longer speaks of replicas"
        assert (await bench.apply(*children)).writes == 0
        bench.restart()
        assert (await bench.apply(*children)).writes == 0
        assert (replicas(bench), owners(bench)) == expected


async def test_a_scaled_deployment_that_is_edited_keeps_the_replicas_it_has(bench: Bench) -> None:
    autoscaler = child(AUTOSCALER, version="v2")
    await bench.apply(child(DEPLOYMENT, replicas=5, image="a"), autoscaler)
    await bench.apply(child(DEPLOYMENT, replicas=3, image="b"), autoscaler)
    assert (replicas(bench), owners(bench)) == (5, {"perfpolicy-replicas"})
    assert (await bench.apply(child(DEPLOYMENT, replicas=3, image="b"), autoscaler)).writes == 0


async def test_adding_and_removing_scaling_never_changes_replicas_but_to_what_the_policy_says(bench: Bench) -> None:
    seen: list[Any] = []
    put = bench.hub.put

    def watch(kind: GroupKind, obj: Manifest) -> None:
        if kind == DEPLOYMENT:
            seen.append(obj["spec"].get("replicas"))
        put(kind, obj)

    bench.hub.put = watch  # type: ignore[method-assign,assignment]
    bench.complete = frozenset({AUTOSCALER})
    plain, autoscaler = child(DEPLOYMENT, replicas=5, image="a"), child(AUTOSCALER, version="v2")
    await bench.apply(plain)
    await bench.apply(plain, autoscaler)
    assert owners(bench) == {"perfpolicy"}
    bench.api.edit(ref(DEPLOYMENT), {"spec": {"replicas": 8}}, manager=HPA_CONTROLLER, subresource="scale")
    await bench.apply(child(DEPLOYMENT, replicas=3, image="b"), autoscaler)
    assert (replicas(bench), owners(bench)) == (8, {HPA_CONTROLLER})
    await bench.apply(child(DEPLOYMENT, replicas=3, image="b"))
    assert (replicas(bench), owners(bench)) == (3, {"perfpolicy"})
    assert seen == [*sorted(seen[:-1]), 3], "5, then 8, then 3, and nothing between"
    assert set(seen) == {5, 8, 3}
    assert (await bench.apply(child(DEPLOYMENT, replicas=3, image="b"))).writes == 0


async def test_an_autoscaler_goes_before_its_deployment_has_its_own_replicas_again(bench: Bench) -> None:
    bench.complete = frozenset({AUTOSCALER})
    await bench.apply(child(DEPLOYMENT, replicas=5, image="a"), child(AUTOSCALER, version="v2"))
    bench.api.edit(ref(DEPLOYMENT), {"spec": {"replicas": 8}}, manager=HPA_CONTROLLER, subresource="scale")
    bench.api.log.clear()
    await bench.apply(child(DEPLOYMENT, replicas=5, image="a"))
    assert bench.api.writes() == [("delete", "HorizontalPodAutoscaler ns/web"), ("apply", "Deployment ns/web")]


async def test_while_its_autoscaler_cannot_be_deleted_replicas_are_left_to_it(bench: Bench) -> None:
    bench.complete = frozenset({AUTOSCALER})
    await bench.apply(child(DEPLOYMENT, replicas=5, image="a"), child(AUTOSCALER, version="v2"))
    bench.api.edit(ref(DEPLOYMENT), {"spec": {"replicas": 8}}, manager=HPA_CONTROLLER, subresource="scale")
    bench.api.failures[ref(AUTOSCALER)] = [ApiRejected("forbidden", 403)]
    outcome = await bench.apply(child(DEPLOYMENT, replicas=5, image="a"))
    assert replicas(bench) == 8
    assert [refused.ref.kind for refused in outcome.refused] == [AUTOSCALER]


@pytest.mark.parametrize("error", [ApiUnavailable("no answer"), ApiRejected("conflict", 409)])
@pytest.mark.parametrize("steps", [1, 2])
async def test_what_fails_between_letting_go_and_applying_is_tried_again_and_ends_the_same(
    bench: Bench, steps: int, error: ApiUnavailable | ApiRejected
) -> None:
    await bench.apply(child(DEPLOYMENT, replicas=5, image="a"))
    bench.api.failures[ref(DEPLOYMENT)] = [*[None] * (steps - 1), error]
    children = (child(DEPLOYMENT, replicas=5, image="b"), child(AUTOSCALER, version="v2"))
    assert (await bench.apply(*children)).refused
    bench.restart()
    assert not (await bench.apply(*children)).refused
    assert (replicas(bench), owners(bench)) == (5, {"perfpolicy-replicas"})


async def test_a_scaled_deployment_that_is_not_found_is_not_applied_without_its_replicas(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.apply(child(DEPLOYMENT, replicas=5, image="a"))
    children = (child(DEPLOYMENT, replicas=5, image="b"), child(AUTOSCALER, version="v2"))
    with monkeypatch.context() as patch:
        patch.setattr(bench.api, "read", AsyncMock(return_value=None))
        assert [refused.transient for refused in (await bench.apply(*children)).refused] == [True]
        assert replicas(bench) == 5
    assert not (await bench.apply(*children)).refused
    assert (replicas(bench), owners(bench)) == (5, {"perfpolicy-replicas"})


async def test_an_autoscaler_that_is_faster_than_the_handing_over_keeps_its_word(bench: Bench) -> None:
    await bench.apply(child(DEPLOYMENT, replicas=5, image="a"))
    read = bench.api.read

    async def read_then_scaled(kind: GroupKind, namespace: str | None, name: str) -> Manifest | None:
        found = await read(kind, namespace, name)
        bench.api.edit(ref(DEPLOYMENT), {"spec": {"replicas": 8}}, manager=HPA_CONTROLLER, subresource="scale")
        return found

    bench.api.read = read_then_scaled  # type: ignore[method-assign]
    children = (child(DEPLOYMENT, replicas=5, image="b"), child(AUTOSCALER, version="v2"))
    assert [refused.transient for refused in (await bench.apply(*children)).refused] == [True]
    assert not (await bench.apply(*children)).refused
    assert (replicas(bench), owners(bench)) == (8, {HPA_CONTROLLER})


async def test_replicas_are_left_to_somebody_elses_autoscaler_and_taken_back_when_it_is_gone(bench: Bench) -> None:
    bench.complete = frozenset({AUTOSCALER})
    await bench.apply(child(DEPLOYMENT, replicas=5, image="a"))
    bench.api.create(their_autoscaler())
    await bench.apply(child(DEPLOYMENT, replicas=6, image="a"))
    assert replicas(bench) == 5
    bench.api.edit(ref(DEPLOYMENT), {"spec": {"replicas": 8}}, manager=HPA_CONTROLLER, subresource="scale")
    await bench.apply(child(DEPLOYMENT, replicas=6, image="a"))
    assert replicas(bench) == 8
    bench.api.remove(ref(AUTOSCALER, "theirs"))
    bench.complete = frozenset()
    await bench.apply(child(DEPLOYMENT, replicas=6, image="a"))
    assert replicas(bench) == 8, "where autoscalers cannot be listed there may be one"
    bench.complete = frozenset({AUTOSCALER})
    await bench.apply(child(DEPLOYMENT, replicas=6, image="a"))
    assert replicas(bench) == 6


async def test_replicas_edited_by_hand_are_drift(bench: Bench) -> None:
    await bench.apply(child(DEPLOYMENT, replicas=5))
    bench.api.edit(ref(DEPLOYMENT), {"spec": {"replicas": 8}})
    await bench.apply(child(DEPLOYMENT, replicas=5))
    assert bench.api.objects[ref(DEPLOYMENT)]["spec"]["replicas"] == 5


@pytest.mark.parametrize(("manager", "host"), [("flagger", "elsewhere"), ("kubectl-edit", "web")])
async def test_routes_taken_by_a_controller_are_a_conflict_and_by_hand_are_drift(bench: Bench, manager: str, host: str) -> None:
    await bench.apply(child(VIRTUAL_SERVICE, http=[{"route": "web"}]))
    bench.api.edit(ref(VIRTUAL_SERVICE), {"spec": {"http": [{"route": "elsewhere"}]}}, manager=manager)
    outcome = await bench.apply(child(VIRTUAL_SERVICE, http=[{"route": "web"}]))
    assert bench.api.objects[ref(VIRTUAL_SERVICE)]["spec"]["http"] == [{"route": host}]
    assert bool(outcome.conflicts) == (manager == "flagger")


async def test_a_withheld_kind_is_not_written_and_what_we_have_there_stays(bench: Bench) -> None:
    await bench.apply(child(VIRTUAL_SERVICE, http=[]), child(CONFIG_MAP))
    why = Withheld(VIRTUAL_SERVICE, Reason.HOST_CLAIMED, "somebody routes it")
    outcome = await bench.apply(child(VIRTUAL_SERVICE, http=[1]), child(CONFIG_MAP), withheld={VIRTUAL_SERVICE: why})
    assert outcome.conflicts == [why]
    assert outcome.writes == 0
    assert {held.ref.kind for held in outcome.held} == {VIRTUAL_SERVICE, CONFIG_MAP}


async def test_a_field_set_the_server_shortened_is_not_applied_for_ever(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = bench.api.apply

    async def forgetful(manifest: Manifest, *, force: bool) -> Any:
        answer = await honest(manifest, force=force)
        for entry in answer.metadata["managedFields"]:
            entry["fieldsV1"].get("f:spec", {}).pop("f:env", None)
        return answer

    monkeypatch.setattr(bench.api, "apply", forgetful)
    await bench.apply(child(CONFIG_MAP, env=[], a=1))
    bench.hub.children.learn(ref(CONFIG_MAP), replace(known(bench), version=10**6))
    assert (await bench.apply(child(CONFIG_MAP, env=[], a=1))).writes == 0


def known(bench: Bench) -> Any:
    found = bench.hub.children.get(ref(CONFIG_MAP))
    assert found is not None
    return found


async def test_a_cache_that_forgot_our_child_does_not_make_us_empty_it() -> None:
    bench = Bench()
    bench.complete = frozenset({VIRTUAL_SERVICE})
    held = tuple((await bench.apply(child(VIRTUAL_SERVICE))).held)
    bench.api.edit(ref(VIRTUAL_SERVICE), {"metadata": {"labels": {"team": "x"}}}, manager="kubectl-label")
    bench.hub.children.learn(ref(VIRTUAL_SERVICE), None)
    outcome = await bench.apply(child(VIRTUAL_SERVICE), inventory=held)
    assert outcome.conflicts == []
    assert bench.api.objects[ref(VIRTUAL_SERVICE)]["spec"] == {"a": 1}


async def test_a_kind_that_is_not_complete_is_looked_up() -> None:
    bench = Bench()
    bench.complete = frozenset({VIRTUAL_SERVICE})
    await bench.apply(child(VIRTUAL_SERVICE))
    assert bench.api.finds == 0
    bench.api.edit(ref(VIRTUAL_SERVICE), {"metadata": {"labels": {"team": "x"}}}, manager="kubectl-label")
    bench.complete = frozenset()
    bench.hub.children.learn(ref(VIRTUAL_SERVICE), None)
    assert (await bench.apply(child(VIRTUAL_SERVICE))).conflicts == []
    assert bench.api.finds == 1


@pytest.mark.parametrize("changes", [{"spec": {"a": 99}}, {"spec": {"theirs": True}}, {"metadata": {"labels": {"theirs": "yes"}}}])
@pytest.mark.parametrize("restarted", [False, True])
async def test_drift_made_under_our_own_name_is_repaired(bench: Bench, changes: Manifest, restarted: bool) -> None:
    await bench.apply(child(CONFIG_MAP))
    wanted = copy.deepcopy(bench.api.objects[ref(CONFIG_MAP)])
    theirs = {**wanted, **{part: {**wanted[part], **values} for part, values in changes.items()}}
    if restarted:
        bench.restart()
    assert (await bench.apply(child(CONFIG_MAP))).writes == 0
    bench.queued.clear()
    bench.api.apply_as_us(theirs)
    assert bench.queued == [PolicyKey("ns", "web")]
    assert (await bench.apply(child(CONFIG_MAP))).writes == 1
    assert bench.api.objects[ref(CONFIG_MAP)]["spec"] == wanted["spec"]
    assert (await bench.apply(child(CONFIG_MAP))).writes == 0
