"""The operator's own alerts and dashboard: every query parses, each alert fires when it should, and all are silent while all is well."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import promql_parser
import pytest

from perfpolicy.evaluate.exposition import FAMILIES
from tests import grafana
from tests.charts import helm
from tests.promql import promtool
from tests.promql.promtool import Scenario, constant, counter, firing, silent

DOCUMENTED = set(re.findall(r"^\| `(perfpolicy_\w+)`", (helm.ROOT / "docs" / "operations.md").read_text(), re.MULTILINE))
"""What the operator serves: tests/handlers holds the page against it."""
MINUTES = 60


@dataclass(frozen=True)
class Group:
    """A rule group as the chart has it."""

    content: Mapping[str, Any]

    def to_dict(self) -> Mapping[str, Any]:
        """As Prometheus spells it."""
        return self.content


def alert_groups() -> list[Group]:
    rules = helm.one(helm.template({"alerts": {"enabled": True}}), "PrometheusRule")
    return [Group(group) for group in rules["spec"]["groups"]]


def dashboard(key: str = "perfpolicy.json") -> dict[str, Any]:
    config = helm.one(helm.template({"dashboard": {"enabled": True}}), "ConfigMap", "perfpolicy-dashboard")
    parsed: dict[str, Any] = json.loads(config["data"][key])
    return parsed


def alert_expressions() -> dict[str, str]:
    return {rule["alert"]: rule["expr"] for group in alert_groups() for rule in group.content["rules"]}


def panel_expressions() -> dict[str, str]:
    """Queries of the dashboard as Prometheus sees them, with Grafana's variables replaced."""
    return {
        f"{panel['title']} {target['refId']}": target["expr"]
        .replace("$__rate_interval", "2m")
        .replace("$job", ".*")
        .replace("$namespace", ".*")
        for panel in dashboard()["panels"]
        for target in panel["targets"]
    }


def test_every_query_parses_and_reads_metrics_the_operator_has() -> None:
    expressions = alert_expressions() | panel_expressions()
    assert len(expressions) > 20
    read = set()
    for expression in expressions.values():
        promql_parser.parse(expression)
        read |= {name.removesuffix("_bucket") for name in re.findall(r"\bperfpolicy_[a-z_]+", expression)}
    of_policies = {family.name for family in FAMILIES}
    assert read == DOCUMENTED - of_policies, "what policies say is for their own people; the overview draws it from recorded series"


def test_alerts_read_only_the_release_they_come_with() -> None:
    for name, expression in alert_expressions().items():
        selectors = re.findall(r"perfpolicy_[a-z_]+(\{[^}]*\})?", expression)
        assert all(one.startswith('{job="perfpolicy", namespace="perfpolicy-system"') for one in selectors), name


@pytest.mark.parametrize("key", ["perfpolicy.json", "perfpolicy-policies.json"])
def test_grafana_knows_every_field_and_value(key: str) -> None:
    assert grafana.problems(dashboard(key)) == []


def test_panels_do_not_overlap_and_have_ids_of_their_own() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}) == len(panels)


def series(name: str, pod: str = "a", **labels: str) -> str:
    """A series as the ServiceMonitor's scrapes have it."""
    said = {"job": "perfpolicy", "namespace": "perfpolicy-system", "pod": pod, "instance": f"{pod}:8080", **labels}
    matchers = ",".join(f'{key}="{value}"' for key, value in said.items())
    return f"perfpolicy_{name}{{{matchers}}}"


BUILD = (series("build_info", version="1"), series("build_info", "b", version="1"))
LEADER, STANDBY = series("leader"), series("leader", "b")
OLDEST = series("queue_oldest_seconds")
FAILED = series("reconcile_total", result="error")
LAG = series("loop_lag_seconds")
WATCH = series("watch_age_seconds", kind="Service")
FORBIDDEN = series("api_requests_total", verb="patch", kind="Service", code="403")
QUERY_ERRORS = series("prometheus_queries_total", result="error")
NOT_READY = series("policies", condition="Ready", status="False")


def healthy() -> dict[str, str]:
    """Two pods, one of which leads, with work to do."""
    return {
        **{name: constant(1, MINUTES) for name in BUILD},
        LEADER: constant(1, MINUTES),
        STANDBY: constant(0, MINUTES),
        OLDEST: constant(1, MINUTES),
        series("reconcile_total", result="applied"): counter(1, MINUTES),
        FAILED: counter(0.01, MINUTES),
        LAG: constant(0.05, MINUTES),
        WATCH: constant(200, MINUTES),
        series("api_requests_total", verb="patch", kind="Service", code="200"): counter(5, MINUTES),
        FORBIDDEN: counter(0, MINUTES),
        series("prometheus_queries_total", result="ok"): counter(1, MINUTES),
        QUERY_ERRORS: counter(0.1, MINUTES),
        NOT_READY: constant(0, MINUTES),
    }


FIRES: dict[str, tuple[dict[str, str | None], int]] = {
    "PerfPolicyOperatorAbsent/critical": (dict.fromkeys(BUILD), 7),
    "PerfPolicyNoLeader/critical": ({LEADER: constant(0, MINUTES)}, 3),
    "PerfPolicySeveralLeaders/critical": ({STANDBY: constant(1, MINUTES)}, 3),
    "PerfPolicyReconcileErrors/warning": ({FAILED: counter(0.5, MINUTES)}, 21),
    "PerfPolicyQueueStuck/warning": ({OLDEST: constant(300, MINUTES)}, 7),
    "PerfPolicyLoopLag/warning": ({LAG: constant(5, MINUTES)}, 7),
    "PerfPolicyWatchStale/warning": ({WATCH: constant(900, MINUTES)}, 7),
    "PerfPolicyForbidden/warning": ({FORBIDDEN: counter(0.1, MINUTES)}, 21),
    "PerfPolicyMetricsUnreachable/warning": ({QUERY_ERRORS: counter(3, MINUTES)}, 16),
    "PerfPolicyNotReady/info": ({NOT_READY: constant(2, MINUTES)}, 32),
}
"""Alert to what differs from `healthy` (None: the series is not there), and the minute by which it fires."""


def test_every_alert_has_a_case_in_which_it_fires() -> None:
    assert {name.partition("/")[0] for name in FIRES} == alert_expressions().keys()


def test_a_healthy_operator_is_silent(tmp_path: Path) -> None:
    promtool.run(tmp_path, alert_groups(), Scenario(healthy(), [silent(timedelta(minutes=minute)) for minute in (1, 20, 59)]))


@pytest.mark.parametrize("name", FIRES)
def test_an_alert_fires_alone_and_not_before_its_time(tmp_path: Path, name: str) -> None:
    changes, minute = FIRES[name]
    data = {key: values for key, values in (healthy() | changes).items() if values is not None}
    at = timedelta(minutes=minute)
    promtool.run(tmp_path, alert_groups(), Scenario(data, [silent(timedelta(minutes=1)), firing(name, at=at)]))


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({FAILED: "0x40 1x200"}, id="one failure in a quiet hour"),
        pytest.param({LEADER: "1x40 0x3 1x200"}, id="a hand-over"),
    ],
)
def test_what_happens_in_good_order_is_silent(tmp_path: Path, changes: dict[str, str]) -> None:
    quiet = {series("reconcile_total", result="applied"): constant(7, MINUTES)}
    expected = [silent(timedelta(minutes=minute)) for minute in (12, 15, 20, 25)]
    promtool.run(tmp_path, alert_groups(), Scenario(healthy() | quiet | {FAILED: constant(0, MINUTES)} | changes, expected))
