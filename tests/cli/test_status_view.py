"""What `perfpolicy status` shows of a status."""

from typing import Any

from rich.console import Console, RenderableType

from perfpolicy.cli.status_view import details, overview


def text(renderable: RenderableType) -> str:
    console = Console(width=220, record=True, file=None, quiet=False)
    with console.capture() as captured:
        console.print(renderable)
    return captured.get()


def a_raw_policy(**status: Any) -> dict[str, Any]:
    return {"metadata": {"namespace": "ce-hub", "name": "shop", "generation": 3}, "status": status}


def a_condition(kind: str, status: str, reason: str = "", message: str = "") -> dict[str, str]:
    return {"type": kind, "status": status, "reason": reason, "message": message}


def test_a_policy_no_operator_has_seen_reads_as_unknown() -> None:
    policy = {"metadata": {"namespace": "ce-hub", "name": "shop"}}
    assert "Unknown" in text(overview([policy]))
    assert "ce-hub/shop" in text(details(policy))


def test_the_overview_shows_the_first_thing_that_is_wrong() -> None:
    conditions = [
        a_condition("Accepted", "True"),
        a_condition("TargetsMet", "False", "TargetsViolated", "p95 812ms"),
        a_condition("Ready", "True"),
    ]
    shown = text(overview([a_raw_policy(conditions=conditions, summary={"p95": "812ms"})]))
    assert "TargetsMet=False/TargetsViolated: p95 812ms" in shown
    assert "Ready=" not in shown


def test_a_conflict_is_trouble_although_it_reads_true() -> None:
    shown = text(overview([a_raw_policy(conditions=[a_condition("Conflict", "True", "ForeignObject", "Service shop")])]))
    assert "Conflict=True/ForeignObject: Service shop" in shown


def test_details_show_every_part_of_a_status() -> None:
    policy = a_raw_policy(
        observedGeneration=2,
        conditions=[a_condition("Ready", "True", "Ready")],
        thresholds=[{"name": "p95", "limit": "500ms", "observed": "812ms", "verdict": "Violated"}],
        objectives=[{"name": "availability", "target": "99.9%", "verdict": "Met"}],
        health={"score": 73, "level": "Acceptable", "errors": 40, "latency": 13, "slow": 20},
        severity="P2",
        resources=[{"kind": "VirtualService", "name": "shop"}],
        antiPatterns=[{"name": "RetriesOutlastTimeout", "symptom": "s", "impact": "i", "solution": "x"}],
    )
    policy["status"]["class"] = {"name": "production", "generation": 1}
    shown = text(details(policy))
    for part in (
        "generation 3 observed 2",
        "812ms",
        "availability",
        "health 73 Acceptable",
        "severity P2",
        "VirtualService",
        "RetriesOutlastTimeout",
    ):
        assert part in shown


def test_text_from_a_status_is_never_markup() -> None:
    shown = text(details(a_raw_policy(conditions=[a_condition("Ready", "False", "NotReady", "[bold]see [/x] here")])))
    assert "[bold]see [/x] here" in shown
