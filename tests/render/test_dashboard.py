"""The dashboard of a policy, as Grafana reads it."""

import json
from dataclasses import replace
from typing import Any

import pytest

from perfpolicy.policy import model
from perfpolicy.render import render
from tests import builders as a
from tests import grafana
from tests.render.support import all_of

BYTES = 8000
"""What a policy of eight panels may cost in etcd, and in every Grafana that loads it."""


def dashboards(policy: model.Policy) -> dict[str, Any]:
    return all_of(policy, "ConfigMap")


def dashboard(**changes: Any) -> dict[str, Any]:
    policy = a.a_policy(observability=a.observability(dashboard=True, **changes))
    config = dashboards(policy)["operation-service-dashboard"]
    assert list(config["data"]) == ["ce-hub.operation-service.json"]
    parsed: dict[str, Any] = json.loads(config["data"]["ce-hub.operation-service.json"])
    return parsed


def test_it_is_written_where_it_is_asked_for_with_the_classs_labels() -> None:
    assert dashboards(a.a_policy()) == {}
    policy = a.a_policy(observability=a.observability(dashboard=True))
    assert dashboards(policy)["operation-service-dashboard"]["metadata"]["labels"]["grafana_dashboard"] == "1"


def test_it_is_written_in_mode_observe() -> None:
    policy = a.a_full_policy(mode=model.Mode.OBSERVE)
    assert [manifest["kind"] for manifest in render(policy).manifests] == ["PrometheusRule", "ConfigMap"]


@pytest.mark.parametrize("policy", [a.a_policy(), a.a_full_policy(), a.a_policy(objectives=(), in_mesh=False)])
def test_grafana_knows_every_field_and_value(policy: model.Policy) -> None:
    policy = replace(policy, observability=a.observability(dashboard=True))
    (config,) = dashboards(policy).values()
    (content,) = config["data"].values()
    assert grafana.problems(json.loads(content)) == []
    assert len(content) < BYTES


@pytest.mark.parametrize(
    ("place", "value"),
    [("panels", [{"type": "timeseries", "targetz": []}]), ("refreshh", "1m"), ("schemaVersion", "39"), ("links", [{"type": "page"}])],
)
def test_what_grafana_does_not_know_is_seen(place: str, value: Any) -> None:
    assert grafana.problems({**dashboard(), place: value}) != []


def test_panels_have_places_and_ids_of_their_own() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [(panel["gridPos"]["x"] + x, panel["gridPos"]["y"] + y) for panel in panels for x in range(8) for y in range(8)]
    assert len(set(places)) == len(places)
    assert max(x for x, _ in places) == 23


def test_limits_are_lines() -> None:
    errors = next(panel for panel in dashboard()["panels"] if panel["title"] == "Errors")["fieldConfig"]["defaults"]
    assert errors["custom"]["thresholdsStyle"] == {"mode": "line"}
    assert [step["value"] for step in errors["thresholds"]["steps"]] == [None, 0.01, 0.05]


def test_grafana_keeps_one_dashboard_of_a_policy_and_another_of_each_cluster() -> None:
    def uid(**changes: Any) -> str:
        policy = a.a_policy(observability=a.observability(dashboard=True), **changes)
        (config,) = dashboards(policy).values()
        return str(json.loads(next(iter(config["data"].values())))["uid"])

    elsewhere = a.a_metrics_source(provider=a.a_provider(matchers=(("cluster", "b"),)))
    assert uid() == uid(uid="made-again")
    assert len({uid(), uid(name="other"), uid(namespace="other"), uid(metrics=elsewhere)}) == 4
    assert len(uid()) <= 40


def test_the_runbook_is_linked() -> None:
    alerts = model.Alerts({}, "https://runbooks.example.com/x", ())
    assert {"title": "Runbook", "type": "link", "url": alerts.runbook, "targetBlank": True} in dashboard(alerts=alerts)["links"]
