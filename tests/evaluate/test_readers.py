"""What kstatus (Flux, `helm --wait`, kpt) and Argo CD read out of a status, in every state the operator can write.

Argo CD's health logic is contrib/argocd/health.lua, run here by a real Lua 5.1, which is what Argo CD has, without the libraries it keeps
back. kstatus is asked by its published rules; the program itself is asked by e2e/test_kstatus.py.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import lupa.lua51
import pytest

from perfpolicy.api.parse import dump
from perfpolicy.errors import Problem
from perfpolicy.evaluate.conditions import AcceptedState, Claim, ProgrammedState, WorkloadState, build_status
from perfpolicy.evaluate.evaluation import EvaluationMemory, evaluate
from perfpolicy.vocabulary import Reason
from tests import builders as a
from tests.evaluate.answers import NOW, answer

LUA = (Path(__file__).parents[2] / "contrib/argocd/health.lua").read_text()
POLICY = a.a_policy()
GENERATION = 3
EVALUATION = evaluate(POLICY, answer(POLICY), EvaluationMemory(), NOW)[0]

ACCEPTED = {
    "accepted": AcceptedState(class_ref=POLICY.class_ref),
    "refused": AcceptedState((Problem("spec.className", "no such class", Reason.CLASS_NOT_FOUND),)),
    "not looked at": AcceptedState(),
}
PROGRAMMED = {
    "programmed": ProgrammedState(),
    "extras missing": ProgrammedState(extras_missing=("PodMonitor.monitoring.coreos.com",)),
    "observing": ProgrammedState(observe_only=True),
    "pending": ProgrammedState(pending=True),
    "waiting": ProgrammedState(waiting=("the API server did not answer",)),
    "refused by the API server": ProgrammedState(failures=("no",)),
    "kind missing": ProgrammedState(missing=("VirtualService.networking.istio.io",)),
    "conflict": ProgrammedState(conflicts=(Claim(Reason.FOREIGN_OBJECT, "theirs"),)),
    "reported": ProgrammedState(reported=(Claim(Reason.HOST_CLAIMED, "theirs"),)),
    "suspended": ProgrammedState(suspended=True),
    "suspended before it was applied": ProgrammedState(suspended=True, waiting=("Service web",)),
}
WORKLOAD = {
    "available": WorkloadState(2, 2),
    "starting": WorkloadState(2, 1),
    "scaled to zero": WorkloadState(0, 0),
    "not seen": WorkloadState(),
}
DONE = ("programmed", "extras missing", "observing", "reported")


class State(NamedTuple):
    accepted: str
    programmed: str
    workload: str


def meant(state: State) -> tuple[str, str]:
    """What Argo CD and kstatus should say."""
    if state.accepted == "refused":
        return "Degraded", "Failed"
    if state.accepted == "not looked at":
        return ("Suspended" if state.programmed.startswith("suspended") else "Progressing"), "InProgress"
    if state.programmed.startswith("suspended"):
        in_force = state.programmed == "suspended" and state.workload == "available"
        return "Suspended", "Current" if in_force else "InProgress"
    if state.programmed in ("refused by the API server", "kind missing", "conflict"):
        return "Degraded", "Failed"
    done = state.programmed in DONE and state.workload == "available"
    return ("Healthy", "Current") if done else ("Progressing", "InProgress")


def policy(state: State, generation: int = GENERATION) -> dict[str, Any]:
    """The policy as the API server has it, its spec at `generation`, its status of GENERATION."""
    built = build_status(
        None, GENERATION, ACCEPTED[state.accepted], PROGRAMMED[state.programmed], WORKLOAD[state.workload], EVALUATION, NOW
    )
    return {"metadata": {"name": "shop", "generation": generation}, "status": dump(built)}


def argo(obj: dict[str, Any]) -> tuple[str, str]:
    """Health and message, with the libraries Argo CD gives: no string, io, os or debug."""
    runtime = lupa.lua51.LuaRuntime()
    for kept_back in ("string", "io", "os", "debug", "math", "coroutine", "python"):
        runtime.globals()[kept_back] = None
    runtime.globals()["obj"] = runtime.table_from(obj, recursive=True)
    found = runtime.execute(LUA)
    return found["status"], found["message"]


def kstatus(obj: dict[str, Any]) -> str:
    """Its rules for a kind it does not know: deletion, observed generation, Reconciling, Stalled, Ready."""
    if "deletionTimestamp" in obj["metadata"]:
        return "Terminating"
    conditions = {each["type"]: each["status"] for each in obj.get("status", {}).get("conditions", ())}
    observed = obj.get("status", {}).get("observedGeneration", obj["metadata"]["generation"])
    if observed != obj["metadata"]["generation"] or conditions.get("Reconciling") == "True":
        return "InProgress"
    if conditions.get("Stalled") == "True":
        return "Failed"
    return "Current" if conditions.get("Ready", "True") == "True" else "InProgress"


@pytest.mark.parametrize("programmed", PROGRAMMED)
@pytest.mark.parametrize("accepted", ACCEPTED)
def test_both_say_what_is_meant(accepted: str, programmed: str) -> None:
    for state in (State(accepted, programmed, workload) for workload in WORKLOAD):
        obj = policy(state)
        assert (argo(obj)[0], kstatus(obj)) == meant(state), state


@pytest.mark.parametrize("state", [State("accepted", "programmed", "available"), State("refused", "pending", "not seen")])
def test_a_status_of_an_older_spec_is_no_answer(state: State) -> None:
    obj = policy(state, GENERATION + 1)
    assert (argo(obj)[0], kstatus(obj)) == ("Progressing", "InProgress")


def before_the_first_write() -> Iterator[dict[str, Any]]:
    """Without any status, and with what the schema fills in."""
    yield {"metadata": {"generation": 1}}
    pending = {"status": "Unknown", "reason": "Pending", "message": "", "lastTransitionTime": "1970-01-01T00:00:00Z"}
    yield {"metadata": {"generation": 1}, "status": {"conditions": [{"type": kind, **pending} for kind in ("Accepted", "Ready")]}}


def test_before_the_first_write_nothing_is_healthy() -> None:
    assert [argo(obj)[0] for obj in before_the_first_write()] == ["Progressing", "Progressing"]
    assert kstatus(list(before_the_first_write())[1]) == "InProgress"


def test_a_broken_promise_is_told_and_holds_up_nothing() -> None:
    well = State("accepted", "programmed", "available")
    obj = policy(well)
    for condition in obj["status"]["conditions"]:
        if condition["type"] == "TargetsMet":
            condition |= {"status": "False", "reason": "TargetsViolated", "message": "p95 is 3s, limit 500ms"}
    health, message = argo(obj)
    assert (health, kstatus(obj)) == ("Healthy", "Current")
    assert message.endswith("; TargetsViolated: p95 is 3s, limit 500ms")
