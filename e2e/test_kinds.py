"""Every kind of child does its work on the real cluster: shown by requests, scrapes, rules and reachability, not by what objects say.

e2e/mutate.py shows of the same proofs that they fail when their kind is not rendered (docs/evidence/ has its output).
"""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from e2e.cluster import istioctl_is_content
from e2e.operator_process import OperatorProcess
from e2e.proofs import PROOFS, Proof, every_panel_of_the_dashboards_shows_something, holds, prometheus_scrapes_the_pods
from e2e.waiting import eventually, throughout
from e2e.world import World, web_policy
from lab import prometheus
from perfpolicy.promql import names
from perfpolicy.render import KINDS
from perfpolicy.units import parse_percent
from perfpolicy.vocabulary import MANAGED_BY, MANAGED_BY_LABEL

OTHER = tuple(dict.fromkeys(proof for kind, proofs in PROOFS.items() if kind != "ConfigMap" for proof in proofs))
# Istio's own caches of endpoints and rules, a scrape and a rule interval of 5 s each; what budgets are made of is recorded every 50 s.
SECONDS = 60


def test_every_kind_has_a_proof() -> None:
    assert {kind.kind for kind in KINDS} == set(PROOFS)


@pytest.mark.usefixtures("real_operator")
@pytest.mark.parametrize(
    "proof", [*OTHER, prometheus_scrapes_the_pods, every_panel_of_the_dashboards_shows_something], ids=lambda proof: str(proof.__name__)
)
def test_it_works(world: World, proof: Proof) -> None:
    eventually(lambda: holds(proof, world), seconds=SECONDS)


@pytest.mark.usefixtures("real_operator")
def test_an_ungranted_host_is_refused_and_not_served(world: World) -> None:
    greedy = web_policy(world.namespace, world.namespace, "somebody.example.com")
    greedy["metadata"]["name"] = "greedy"
    world.cluster.apply(greedy)
    eventually(lambda: world.cluster.condition("greedy", world.namespace, "Accepted") == ("False", "NotGranted"))
    assert world.cluster.names("virtualservice,deployment", world.namespace, "perfpolicy.io/policy=greedy") == set()
    assert world.ask_gateway("somebody.example.com", "/api/who").status == 404
    world.cluster.delete("pp", "greedy", world.namespace)


def test_a_targeted_workload_is_judged_and_never_written(world: World, real_operator: OperatorProcess) -> None:
    def judged() -> bool:
        answers = world.ask("shop", "/", times=20)
        assert {answer.status for answer in answers} == {200}
        return world.cluster.condition("shop", world.namespace, "TargetsMet") == ("True", "TargetsMet")

    eventually(judged, seconds=60)
    for kind, name in (("deployment", "shop"), ("deployment", "shop-canary"), ("service", "shop")):
        found = world.cluster.get(kind, name, world.namespace)
        assert found is not None
        managers = {entry["manager"] for entry in found["metadata"]["managedFields"]}
        assert managers <= {"perfpolicy-lab", "kube-controller-manager", "kubelet"}, managers
        assert "ownerReferences" not in found["metadata"]
        # A Deployment's generation counts edits of its spec: one, ours at creation.
        assert found["metadata"].get("generation", 1) == 1
    written = {
        write.name
        for write in world.cluster.writes(datetime.fromtimestamp(0, UTC), world.namespace)
        if write.resource in ("deployments", "services")
    }
    assert written == {"web"}


def forged(world: World, *series: str) -> dict[str, Any]:
    """Somebody's rules that record series in the name of the policy `shop`, with one label more."""
    identity = {names.POLICY: "shop", names.NAMESPACE: world.namespace, names.UID: world.uid("shop"), "forged": "yes"}
    rules = [{"record": name, "expr": "vector(0.9)", "labels": identity} for name in series]
    metadata = {"name": "forger", "namespace": world.namespace}
    spec = {"groups": [{"name": f"forger/{world.namespace}", "interval": "5s", "rules": rules}]}
    return {"apiVersion": "monitoring.coreos.com/v1", "kind": "PrometheusRule", "metadata": metadata, "spec": spec}


@pytest.mark.usefixtures("real_operator")
def test_series_forged_in_a_policys_name_change_nothing_but_while_its_revision_is_forged_too(world: World) -> None:
    def measured(reason: str) -> bool:
        world.ask("shop", "/", times=20)
        return world.cluster.condition("shop", world.namespace, "MetricsAvailable")[1] == reason

    def judged() -> bool:
        return measured("Observed") and world.cluster.condition("shop", world.namespace, "TargetsMet") == ("True", "TargetsMet")

    def unmoved() -> bool:
        """Nothing of the lies is shown: neither their 90 % of errors, nor a verdict on them."""
        world.ask("shop", "/", times=20)
        status = (world.cluster.get("pp", "shop", world.namespace) or {})["status"]
        errors = next(shown.get("observed", "0%") for shown in status["thresholds"] if shown["name"] == "errorRate")
        said = {each["type"]: (each["status"], each["reason"]) for each in status["conditions"]}
        assert parse_percent(errors) < Decimal("0.05"), errors
        return bool(said["TargetsMet"][0] != "False" and said["MetricsAvailable"][1] != "SeveralSeries")

    eventually(judged, seconds=60)
    lies = (names.ERROR_RATIO, names.ERRORS_STEP, names.JUDGED_STEP, names.ERRORS_BLOCK, names.JUDGED_RATE)
    world.cluster.apply(forged(world, *lies))
    eventually(lambda: bool(prometheus.query(world.lab, f'{names.ERRORS_STEP}{{policy_uid="{world.uid("shop")}",forged="yes"}}')))
    throughout(unmoved, seconds=15)
    eventually(judged)
    world.cluster.apply(forged(world, *lies, names.REVISION))
    eventually(lambda: measured("SeveralSeries"), seconds=60)
    world.cluster.delete("prometheusrule", "forger", world.namespace)
    eventually(judged, seconds=90)


@pytest.mark.usefixtures("real_operator")
def test_istioctl_finds_nothing_wrong(world: World) -> None:
    eventually(lambda: istioctl_is_content(world.cluster, world.namespace))


def test_a_deleted_policy_leaves_nothing_and_nothing_terminating(world: World, real_operator: OperatorProcess) -> None:
    brief = web_policy(world.namespace, world.namespace, f"brief.{world.namespace}.e2e.test")
    brief["metadata"]["name"] = "brief"
    brief["spec"]["workload"]["deployment"]["replicas"] = 1
    world.cluster.apply(brief)
    eventually(lambda: world.ready("brief"), seconds=60)
    kinds = f"deployment,replicaset,pod,endpointslice,configmap,{','.join(kind.plural for kind in KINDS)}"

    def left() -> set[str]:
        names = world.cluster.kubectl("get", kinds, "-n", world.namespace, "-o", "name").split()
        return {name for name in names if name.partition("/")[2].startswith("brief")}

    # Nine children, and what Kubernetes makes of them: ReplicaSet, pod, EndpointSlice.
    assert len(left()) >= 12, left()
    world.cluster.delete("pp", "brief", world.namespace)
    eventually(lambda: left() == set(), seconds=60)
    # The gateway hears of it a moment after the API server.
    eventually(lambda: world.ask_gateway(f"brief.{world.namespace}.e2e.test", "/api/who").status == 404, seconds=10)


@pytest.mark.usefixtures("real_operator")
def test_every_deleted_child_is_back_within_30_seconds_and_works(world: World) -> None:
    ours = f"{MANAGED_BY_LABEL}={MANAGED_BY}"
    kinds = ",".join(f"{kind.plural}.{kind.group}".rstrip(".") for kind in KINDS)

    def children() -> dict[str, str]:
        items = world.lab.get(kinds, "-n", world.namespace, "-l", ours)["items"]
        return {f"{item['kind']}/{item['metadata']['name']}": item["metadata"]["uid"] for item in items}

    before = children()
    world.cluster.kubectl("delete", kinds, "-n", world.namespace, "-l", ours, "--wait=false")

    def back() -> None:
        now = children()
        assert set(now) == set(before), set(before) - set(now)
        assert not set(now.values()) & set(before.values())

    eventually(back, seconds=30)
    for proof in OTHER:
        eventually(lambda proof=proof: holds(proof, world), seconds=SECONDS)  # type: ignore[misc]
    eventually(lambda: world.ready("web"))
