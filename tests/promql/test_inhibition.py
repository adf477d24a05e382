"""The inhibition rule of docs/metrics.md, and what is said beside it, in a real Alertmanager and with the labels our alerts fire with."""

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.waiting import eventually
from perfpolicy.policy import model
from perfpolicy.promql import names, objectives, proxies
from perfpolicy.promql.expr import duration
from perfpolicy.promql.rule import RuleGroup
from perfpolicy.promql.rules import rule_groups
from perfpolicy.vocabulary import AlertName
from tests import builders as a
from tests.promql import series
from tests.promql.alertmanager import Alertmanager, Labels, serve
from tests.promql.conftest import Check
from tests.promql.promtool import Expect, Scenario, constant, counter

DOCUMENT = Path(__file__).resolve().parents[2] / "docs/metrics.md"
OURS, NEIGHBOUR, NAMESAKE = "ce-hub/operation-service", "ce-hub/billing", "shop/operation-service"
POLICIES = {
    OURS: a.a_full_policy(),
    NEIGHBOUR: a.a_full_policy(name="billing", uid="22222222-2222-4222-8222-222222222222"),
    NAMESAKE: a.a_full_policy(namespace="shop", uid="33333333-3333-4333-8333-333333333333"),
}
FAST, SLOW = "ErrorBudgetBurn availability 1h", "ErrorBudgetBurn availability 6h"
"""The two pages of an objective."""
FOREIGN: list[Labels] = [{"alertname": "NodeClockSkewDetected", "severity": level, "instance": level} for level in ("critical", "warning")]


def documented() -> list[dict[str, Any]]:
    """The inhibition rules of the page."""
    (snippet,) = re.findall(r"```yaml\n(inhibit_rules:\n.*?)```", DOCUMENT.read_text(), re.DOTALL)
    return list(yaml.safe_load(snippet)["inhibit_rules"])


def fired(policy: model.Policy) -> list[Labels]:
    """The labels of every alert of a policy, as Prometheus fires it."""
    return [{"alertname": rule.name, **rule.labels} for group in rule_groups(policy) for rule in group.rules if rule.alert]


def title(labels: Labels) -> str:
    """The policy, the alert and what it is about."""
    told = (labels[label] for label in ("alertname", "objective", "long", "quantile", "cluster") if label in labels)
    return " ".join([f"{labels.get('policy_namespace')}/{labels.get('policy')}", *told])


def critical(policy: str, *wanted: str) -> list[Labels]:
    """The critical alerts of a policy with these titles."""
    found = {title(labels): labels for labels in fired(POLICIES[policy]) if labels["severity"] == "critical"}
    return [found[f"{policy} {each}"] for each in wanted]


def warnings() -> list[Labels]:
    """All warnings of all policies."""
    return [labels for policy in POLICIES.values() for labels in fired(policy) if labels["severity"] == "warning"]


def tickets(policy: str, objective: str) -> set[str]:
    """The titles of an objective's tickets."""
    return {f"{policy} ErrorBudgetBurn {objective} {window}" for window in ("24h", "72h")}


def expect_silent(alertmanager: Alertmanager, expected: set[str]) -> None:
    """Exactly these alerts are held back. Alertmanager looks at alerts in their order: it has seen whatever came before one that shows."""

    def check() -> None:
        states = [(title(labels), state) for labels, state in alertmanager.alerts()]
        assert {name for name, state in states if state != "active"} == expected

    eventually(check, seconds=10)


def test_a_critical_alert_silences_the_warnings_about_the_same_and_no_other(tmp_path: Path) -> None:
    with serve(tmp_path, documented()) as alertmanager:
        alertmanager.fire(
            [
                *FOREIGN,
                *critical(OURS, FAST, SLOW, "HighResponseTime 0.95", "HighErrorRate", "CircuitBreakerOpen"),
                *critical(NEIGHBOUR, "ErrorBudgetBurn fast 6h", "HighMemoryUsage"),
                *warnings(),
            ]
        )
        same = {f"{OURS} HighResponseTime 0.95", f"{OURS} HighErrorRate", f"{NEIGHBOUR} HighMemoryUsage"}
        expect_silent(alertmanager, tickets(OURS, "availability") | tickets(NEIGHBOUR, "fast") | same)


@pytest.mark.parametrize(("first", "last"), [(FAST, SLOW), (SLOW, FAST)])
def test_tickets_are_told_again_when_both_pages_of_their_objective_are_resolved(tmp_path: Path, first: str, last: str) -> None:
    other = critical(NAMESAKE, "ErrorBudgetBurn fast 1h")
    with serve(tmp_path, documented()) as alertmanager:
        alertmanager.fire([*critical(OURS, FAST, SLOW), *other, *warnings()])
        expect_silent(alertmanager, tickets(OURS, "availability") | tickets(NAMESAKE, "fast"))
        alertmanager.resolve([*critical(OURS, first), *other])
        expect_silent(alertmanager, tickets(OURS, "availability"))
        alertmanager.resolve(critical(OURS, last))
        expect_silent(alertmanager, set())


@pytest.mark.parametrize(
    ("added", "silent"),
    [
        pytest.param([], {"a", "b"}, id="without it a page of one cluster silences another's tickets"),
        pytest.param(["cluster"], {"a"}, id="with it only its own"),
    ],
)
def test_equal_takes_the_label_that_tells_clusters_apart(tmp_path: Path, added: list[str], silent: set[str]) -> None:
    rules = [{**rule, "equal": [*rule["equal"], *added]} for rule in documented()]
    page, *_ = critical(OURS, FAST)
    with serve(tmp_path, rules) as alertmanager:
        alertmanager.fire([{**page, "cluster": "a"}, *({**labels, "cluster": name} for labels in warnings() for name in ("a", "b"))])
        expect_silent(alertmanager, {f"{each} {cluster}" for each in tickets(OURS, "availability") for cluster in silent})


@pytest.mark.parametrize(
    ("added", "silent"),
    [
        pytest.param([], {(policy, objective) for policy in (OURS, NEIGHBOUR) for objective in ("availability", "fast")}, id="as it comes"),
        pytest.param(['policy=""'], {(OURS, "availability")}, id="without our alerts"),
    ],
)
def test_the_rule_of_kube_prometheus_silences_a_whole_namespace_unless_it_leaves_our_alerts_out(
    tmp_path: Path, added: list[str], silent: set[tuple[str, str]]
) -> None:
    theirs = {
        "source_matchers": ["severity = critical"],
        "target_matchers": ["severity =~ warning|info", *added],
        "equal": ["namespace", "alertname"],
    }
    with serve(tmp_path, [theirs, *documented()]) as alertmanager:
        alertmanager.fire([*critical(OURS, FAST), *warnings()])
        expect_silent(alertmanager, set().union(*(tickets(*each) for each in silent)))


def test_prometheus_fires_alerts_with_these_labels(check: Check) -> None:
    policy, minutes, minute = POLICIES[OURS], 20, timedelta(minutes=1)
    burning = {
        series.recorded(policy, names.BURN_RATE, objective=objective.name, window=duration(window)): 1000.0
        for objective in policy.objectives
        for pair in objectives.BURN_ALERTS
        for window in (pair.long, pair.short)
    }
    slow = {series.recorded(policy, names.LATENCY_QUANTILE, quantile=f"{limit.quantile}"): 100.0 for limit in policy.thresholds.latency}
    full = {series.recorded(policy, name): 1.0 for name in (names.ERROR_RATIO, names.CPU_RATIO, names.MEMORY_RATIO)}
    counted = {series.recorded(policy, name): 3000.0 for name in (names.JUDGED_RATE, names.JUDGED_STEP, names.JUDGED_BLOCK)}
    refused = series.requests("503", "UO", "source", destination_workload="unknown", destination_workload_namespace="unknown")
    data = {
        **{name: constant(value, minutes) for name, value in (burning | slow | full | counted).items()},
        **{name: counter(1, minutes) for name in (refused, *map(series.inbound, (*proxies.FAILURES, proxies.HANDSHAKES)))},
        series.proxy(proxies.CERTIFICATE_LEFT, resource_name="default"): "86400 100x80",
    }
    # What is counted is not absent.
    expected = [labels for labels in fired(policy) if labels["alertname"] != AlertName.METRICS_ABSENT]
    others = [{name: value for name, value in labels.items() if name not in names.IDENTITY} for labels in expected]
    samples = {series.recorded(policy, "ALERTS", alertstate="firing", **labels): 1.0 for labels in others}
    alerts = [rule for group in rule_groups(policy) for rule in group.rules if rule.alert]
    check([RuleGroup("alerts", minute, None, tuple(alerts))], Scenario(data, [Expect("ALERTS", 15 * minute, samples)]))
