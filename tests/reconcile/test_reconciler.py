"""One policy walked the whole way, with real parsing, resolving and rendering, on an API server in memory."""

import asyncio
import copy
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from perfpolicy.errors import ApiRejected, ApiUnavailable, MetricsUnavailable, RenderError
from perfpolicy.evaluate.conditions import Transition
from perfpolicy.evaluate.evaluation import evaluate
from perfpolicy.policy.model import PolicyKey
from perfpolicy.promql.rules import revision
from perfpolicy.reconcile.applier import Applier
from perfpolicy.reconcile.children import ChildRef
from perfpolicy.reconcile.foreign import AUTOSCALER
from perfpolicy.reconcile.hub import NAMESPACE, SERVICE, Hub
from perfpolicy.reconcile.policies import Classes, KnownPolicy, Policies
from perfpolicy.reconcile.queue import Work
from perfpolicy.reconcile.reconciler import Pass, Reconciler
from perfpolicy.reconcile.state import PolicyState
from perfpolicy.render.manifest import GroupKind
from perfpolicy.render.registry import EVERYTHING
from perfpolicy.telemetry import Result
from tests.reconcile.fake_api import FakeApi

CHILD_KINDS = EVERYTHING
START = datetime(2026, 1, 1, tzinfo=UTC)
DEPLOYMENT = GroupKind("apps", "Deployment")
WEB = PolicyKey("ns", "web")


def raw_policy(
    name: str = "web", namespace: str = "ns", uid: str = "", created: str = "2026-01-01T00:00:00Z", **spec: Any
) -> dict[str, Any]:
    """A policy as kopf hands it on."""
    return {
        "apiVersion": "perfpolicy.io/v1alpha1",
        "kind": "PerformancePolicy",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": uid or f"uid-{name}",
            "generation": 1,
            "resourceVersion": "1",
            "creationTimestamp": created,
        },
        "spec": {
            "className": "gold",
            "workload": {"deployment": {"image": "img", "replicas": 2, "ports": [{"name": "http", "port": 8080}]}},
            "thresholds": {"window": "1m", "errorRate": {"max": "5%"}},
            "security": {"mtls": "Strict"},
            **spec,
        },
    }


def raw_class(name: str = "gold", **spec: Any) -> dict[str, Any]:
    grants = [{"name": "all", "workloadCreation": "Allowed"}]
    return {
        "apiVersion": "perfpolicy.io/v1alpha1",
        "kind": "PerformanceClass",
        "metadata": {"name": name, "uid": f"uid-{name}", "generation": 1},
        "spec": {"grants": grants, "metrics": {"address": "http://prometheus:9090"}, **spec},
    }


class Bench:
    """A reconciler on an API server in memory; `settle` does all queued work."""

    def __init__(self) -> None:
        self.api = FakeApi()
        self.clock = START
        self.events: list[tuple[str, str]] = []
        self.source: MetricsUnavailable | None = None
        self.there = True
        self.asked_after: list[PolicyKey] = []
        self.restart()

    def restart(self) -> None:
        """A new process: only the cluster is left."""
        self.queued: dict[PolicyKey, Work] = {}
        self.hub = self.api.hub = Hub(self.enqueue, CHILD_KINDS)
        self.hub.namespaces["ns"] = {"istio-injection": "enabled"}
        for ref, obj in self.api.objects.items():
            self.hub.put(ref.kind, obj)
        self.policies, self.classes = Policies(self.enqueue), Classes(self._class_changed)
        self.states: dict[PolicyKey, PolicyState] = {}
        self.poked = 0
        self.reconciler = Reconciler(
            policies=self.policies,
            classes=self.classes,
            hub=self.hub,
            objects=self.api,
            applier=Applier(self.api, self.api, self.hub.children, lambda kind: kind == AUTOSCALER, self.hub.foreign.scales),
            statuses=self.api,
            notify=self._notify,
            now=lambda: self.clock,
            states=self.states,
            requeue=self.enqueue,
            asked=lambda _: 0.0,
            again=lambda key: bool(self.queued.get(key, Work(0)) & Work.RECONCILE),
            resolved_changed=self._poke,
            evaluate_new=self._evaluate_new,
            still_there=self._still_there,
            served=EVERYTHING,
        )

    def enqueue(self, key: PolicyKey, work: Work = Work.RECONCILE) -> None:
        self.queued[key] = self.queued.get(key, Work(0)) | work

    def _class_changed(self, _: str) -> None:
        for key in self.policies:
            self.enqueue(key)

    def _notify(self, key: PolicyKey, _: str, transition: Transition) -> None:
        self.events.append((str(key), transition.reason))

    def _poke(self, _: PolicyState) -> None:
        self.poked += 1

    def _evaluate_new(self, _: PolicyKey, state: PolicyState) -> None:
        if self.source is not None and state.resolved is not None:
            state.evaluation, state.memory = evaluate(state.resolved, self.source, state.memory, self.clock)

    async def _still_there(self, known: KnownPolicy) -> bool:
        self.asked_after.append(known.key)
        return self.there

    async def settle(self) -> dict[PolicyKey, Pass]:
        """Work until nothing is queued; the last pass of each policy. A pass that asks for another look soon gets it."""
        passes: dict[PolicyKey, Pass] = {}
        for _ in range(50):
            if not self.queued:
                return passes
            key, work = self.queued.popitem()
            following = await self.reconciler.process(key, work)
            if following is None:
                continue
            passes[key] = following
            if 0 < following.after < 1:
                self.queued = {key: Work.RECONCILE, **self.queued}
        raise AssertionError(f"never at rest: {self.queued}")

    async def create(self, *policies: dict[str, Any]) -> None:
        """Policies appear and are worked on."""
        for policy in policies:
            self.policies.put(policy)
        await self.settle()

    def condition(self, kind: str, key: PolicyKey = WEB) -> tuple[str, str]:
        """(status, reason) of a condition in the status written last."""
        return next((c["status"], c["reason"]) for c in self.api.statuses[key]["conditions"] if c["type"] == kind)

    def kinds(self, name: str = "web") -> set[str]:
        """Kinds of the children that exist, by the policy named in their labels."""
        return {ref.kind.kind for ref, obj in self.api.objects.items() if obj["metadata"]["labels"].get("perfpolicy.io/policy") == name}

    def evaluate(self, key: PolicyKey = WEB) -> None:
        """One evaluation of a source that does not answer."""
        state = self.states[key]
        assert state.resolved is not None
        state.evaluation, state.memory = evaluate(state.resolved, MetricsUnavailable("down"), state.memory, self.clock)
        self.enqueue(key, Work.STATUS)


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.classes.put(raw_class())
    return bench


def changed(policy: dict[str, Any], version: int = 2, **spec: Any) -> dict[str, Any]:
    """The policy edited."""
    new = copy.deepcopy(policy)
    new["metadata"] |= {"generation": version, "resourceVersion": str(version)}
    new["spec"] |= spec
    return new


async def test_a_policy_becomes_children_and_a_status(bench: Bench) -> None:
    await bench.create(raw_policy())
    assert {"Deployment", "Service", "PeerAuthentication", "PrometheusRule"} <= bench.kinds()
    assert bench.condition("Accepted") == ("True", "Valid")
    assert bench.condition("Programmed") == ("True", "Programmed")
    assert len(bench.api.statuses[WEB]["resources"]) == len(bench.api.objects)
    assert bench.poked == 1
    assert ("ns/web", "Programmed") in bench.events


async def test_the_rules_revision_is_read_from_what_was_rendered(bench: Bench) -> None:
    await bench.create(raw_policy())
    state = bench.states[WEB]
    assert state.resolved is not None
    assert state.memory.expected == (state.resolved, revision(state.resolved))


async def test_looking_again_writes_nothing(bench: Bench) -> None:
    await bench.create(raw_policy())
    bench.api.log.clear()
    bench.enqueue(WEB)
    await bench.settle()
    assert bench.api.log == []
    assert bench.poked == 1


async def test_a_restart_writes_nothing(bench: Bench) -> None:
    policy = raw_policy()
    await bench.create(policy)
    bench.evaluate()
    await bench.settle()
    bench.api.log.clear()
    bench.events.clear()
    policy["status"] = json.loads(json.dumps(bench.api.statuses[WEB]))
    bench.clock += timedelta(hours=1)
    bench.restart()
    bench.classes.put(raw_class())
    await bench.create(policy)
    bench.evaluate()
    await bench.settle()
    assert bench.api.log == []
    assert bench.events == []


async def test_that_proxies_refuse_is_said_until_they_do_not_and_over_a_restart(bench: Bench) -> None:
    granting = raw_class("filters", grants=[{"name": "all", "workloadCreation": "Allowed", "envoyFilters": "Allowed"}])
    policy = raw_policy(className="filters", traffic={"compression": {}})
    bench.classes.put(granting)
    await bench.create(policy)
    bench.states[WEB].memory = replace(bench.states[WEB].memory, refused=True)
    bench.evaluate()
    await bench.settle()
    assert bench.condition("Programmed") == ("False", "Rejected")
    assert ("ns/web", "ProgrammedFalse") in bench.events
    policy["status"] = json.loads(json.dumps(bench.api.statuses[WEB]))
    bench.restart()
    bench.classes.put(granting)
    bench.api.log.clear()
    await bench.create(policy)
    assert bench.api.log == []
    bench.states[WEB].memory = replace(bench.states[WEB].memory, refused=False)
    bench.evaluate()
    await bench.settle()
    assert bench.condition("Programmed") == ("True", "Programmed")


async def test_a_spec_that_breaks_a_rule_keeps_the_last_good_children(bench: Bench) -> None:
    policy = raw_policy()
    await bench.create(policy)
    resources = bench.api.statuses[WEB]["resources"]
    bench.api.log.clear()
    await bench.create(changed(policy, className="silver"))
    assert bench.condition("Accepted") == ("False", "ClassNotFound")
    assert bench.api.writes() == []
    assert bench.api.statuses[WEB]["resources"] == resources
    bench.api.remove(ChildRef(SERVICE, "ns", "web"))
    await bench.settle()
    assert "Service" not in bench.kinds(), "nothing is repaired while it is not accepted"
    await bench.create(changed(policy, version=3))
    assert bench.condition("Programmed") == ("True", "Programmed")
    assert "Service" in bench.kinds()


async def test_what_the_spec_no_longer_asks_for_is_pruned(bench: Bench) -> None:
    policy = raw_policy(network={"ingress": []})
    await bench.create(policy)
    assert "NetworkPolicy" in bench.kinds()
    without = changed(policy)
    del without["spec"]["network"]
    await bench.create(without)
    assert "NetworkPolicy" not in bench.kinds()


async def test_the_inventory_survives_a_spec_that_was_refused_in_between(bench: Bench) -> None:
    policy = raw_policy(network={"ingress": []})
    await bench.create(policy)
    await bench.create(changed(policy, className="silver"))
    without = changed(policy, version=3)
    del without["spec"]["network"]
    await bench.create(without)
    assert "NetworkPolicy" not in bench.kinds()


async def test_a_suspended_policy_is_left_as_it_is(bench: Bench) -> None:
    policy = raw_policy()
    await bench.create(policy)
    await bench.create(changed(policy, suspend="All"))
    assert bench.condition("Suspended") == ("True", "Suspended")
    assert bench.condition("Programmed") == ("True", "Suspended")
    bench.api.remove(ChildRef(SERVICE, "ns", "web"))
    await bench.settle()
    assert "Service" not in bench.kinds()
    assert bench.condition("Programmed") == ("Unknown", "Suspended")
    assert any(item["kind"] == "Service" for item in bench.api.statuses[WEB]["resources"])


async def test_a_suspended_policy_is_in_force_only_while_it_is_as_its_spec_wants_it(bench: Bench) -> None:
    policy = raw_policy(network={"ingress": []})
    await bench.create(changed(policy, version=1, suspend="All"))
    assert (bench.kinds(), bench.condition("Programmed")) == (set(), ("Unknown", "Suspended"))
    await bench.create(changed(policy, version=2))
    await bench.create(changed(policy, version=3, suspend="All"))
    assert bench.condition("Programmed") == ("True", "Suspended")
    without = changed(policy, version=4, suspend="All")
    del without["spec"]["network"]
    await bench.create(without)
    assert bench.condition("Programmed") == ("Unknown", "Suspended")
    message = next(each["message"] for each in bench.api.statuses[WEB]["conditions"] if each["type"] == "Programmed")
    assert "NetworkPolicy" in message
    assert "NetworkPolicy" in bench.kinds()


async def test_observe_from_the_start_writes_rules_only(bench: Bench) -> None:
    await bench.create(changed(raw_policy(), mode="Observe"))
    assert bench.kinds() == {"PrometheusRule"}
    assert bench.condition("Programmed") == ("True", "ObserveOnly")


async def test_a_running_policy_that_turns_to_observe_keeps_its_children_untouched(bench: Bench) -> None:
    policy = raw_policy()
    await bench.create(policy)
    before = bench.kinds()
    bench.api.log.clear()
    await bench.create(changed(policy, mode="Observe"))
    assert bench.kinds() == before > {"PrometheusRule"}
    assert [entry for entry in bench.api.log if entry[0] != "status" and "PrometheusRule" not in str(entry)] == []
    assert bench.condition("Programmed") == ("True", "ObserveOnly")


async def test_a_kind_that_is_not_served_is_reported_and_applied_when_it_appears(bench: Bench) -> None:
    missing = GroupKind("security.istio.io", "PeerAuthentication")
    bench.reconciler.served = EVERYTHING - {missing}
    await bench.create(raw_policy())
    assert bench.condition("Programmed") == ("False", "DependencyMissing")
    assert "Service" in bench.kinds()
    bench.reconciler.served = EVERYTHING
    bench.enqueue(WEB)
    await bench.settle()
    assert bench.condition("Programmed") == ("True", "Programmed")


async def test_a_policy_that_is_gone_is_forgotten_and_nothing_is_written(bench: Bench) -> None:
    await bench.create(raw_policy())
    bench.api.log.clear()
    bench.policies.drop(WEB, "uid-web")
    await bench.settle()
    assert bench.states == {}
    assert bench.api.log == []


async def test_a_policy_being_deleted_is_neither_repaired_nor_followed(bench: Bench) -> None:
    policy = raw_policy()
    await bench.create(policy)
    going = changed(policy)
    # Admission does not judge such an edit: nothing may come of it.
    going["metadata"] |= {"deletionTimestamp": "2026-01-01T00:00:01Z", "generation": 2}
    going["spec"]["security"] = {"mtls": "Permissive"}
    bench.policies.put(going)
    bench.api.remove(ChildRef(SERVICE, "ns", "web"))
    bench.api.log.clear()
    await bench.settle()
    assert bench.api.log == []


async def test_children_that_went_with_their_policy_are_not_made_again_before_its_end_is_heard_of(bench: Bench) -> None:
    await bench.create(raw_policy())
    bench.there = False
    bench.asked_after.clear()
    before = len(bench.api.log)
    bench.api.remove(next(ref for ref in bench.api.objects if ref.kind.kind == "Service"))
    assert [following.retry for following in (await bench.settle()).values()] == [True], "should it be wrong, nobody else asks again"
    assert bench.api.log[before:] == []
    bench.there = True
    bench.enqueue(PolicyKey("ns", "web"))
    await bench.settle()
    assert [verb for verb, _ in bench.api.log[before:]] == ["create", "status"]
    assert len(bench.asked_after) == 2


async def test_the_policy_is_only_asked_after_when_a_child_is_gone(bench: Bench) -> None:
    await bench.create(raw_policy())
    bench.enqueue(PolicyKey("ns", "web"))
    await bench.settle()
    assert bench.asked_after == []


async def test_a_policy_heard_of_before_its_namespace_waits_for_its_labels(bench: Bench) -> None:
    """Else its pods would be made as if outside the mesh, and replaced a moment later."""
    labels = bench.hub.namespaces.pop("ns")
    bench.policies.put(raw_policy())
    following = await bench.reconciler.process(WEB, Work.RECONCILE)
    assert following is not None
    assert 0 < following.after < 1
    assert bench.api.log == []
    bench.hub.put(NAMESPACE, {"metadata": {"name": "ns", "labels": labels}})
    await bench.settle()
    assert [verb for verb, ref in bench.api.log if ref.startswith("Deployment")] == ["create"]


async def test_a_namespace_that_cannot_be_read_is_not_waited_for_long(bench: Bench) -> None:
    bench.hub.namespaces.clear()
    await bench.create(raw_policy())
    assert bench.api.log


async def test_nothing_is_repaired_in_a_namespace_being_deleted(bench: Bench) -> None:
    await bench.create(raw_policy())
    bench.api.log.clear()
    bench.hub.put(NAMESPACE, {"metadata": {"name": "ns", "deletionTimestamp": "now", "labels": {"istio-injection": "enabled"}}})
    for ref in list(bench.api.objects):
        bench.api.remove(ref)
    await bench.settle()
    assert bench.api.log == []
    bench.hub.drop(NAMESPACE, {"metadata": {"name": "ns"}})
    assert bench.hub.terminating == set()


async def test_a_policy_created_anew_waits_for_its_former_children_to_be_collected(bench: Bench) -> None:
    await bench.create(raw_policy())
    bench.policies.drop(WEB)
    bench.policies.put(raw_policy(uid="second"))
    passes = await bench.settle()
    assert passes[WEB].retry
    assert bench.condition("Programmed") == ("Unknown", "Progressing")
    assert bench.condition("Reconciling") == ("True", "Progressing")
    for ref in list(bench.api.objects):
        bench.api.remove(ref)
    await bench.settle()
    assert bench.condition("Programmed") == ("True", "Programmed")
    assert bench.api.status_uids[WEB] == "second"


TARGET = {"targetRef": {"group": "apps", "kind": "Deployment", "name": "shared"}}
SHARED = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "shared", "namespace": "ns", "labels": {"app": "shared"}},
    "spec": {
        "replicas": 2,
        "selector": {"matchLabels": {"app": "shared"}},
        "template": {
            "metadata": {"labels": {"app": "shared"}},
            "spec": {"containers": [{"name": "app", "ports": [{"name": "http", "containerPort": 8080}]}]},
        },
    },
}


async def test_of_two_policies_on_one_workload_the_elder_wins_whichever_is_looked_at_first(bench: Bench) -> None:
    bench.api.create(SHARED)
    elder = raw_policy("elder", created="2026-01-01T00:00:00Z", workload=TARGET, service={"port": 80})
    younger = raw_policy("younger", created="2026-01-02T00:00:00Z", workload=TARGET, service={"port": 80})
    for order in ((elder, younger), (younger, elder)):
        bench.restart()
        bench.classes.put(raw_class())
        await bench.create(*order)
        assert bench.condition("Accepted", PolicyKey("ns", "elder")) == ("True", "Valid")
        assert bench.condition("Accepted", PolicyKey("ns", "younger")) == ("False", "Conflicted")
        assert bench.kinds("younger") == set()


async def test_the_younger_takes_over_when_the_elder_goes_or_is_refused(bench: Bench) -> None:
    bench.api.create(SHARED)
    elder = raw_policy("elder", created="2026-01-01T00:00:00Z", workload=TARGET, service={"port": 80})
    await bench.create(elder, raw_policy("younger", created="2026-01-02T00:00:00Z", workload=TARGET, service={"port": 80}))
    await bench.create(changed(elder, className="silver"))
    assert bench.condition("Accepted", PolicyKey("ns", "younger")) == ("True", "Valid")
    await bench.create(changed(elder, version=3))
    assert bench.condition("Accepted", PolicyKey("ns", "younger")) == ("False", "Conflicted")
    bench.policies.drop(PolicyKey("ns", "elder"))
    await bench.settle()
    assert bench.condition("Accepted", PolicyKey("ns", "younger")) == ("True", "Valid")


async def test_a_refused_policy_cannot_block_a_host_of_somebody_else(bench: Bench) -> None:
    bench.classes.put(
        raw_class(
            "granted",
            grants=[
                {
                    "name": "all",
                    "workloadCreation": "Allowed",
                    "hosts": ["shop.test"],
                    "gateways": [{"namespace": "gw", "name": "public"}],
                    "namespaces": {"names": ["ns"]},
                }
            ],
        )
    )
    bench.hub.namespaces["evil"] = {}
    traffic = {"hosts": ["shop.test"], "gateways": [{"namespace": "gw", "name": "public"}]}
    squatter = raw_policy("squat", namespace="evil", created="2025-01-01T00:00:00Z", className="granted", traffic=traffic)
    await bench.create(raw_policy(className="granted", traffic=traffic), squatter)
    assert bench.condition("Accepted", PolicyKey("evil", "squat"))[0] == "False"
    assert bench.condition("Accepted") == ("True", "Valid")


async def test_a_target_that_appears_is_noticed(bench: Bench) -> None:
    await bench.create(raw_policy(workload=TARGET, service={"port": 80}))
    assert bench.condition("Accepted") == ("False", "TargetNotFound")
    bench.api.create(SHARED)
    await bench.settle()
    assert bench.condition("Accepted") == ("True", "Valid")


async def test_the_first_status_says_what_is_known_of_the_metrics(bench: Bench) -> None:
    bench.source = MetricsUnavailable("down")
    await bench.create(raw_policy())
    assert bench.condition("MetricsAvailable") == ("False", "SourceUnreachable")
    assert [entry for entry in bench.api.log if entry[0] == "status"] == [("status", "ns/web")]
    bench.source = None
    bench.restart()
    bench.classes.put(raw_class())
    bench.source = MetricsUnavailable("down")
    raw = raw_policy()
    await bench.create({**raw, "status": dict(bench.api.statuses[WEB])})
    assert bench.states[WEB].evaluation is None, "what was measured before a restart stands until it is measured again"


async def test_pods_that_come_and_go_only_write_the_status(bench: Bench) -> None:
    await bench.create(raw_policy())
    assert bench.condition("WorkloadAvailable") == ("False", "ReplicasUnavailable")
    bench.api.log.clear()
    status = {"status": {"availableReplicas": 2, "observedGeneration": bench.api.objects[ref()]["metadata"]["generation"]}}
    bench.api.edit(ref(), status, manager="kcm", subresource="status")
    assert bench.queued == {WEB: Work.STATUS}
    await bench.settle()
    assert bench.condition("WorkloadAvailable") == ("True", "Available")
    assert bench.condition("Ready") == ("True", "Ready")
    assert bench.api.log == [("status", "ns/web")]


def ref() -> ChildRef:
    return ChildRef(DEPLOYMENT, "ns", "web")


async def test_a_namespace_label_that_matters_is_noticed(bench: Bench) -> None:
    await bench.create(raw_policy())
    bench.hub.put(NAMESPACE, {"metadata": {"name": "ns", "labels": {"istio.io/dataplane-mode": "ambient"}}})
    await bench.settle()
    assert bench.condition("Accepted") == ("False", "TargetUnsupported")


async def test_an_unanswered_apply_is_tried_again_and_said(bench: Bench) -> None:
    bench.api.failures[ChildRef(SERVICE, "ns", "web")] = [ApiUnavailable("no answer", retry_after=3)]
    bench.policies.put(raw_policy())
    assert (await bench.settle())[WEB] == Pass(retry=True, after=3, result=Result.ERROR)
    assert bench.condition("Programmed") == ("Unknown", "Progressing")
    bench.enqueue(WEB)
    await bench.settle()
    assert bench.condition("Programmed") == ("True", "Programmed")


async def test_a_pass_says_whether_it_wrote(bench: Bench) -> None:
    bench.policies.put(raw_policy())
    assert (await bench.settle())[WEB].result is Result.APPLIED
    bench.enqueue(WEB)
    assert (await bench.settle())[WEB].result is Result.UNCHANGED


async def test_a_state_counts_the_conditions_of_its_status(bench: Bench) -> None:
    await bench.create(raw_policy())
    said = dict(bench.states[WEB].said)
    assert said["Accepted"] == "True"
    assert set(said.values()) <= {"True", "False", "Unknown"}


async def test_new_numbers_alone_are_written_only_when_asked(bench: Bench) -> None:
    await bench.create(raw_policy())
    bench.evaluate()
    await bench.settle()
    bench.api.log.clear()
    state = bench.states[WEB]
    assert state.evaluation is not None
    old = state.status
    assert old is not None
    state.keep_status(old.model_copy(update={"summary": old.summary.model_copy(update={"rps": "9"})}))
    bench.enqueue(WEB, Work.STATUS)
    await bench.settle()
    assert bench.api.log == []
    bench.enqueue(WEB, Work.STATUS | Work.REFRESH)
    await bench.settle()
    assert bench.api.log == [("status", "ns/web")]


async def test_a_status_never_speaks_of_a_spec_that_was_not_walked(bench: Bench) -> None:
    await bench.create(policy := raw_policy())
    bench.policies.put(changed(policy, security={"mtls": "Permissive"}))
    bench.evaluate()
    bench.queued = {WEB: Work.STATUS | Work.REFRESH}
    await bench.settle()
    assert {condition["observedGeneration"] for condition in bench.api.statuses[WEB]["conditions"]} == {1}
    assert bench.api.statuses[WEB]["observedGeneration"] == 1
    bench.enqueue(WEB)
    await bench.settle()
    assert bench.api.statuses[WEB]["observedGeneration"] == 2


async def test_nor_of_one_whose_walk_was_given_up(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    async def unanswered(*_: Any) -> None:
        raise ApiUnavailable("no answer")

    await bench.create(policy := raw_policy())
    bench.policies.put(changed(policy, workload=TARGET))
    with monkeypatch.context() as patched:
        patched.setattr(bench.api, "read", unanswered)
        with pytest.raises(ApiUnavailable):
            await bench.settle()
    bench.evaluate()
    await bench.settle()
    assert bench.api.statuses[WEB]["observedGeneration"] == 1


async def test_a_status_for_a_policy_that_is_gone_tells_no_event(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    async def gone(*_: Any) -> bool:
        await asyncio.sleep(0)
        return False

    monkeypatch.setattr(bench.api, "write", gone)
    await bench.create(raw_policy())
    assert bench.events == []
    assert bench.states[WEB].status is None


async def test_a_target_that_may_not_be_read_is_said_and_looked_at_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    async def forbidden(*_: Any) -> None:
        raise ApiRejected("forbidden", 403, "Forbidden")

    monkeypatch.setattr(bench.api, "read", forbidden)
    bench.policies.put(raw_policy(workload=TARGET, service={"port": 80}))
    assert (await bench.settle())[WEB] == Pass(after=60, result=Result.REJECTED)
    assert bench.condition("Accepted") == ("False", "TargetNotFound")


async def test_a_defect_in_rendering_is_said_and_removes_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    await bench.create(raw_policy())
    children = bench.kinds()

    def broken(*_: Any) -> None:
        raise RenderError("virtual_service.yaml.j2: undefined")

    monkeypatch.setattr("perfpolicy.reconcile.reconciler.render", broken)
    bench.policies.put(changed(raw_policy(), traffic={"timeout": "3s"}))
    await bench.settle()
    assert bench.condition("Programmed") == ("False", "ApplyFailed")
    assert bench.kinds() == children
    assert len(bench.api.statuses[WEB]["resources"]) == len(bench.api.objects)


async def test_a_policy_deleted_while_it_is_looked_at_gets_no_children_and_no_status(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    read = bench.api.read

    async def late(kind: GroupKind, namespace: str | None, name: str) -> Any:
        bench.policies.drop(WEB)
        return await read(kind, namespace, name)

    bench.api.create(SHARED)
    monkeypatch.setattr(bench.api, "read", late)
    await bench.create(raw_policy(workload=TARGET, service={"port": 80}))
    assert not bench.api.log
    assert not bench.api.statuses
    assert WEB not in bench.states
