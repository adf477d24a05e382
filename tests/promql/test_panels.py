"""A policy's panels: its six figures and its budgets, with the limits it promises, and nothing it cannot have."""

import re
from datetime import timedelta
from decimal import Decimal

import promql_parser
import pytest

from perfpolicy.policy import model
from perfpolicy.promql import names
from perfpolicy.promql.panels import Panel, Unit, overview, panels
from perfpolicy.promql.rules import rule_groups
from tests import builders as a
from tests.promql import series
from tests.promql.conftest import Check
from tests.promql.promtool import Expect, Scenario, constant

RECORDED = set(re.findall(r"perfpolicy:[a-z_]+:[a-z]+", " ".join(str(value) for value in vars(names).values())))


def shown(policy: model.Policy) -> dict[str, Panel]:
    return {panel.title: panel for panel in panels(policy)}


def expressions(panel: Panel) -> str:
    return " ".join(str(query.expr) for query in panel.queries)


def test_six_figures_and_the_budgets() -> None:
    wanted = ["Requests", "Latency", "Errors", "CPU", "Memory", "Connections", "Error budget left", "Burn rates"]
    assert list(shown(a.a_full_policy())) == wanted


def test_without_objectives_requests_or_mesh_their_panels_are_left_out() -> None:
    objective = a.an_objective(target=Decimal(1))
    assert "Burn rates" not in shown(a.a_policy(objectives=(objective,)))
    tcp = a.a_service(ports=(a.a_port("db", 5432, 5432, model.Protocol.TCP),), metrics_port=None)
    assert list(shown(a.a_policy(service=tcp, objectives=()))) == ["CPU", "Memory", "Connections"]
    assert "Connections" not in shown(a.a_policy(in_mesh=False))


def test_what_is_promised_is_drawn() -> None:
    found = shown(a.a_policy())
    limits = {title: [float(limit) for limit in panel.limits] for title, panel in found.items()}
    assert limits == {
        "Requests": [1000, 10000],
        "Latency": [0.1, 0.5, 1],
        "Errors": [0.05],
        "CPU": [0.7],
        "Memory": [0.8],
        "Connections": [],
        "Error budget left": [0],
        "Burn rates": [6, 14.4],
    }
    marks = {title: [float(mark) for mark in panel.marks] for title, panel in found.items() if panel.marks}
    assert marks == {"Requests": [5000], "Errors": [0.01], "Burn rates": [1]}


def test_three_quantiles_are_shown_whatever_is_promised() -> None:
    odd = model.LatencyLimit("p90", Decimal("0.9"), timedelta(milliseconds=700))
    latency = shown(a.a_policy(thresholds=a.thresholds(latency=(odd,))))["Latency"]
    assert [query.legend for query in latency.queries] == ["p50", "p90", "p95", "p99"]
    assert [names.LATENCY_QUANTILE in str(query.expr) for query in latency.queries] == [False, True, False, False]


def test_resources_without_a_promise_are_shown_as_they_are() -> None:
    found = shown(a.a_policy(thresholds=a.thresholds(cpu=None, memory=None)))
    assert (found["CPU"].unit, found["Memory"].unit) == (Unit.NUMBER, Unit.BYTES)
    assert "container_cpu_usage_seconds_total" in expressions(found["CPU"])


@pytest.mark.parametrize("policy", [a.a_full_policy(), a.a_policy(thresholds=a.thresholds(latency=()))])
def test_panels_read_only_what_the_policys_rules_record(policy: model.Policy) -> None:
    recorded = {rule.name for group in rule_groups(policy) for rule in group.rules if not rule.alert}
    for panel in panels(policy):
        read = set(re.findall(r"perfpolicy:[a-z_]+:[a-z]+", expressions(panel)))
        assert read <= recorded, panel.title
        assert f'"{policy.key.namespace}"' in expressions(panel)


def test_the_budget_left_is_what_bad_requests_leave_of_it(check: Check) -> None:
    policy, five = a.a_policy(), timedelta(minutes=5)
    blocks = {names.JUDGED_BLOCK: 1000, names.ERRORS_BLOCK: 0.25}
    data = {series.recorded(policy, name): constant(value, 60, five) for name, value in blocks.items()}
    left = Expect(names.BUDGET_LEFT, timedelta(hours=1), {series.recorded(policy, names.BUDGET_LEFT, objective="availability"): 0.75})
    check(rule_groups(policy)[1:], Scenario(data, [left], interval=five, evaluation=five))


def test_the_overview_reads_recorded_series_of_the_namespaces_asked_for() -> None:
    for panel in overview():
        promql_parser.parse(panel.queries[0].expr.text.replace("$namespace", ".*"))
        read = set(re.findall(r"perfpolicy:[a-z_]+:[a-z]+", expressions(panel)))
        assert read <= RECORDED
        assert 'policy_namespace=~"$namespace"' in expressions(panel)
