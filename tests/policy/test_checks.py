"""Limits of a class: no policy passes them, and the message names limit and class."""

import pytest

from tests.api.objects import DEPLOYMENT
from tests.policy.support import Changes, problems, resolved


def _route(**changes: object) -> Changes:
    return {"traffic.routes": [{"name": "all", **changes}]}


def _limited(requests: int, per: str) -> Changes:
    return {"traffic.rateLimit.local": {"requests": requests, "per": per}}


RATE = {"requests": 10, "per": "1m"}
GRANTED = {"grants": [{"name": "all", "workloadCreation": "Allowed", "envoyFilters": "Allowed"}]}


@pytest.mark.parametrize(
    ("limits", "policy", "path", "message"),
    [
        ({"minMtls": "Strict"}, {"security.mtls": "Permissive"}, "spec.security.mtls", "allows Strict, not Permissive"),
        ({"minMtls": "Permissive"}, {"security.mtls": "Disabled"}, "spec.security.mtls", "allows Permissive or Strict"),
        ({"minMtls": "Permissive"}, {}, "spec.security.mtls", "not Inherit"),
        ({"defaultDeny": "Required"}, {}, "spec.security.defaultDeny", "only Enabled"),
        ({"network": "Required"}, {"network.egress": []}, "spec.network.ingress", "who may connect"),
        ({"network": "Required"}, {"network": {"mode": "Disabled"}}, "spec.network.ingress", "who may connect"),
        ({"network": "Required"}, {"network.ingress": [{"fromNamespaces": {}}]}, "spec.network.ingress[0]", "admit everybody"),
        ({"network": "Required"}, {"network.ingress": [{"fromCIDRs": [{"cidr": "::/0"}]}]}, "spec.network.ingress[0]", "admit everybody"),
        (
            {"maxTimeout": "60s"},
            {"traffic.timeout": "1s", **_route(fault={"delay": {"duration": "9h", "percent": "1%"}})},
            "spec.traffic.routes[0].fault.delay.duration",
            "at most 60s, not 9h",
        ),
        ({"maxTimeout": "60s"}, {"traffic.timeout": "61s"}, "spec.traffic.timeout", "at most 60s, not 61s"),
        ({"maxTimeout": "60s"}, {"traffic.timeout": "0s"}, "spec.traffic.timeout", "not 0s"),
        ({"maxTimeout": "60s"}, {}, "spec.traffic.timeout", "not none"),
        ({"maxTimeout": "60s"}, {"traffic.timeout": "1s", **_route(timeout="2m")}, "spec.traffic.routes[0].timeout", "not 2m"),
        ({"maxRetryAttempts": 2}, {"traffic.retries.attempts": 3}, "spec.traffic.retries.attempts", "at most 2, not 3"),
        ({"maxRetryAttempts": 2}, {"traffic.retries": {}}, "spec.traffic.retries.attempts", "at most 2, not 3"),
        ({"maxRetryAttempts": 2}, _route(retries={"attempts": 3}), "spec.traffic.routes[0].retries.attempts", "not 3"),
        ({"maxRetryAttempts": 2}, _route(retries={"perTryTimeout": "1s"}), "spec.traffic.routes[0].retries.attempts", "not 3"),
        ({"maxRetryAttempts": 1}, {}, "spec.traffic.retries.attempts", "mesh's default of 2"),
        ({"maxConnections": 10}, {"traffic.connectionPool.maxConnections": 11}, "spec.traffic.connectionPool.maxConnections", "not 11"),
        ({"maxConnections": 10}, {}, "spec.traffic.connectionPool.maxConnections", "not no limit"),
        ({"maxRequestRate": RATE}, {}, "spec.traffic.rateLimit.local.requests", "at most 10 requests in 1m, not no limit"),
        ({"maxRequestRate": RATE}, _limited(11, "1m"), "spec.traffic.rateLimit.local.requests", "not 11 in 1m"),
        (
            {"maxRequestRate": RATE},
            {"traffic.rateLimit": {"global": {"requests": 1}}},
            "spec.traffic.rateLimit.local.requests",
            "not no limit",
        ),
        ({"maxRequestRate": RATE}, _limited(1, "5s"), "spec.traffic.rateLimit.local.requests", "not 1 in 5s"),
        ({"maxRequestRate": RATE}, _limited(60, "1h"), "spec.traffic.rateLimit.local.requests", "not 60 in 1h"),
        (
            {"maxRequestRate": RATE},
            {"traffic.rateLimit.local.routes": [{"name": "a", "method": "GET", "requests": 1}]},
            "spec.traffic.rateLimit.local.requests",
            "not no limit",
        ),
        ({"maxConcurrency": 10}, {}, "spec.traffic.concurrency.max", "at most 10, not no limit"),
        ({"maxConcurrency": 10}, {"traffic.concurrency": {"max": 11}}, "spec.traffic.concurrency.max", "not 11"),
        ({"maxConcurrency": 10}, {"traffic.concurrency": {"mode": "Disabled"}}, "spec.traffic.concurrency.max", "not no limit"),
        ({"maxReplicas": 3}, {"workload.deployment": {**DEPLOYMENT, "replicas": 4}}, "spec.workload.deployment.replicas", "at most 3"),
        (
            {"maxReplicas": 3},
            {
                "workload.deployment": {**DEPLOYMENT, "resources": {"requests": {"cpu": "100m"}}},
                "scaling": {"minReplicas": 2, "maxReplicas": 4, "target": {"cpu": "70%"}},
            },
            "spec.scaling.maxReplicas",
            "not 4",
        ),
        (
            {"maxFault": "1%"},
            _route(fault={"abort": {"status": 500, "percent": "1.1%"}}),
            "spec.traffic.routes[0].fault.abort.percent",
            "at most 1%, not 1.1%",
        ),
        (
            {"maxFault": "0%"},
            _route(fault={"delay": {"duration": "1s", "percent": "1%"}}),
            "spec.traffic.routes[0].fault.delay.percent",
            "at most 0%",
        ),
    ],
)
def test_a_policy_that_passes_a_limit_is_refused(limits: Changes, policy: Changes, path: str, message: str) -> None:
    service = {"rateLimitService": {"namespace": "rate-limit", "name": "ratelimit"}}
    (problem,) = problems(policy, {"limits": limits, **GRANTED, **service})
    assert problem.path == path
    assert message in problem.message
    assert "class plain allows" in problem.message
    assert f"spec.limits.{next(iter(limits))}" in problem.message


def test_a_policy_at_its_limits_is_accepted() -> None:
    limits = {
        "minMtls": "Permissive", "defaultDeny": "Required", "network": "Required", "maxTimeout": "60s", "maxRetryAttempts": 3,
        "maxConnections": 10, "maxReplicas": 1, "maxFault": "1%", "maxRequestRate": RATE, "maxConcurrency": 10,
    }  # fmt: skip
    policy = {
        "security": {"mtls": "Permissive", "defaultDeny": "Enabled"},
        "network.ingress": [],
        "traffic": {
            "timeout": "60s",
            "retries": {"attempts": 3},
            "connectionPool": {"maxConnections": 10},
            "rateLimit": {"local": {"requests": 10}},
            "concurrency": {"max": 10},
            "routes": [{"name": "all", "fault": {"abort": {"status": 500, "percent": "1%"}}}],
        },
    }
    assert problems(policy, {"limits": limits, **GRANTED}) == []


def test_no_retries_pass_no_limit() -> None:
    assert problems({"traffic.retries": {"mode": "Disabled"}}, {"limits": {"maxRetryAttempts": 0}}) == []


def test_limits_on_requests_do_not_ask_a_tcp_service_for_timeouts() -> None:
    limits = {"maxTimeout": "60s", "maxRetryAttempts": 0, "maxRequestRate": RATE, "maxConcurrency": 1}
    assert problems({"service.appProtocol": "Tcp"}, {"limits": limits}) == []


def test_a_classs_own_defaults_must_keep_its_limits() -> None:
    (problem,) = problems({}, {"limits": {"maxTimeout": "5s"}, "defaults.traffic.timeout": "9s"})
    assert problem.path == "spec.traffic.timeout"


def test_a_rule_broken_by_class_and_policy_together_is_reported() -> None:
    cls = {"defaults.thresholds.throughput.max": "10"}
    (problem,) = problems({"thresholds.throughput.min": "20"}, cls)
    assert problem.path == "spec.thresholds.throughput"
    assert "min <= target <= max (after the class's defaults" in problem.message


def test_labels_of_class_and_policy_together_keep_their_bound() -> None:
    path = "observability.alerts.labels"
    found = problems({path: {f"a{n}": "" for n in range(5)}}, {f"defaults.{path}": {f"b{n}": "" for n in range(5)}})
    assert [(problem.path, "at most 8" in problem.message) for problem in found] == [(f"spec.{path}", True)]


def test_every_problem_is_reported_at_once() -> None:
    found = problems(
        {"security.mtls": "Disabled", "traffic.hosts": ["a.com"], "observability.scrape": {}, "thresholds.window": "10s"},
        {"limits": {"minMtls": "Strict"}},
    )
    assert [problem.path for problem in found] == [
        "spec.security.mtls",
        "spec.service.metricsPort",
        "spec.thresholds.window",
        "spec.traffic.gateways",
        "spec.traffic.hosts[0]",
    ]


def test_what_is_resolved_keeps_class_and_generation() -> None:
    assert (resolved().class_ref.name, resolved().identity.key) == ("plain", ("shops", "shop"))
