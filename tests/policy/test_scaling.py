"""How many pods there are: from the policy and what its class offers, and when nobody can scale or count them."""

from datetime import timedelta
from decimal import Decimal

import pytest

from perfpolicy.policy import model
from perfpolicy.policy.antipatterns import antipatterns
from perfpolicy.policy.facts import Facts
from perfpolicy.vocabulary import Reason
from tests.api.objects import DEPLOYMENT, TARGET
from tests.builders import a_budget, a_policy, a_scaling, a_workload, an_owned_deployment
from tests.policy.support import Changes, a_target, problems, resolved, targeted

REQUESTS = {"resources": {"requests": {"cpu": "100m", "memory": "64Mi"}}}
OWNED: Changes = {"workload.deployment": {**DEPLOYMENT, **REQUESTS}}
SCALED: Changes = {**OWNED, "scaling": {"minReplicas": 2, "maxReplicas": 6, "target": {"cpu": "60%"}}}
OFFERED: Changes = {"defaults.scaling": {"mode": "Offered", "minReplicas": 2, "maxReplicas": 6, "target": {"cpu": "150%"}}}


def on_a_daemon_set() -> Facts:
    return targeted({**a_target(), "kind": "DaemonSet"})


DAEMON_SET: Changes = {"workload": {**TARGET, "targetRef": {"group": "apps", "kind": "DaemonSet", "name": "shop"}}}


def test_nothing_asked_for_is_nothing_scaled_and_no_budget() -> None:
    policy = resolved(OWNED)
    assert (policy.scaling, policy.disruption_budget) == (None, None)


def test_what_is_asked_for() -> None:
    behavior = {"scaleUp": {"stabilizationWindow": "0s", "policies": [{"type": "Pods", "value": 2, "period": "20s"}]}, "scaleDown": {}}
    scaling = resolved({**SCALED, "scaling.target.memory": "70%", "scaling.behavior": behavior}).scaling
    up = model.ScalingRules(timedelta(0), None, (model.ScalingStep("Pods", 2, timedelta(seconds=20)),))
    assert scaling == model.Scaling(2, 6, 60, 70, up=up, down=None)


def test_an_offer_is_for_those_who_take_it_up() -> None:
    assert resolved(OWNED, OFFERED).scaling is None
    assert resolved({**OWNED, "scaling": {}}, OFFERED).scaling == model.Scaling(2, 6, 150, None)
    assert resolved({**OWNED, "scaling": {"maxReplicas": 3}}, OFFERED).scaling == model.Scaling(2, 3, 150, None)


@pytest.mark.parametrize(
    ("changes", "paths"),
    [
        ({"scaling": {}}, ["spec.scaling.maxReplicas", "spec.scaling.minReplicas", "spec.scaling.target"]),
        ({"scaling.target": {}}, ["spec.scaling.target"]),
        ({"scaling.minReplicas": None}, ["spec.scaling.minReplicas"]),
        ({"scaling.mode": "Offered"}, ["spec.scaling.mode"]),
        ({"workload.deployment": DEPLOYMENT}, ["spec.scaling.target.cpu"]),
        ({"workload.deployment": DEPLOYMENT, "scaling.target": {"memory": "70%"}}, ["spec.scaling.target.memory"]),
    ],
)
def test_what_is_incomplete_or_has_nothing_to_be_a_share_of_is_refused(changes: Changes, paths: list[str]) -> None:
    assert [problem.path for problem in problems({**SCALED, **changes})] == paths


def test_the_request_of_a_targets_container_counts() -> None:
    policy = {"workload": TARGET, "scaling": SCALED["scaling"]}
    scaling = resolved(policy, facts=targeted()).scaling
    assert scaling == model.Scaling(2, 6, 60, None)
    (problem,) = problems({**policy, "scaling.target": {"memory": "70%"}}, facts=targeted())
    assert problem.path == "spec.scaling.target.memory"
    assert "container app requests no memory" in problem.message


@pytest.mark.parametrize(("field", "value"), [("scaling", SCALED["scaling"]), ("disruptionBudget", {"maxUnavailable": "1"})])
def test_a_daemon_set_has_no_number_of_pods(field: str, value: Changes) -> None:
    (problem,) = problems({**DAEMON_SET, field: value}, facts=on_a_daemon_set())
    assert (problem.path, problem.reason) == (f"spec.{field}", Reason.TARGET_UNSUPPORTED)
    by_class = resolved(DAEMON_SET, {f"defaults.{field}": value}, on_a_daemon_set())
    assert (by_class.scaling, by_class.disruption_budget) == (None, None)


def test_a_class_does_not_scale_what_cannot_be() -> None:
    assert resolved({}, {"defaults.scaling": SCALED["scaling"]}).scaling is None


@pytest.mark.parametrize(
    ("written", "budget"),
    [
        ({"maxUnavailable": "1"}, model.DisruptionBudget(1, None)),
        ({"maxUnavailable": "25%"}, model.DisruptionBudget(Decimal("0.25"), None)),
        ({"minAvailable": "2"}, model.DisruptionBudget(None, 2)),
        ({"minAvailable": "100%"}, model.DisruptionBudget(None, Decimal(1))),
        ({"mode": "Disabled"}, None),
    ],
)
def test_a_budget_is_a_number_or_a_share_and_replaces_its_classs(written: Changes, budget: model.DisruptionBudget | None) -> None:
    assert resolved({"disruptionBudget": written}, {"defaults.disruptionBudget": {"maxUnavailable": "40%"}}).disruption_budget == budget


@pytest.mark.parametrize(
    ("budget", "found"),
    [
        (a_budget(), False),
        (a_budget(max_unavailable=0), True),
        (a_budget(max_unavailable=Decimal(0)), True),
        (a_budget(max_unavailable=None, min_available=1), False),
        (a_budget(max_unavailable=None, min_available=2), True),
        (a_budget(max_unavailable=None, min_available=Decimal("0.5")), False),
        (a_budget(max_unavailable=None, min_available=Decimal("0.51")), True),
        (None, False),
    ],
)
def test_a_budget_that_lets_no_pod_go_at_the_fewest_pods_is_advised_against(budget: model.DisruptionBudget | None, found: bool) -> None:
    owned = a_workload(owned=an_owned_deployment(replicas=2))
    for policy in (a_policy(scaling=a_scaling(), disruption_budget=budget), a_policy(workload=owned, disruption_budget=budget)):
        assert ("BlockedDrains" in {each.name for each in antipatterns(policy)}) is found


def test_a_budget_of_a_target_whose_pods_nobody_counts_is_not_judged_by_a_number() -> None:
    policy = a_policy(disruption_budget=a_budget(max_unavailable=None, min_available=9))
    assert "BlockedDrains" not in {each.name for each in antipatterns(policy)}
