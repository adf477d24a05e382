"""Counting requests from the audit log."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from lab.audit import Request, count, position, requests


def event(verb: str, resource: str, **more: object) -> bytes:
    target = {"resource": resource, "namespace": "n", "name": "o"}
    return (
        json.dumps({"verb": verb, "user": {"username": "op"}, "objectRef": target, "responseStatus": {"code": 200}, **more}).encode()
        + b"\n"
    )


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "audit.log"
    path.write_bytes(event("create", "pods") + event("get", "pods"))
    return path


def test_only_what_came_after_the_position_is_read(log: Path) -> None:
    mark = position(log)
    with log.open("ab") as handle:
        handle.write(event("patch", "services"))
    assert list(requests(log, mark)) == [Request("op", "", "patch", "services", "n", "o", 200)]


def test_only_what_came_after_a_moment_is_read(log: Path) -> None:
    times = {"before": "2026-11-21T09:59:59.999999Z", "after": "2026-11-21T10:00:00.000000Z"}
    log.write_bytes(b"".join(event("patch", name, requestReceivedTimestamp=time) for name, time in times.items()))
    moment = datetime(2026, 11, 21, 11, tzinfo=timezone(timedelta(hours=1)))
    assert [each.resource for each in requests(log, moment)] == ["after"]


def test_only_lines_that_hold_the_text_are_read(log: Path) -> None:
    log.write_bytes(event("patch", "services", userAgent="perfpolicy/1") + b"not JSON\n")
    assert [each.agent for each in requests(log, 0, holding="perfpolicy/")] == ["perfpolicy/1"]


def test_a_line_that_is_still_being_written_is_left_out(log: Path) -> None:
    mark = position(log)
    with log.open("ab") as handle:
        handle.write(event("patch", "services")[:-10])
    assert list(requests(log, mark)) == []


def test_before_the_first_request_the_position_is_the_start(tmp_path: Path) -> None:
    assert position(tmp_path / "none") == 0


def test_writes_are_the_changing_verbs_only(log: Path) -> None:
    assert [each.verb for each in requests(log, 0) if each.is_write] == ["create"]


def test_an_impersonated_user_is_the_one_who_asked(log: Path) -> None:
    log.write_bytes(event("create", "pods", impersonatedUser={"username": "tenant"}))
    assert next(requests(log, 0)).user == "tenant"


def test_where_a_request_came_from_is_known(log: Path) -> None:
    log.write_bytes(event("patch", "services", sourceIPs=["10.1.2.3", "10.9.9.9"]))
    assert next(requests(log, 0)).source == "10.1.2.3"


def test_a_request_for_no_object_and_one_for_a_subresource_are_told_apart(log: Path) -> None:
    target = {"resource": "pods", "subresource": "status", "namespace": "n", "name": "o"}
    log.write_bytes(
        event("patch", "", objectRef=target) + json.dumps({"verb": "get", "user": {}, "requestURI": "/readyz"}).encode() + b"\n"
    )
    assert [(each.user, each.resource) for each in requests(log, 0)] == [("op", "pods/status"), ("", "")]


def test_counts_are_sorted_by_frequency(log: Path) -> None:
    log.write_bytes(event("get", "pods") + event("patch", "services") * 2)
    assert list(count(requests(log, 0)).items()) == [(("patch", "services"), 2), (("get", "pods"), 1)]


def test_a_403_of_somebody_with_the_right_is_told_from_one_without(log: Path) -> None:
    decisions = [{"authorization.k8s.io/decision": decision} for decision in ("allow", "forbid")]
    log.write_bytes(b"".join(event("patch", "foos", responseStatus={"code": 403}, annotations=each) for each in decisions))
    assert [(each.code, each.unauthorized) for each in requests(log, 0)] == [(403, False), (403, True)]
