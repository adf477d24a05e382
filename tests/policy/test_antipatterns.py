"""Legal specs experience advises against: found where they are, silent where they are not."""

from collections.abc import Mapping
from typing import Any

import pytest

from perfpolicy.api.status import AntiPatternStatus
from perfpolicy.policy.antipatterns import AntiPattern, antipatterns
from tests.api.objects import DEPLOYMENT
from tests.policy.support import resolved

SOUND: Mapping[str, Any] = {
    "workload.deployment": {**DEPLOYMENT, "resources": {"limits": {"memory": "128Mi"}}},
    "traffic": {
        "timeout": "30s",
        "retries": {"attempts": 2, "perTryTimeout": "10s"},
        "connectionPool": {"maxConnections": 100},
        "rateLimit": {"local": {"requests": 100}},
    },
}
NO_SIDECAR = {"sidecar.istio.io/inject": "false"}
CLASS = {"grants": [{"name": "all", "workloadCreation": "Allowed", "envoyFilters": "Allowed"}]}


def found(changes: Mapping[str, Any], cls: Mapping[str, Any] = CLASS) -> dict[str, AntiPattern]:
    return {finding.name: finding for finding in antipatterns(resolved({**SOUND, **changes}, cls))}


def test_a_sound_policy_has_none() -> None:
    assert found({}) == {}


def test_tries_that_outlast_the_timeout() -> None:
    # The figures of the user's own documents: 30 s, and 3 retries of 10 s.
    finding = found({"traffic.retries": {"attempts": 3, "perTryTimeout": "10s"}})["RetriesOutlastTimeout"]
    assert finding.path == "spec.traffic.retries"
    assert finding.symptom == "4 tries of 10s take 40s, but the route default ends after 30s"
    assert "perTryTimeout at most 7s500ms" in finding.solution


def test_tries_that_just_fit_are_fine() -> None:
    assert "RetriesOutlastTimeout" not in found({"traffic.retries": {"attempts": 2, "perTryTimeout": "10s"}})


def test_a_pattern_is_named_once_at_its_first_route() -> None:
    retries = {"attempts": 9, "perTryTimeout": "10s"}
    routes = [{"name": "a", "matches": [{"method": "GET"}]}, {"name": "b", "retries": retries}]
    assert found({"traffic.routes": routes})["RetriesOutlastTimeout"].path == "spec.traffic.routes[1].retries"


@pytest.mark.parametrize("timeout", ["0s", None])
def test_requests_without_end(timeout: str | None) -> None:
    assert set(found({"traffic.timeout": timeout})) == {"UnboundedWait"}


def test_a_redirect_needs_no_timeout() -> None:
    assert found({"traffic.timeout": None, "traffic.retries": None, "traffic.routes": [{"name": "a", "redirect": {"path": "/b"}}]}) == {}


@pytest.mark.parametrize("pool", [{"mode": "Disabled"}, {"idleTimeout": "5m"}])
def test_unlimited_concurrency(pool: dict[str, str]) -> None:
    assert set(found({"traffic.connectionPool": pool})) == {"UnlimitedConcurrency"}


def test_a_cap_of_concurrency_is_a_limit_of_it() -> None:
    assert found({"traffic.connectionPool": None, "traffic.concurrency": {"max": 5}}) == {}


def test_missing_rate_limit() -> None:
    assert set(found({"traffic.rateLimit": None})) == {"MissingRateLimit"}


def test_a_global_limit_is_a_limit() -> None:
    counted = {"rateLimitService": {"namespace": "rate-limit", "name": "ratelimit"}}
    assert found({"traffic.rateLimit": {"global": {"requests": 5}}}, {**CLASS, **counted}) == {}


@pytest.mark.parametrize("where", [{"service.appProtocol": "Tcp"}, {"workload.deployment.template": {"metadata": {"labels": NO_SIDECAR}}}])
def test_a_rate_limit_is_missed_only_where_there_can_be_one(where: Mapping[str, Any]) -> None:
    bare = {"traffic": {"connectionPool": {"maxConnections": 100}, "timeout": None, "retries": None}}
    assert "MissingRateLimit" not in found({**bare, **where})


def test_no_memory_limit() -> None:
    assert set(found({"workload.deployment": DEPLOYMENT})) == {"MemoryAccumulation"}


def test_findings_fit_into_the_status() -> None:
    policy = resolved({"traffic.timeout": "100ms", "traffic.retries": {}, "traffic.routes": [{"name": "r" * 63}]})
    findings = antipatterns(policy)
    assert len(findings) == 4
    for finding in findings:
        AntiPatternStatus(name=finding.name, path=finding.path, symptom=finding.symptom, impact=finding.impact, solution=finding.solution)
