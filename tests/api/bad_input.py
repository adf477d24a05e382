"""Policies that must be refused when they are written: one table for `perfpolicy lint` (tests) and for a real API server (e2e).

`server` is what the API server says where it is not the rule's own message: its structural checks speak their own words.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.api.objects import DEPLOYMENT, TARGET


@dataclass(frozen=True)
class BadPolicy:
    """One mistake: what is written, the path it is reported at, and a part of the message."""

    title: str
    changes: Mapping[str, Any]
    path: str
    message: str
    server: str = ""
    name: str = "shop"
    tags: frozenset[str] = field(default_factory=frozenset)

    @property
    def expected_from_server(self) -> str:
        """A part of the API server's message."""
        return self.server or self.message


def _route(**changes: Any) -> dict[str, Any]:
    return {"traffic.routes": [{"name": "all", **changes}]}


_PATTERN = "should match"
_LATENCY = [{"quantile": "p95", "max": "500ms"}, {"quantile": "p99", "max": "400ms"}]
_OBJECTIVE = {"name": "up", "sli": "Availability", "target": "99.9%", "windowDays": 30}

_CONTENTS: Mapping[str, Mapping[str, Any]] = {
    "thresholds.errorRate": {"max": "1%"},
    "thresholds.throughput": {"target": "1"},
    "thresholds.resources": {"memory": "1%"},
    "traffic.retries": {"retryOn": ["5xx"]},
    "traffic.loadBalancer": {"warmup": "1s"},
    "traffic.loadBalancer.locality": {"failover": [{"from": "eu", "to": "us"}]},
    "traffic.connectionPool": {"maxRequestsPerConnection": 1},
    "traffic.circuitBreaker": {"minHealth": "1%"},
    "traffic.rateLimit": {"local": {"requests": 1}},
    "traffic.rateLimit.local": {"requests": 1},
    "traffic.rateLimit.global": {"requests": 1},
    "traffic.concurrency": {"max": 1},
    "traffic.responseHeaders": {"hstsDays": 1},
    "traffic.compression": {"minBytes": 100},
    "network": {"egress": []},
    "scaling": {"minReplicas": 2},
    "disruptionBudget": {"minAvailable": "50%"},
    "observability.alerts": {"disabled": []},
    "observability.scrape": {"path": "/m"},
    "observability.tracing": {"sampling": "1%"},
    "observability.accessLogs": {"requests": "All"},
}

_ADDRESS = {"type": "RemoteAddress"}


def _window(**changes: Any) -> dict[str, Any]:
    return {"maintenance": [{"name": "upgrade", "start": "2026-12-06T02:00:00Z", "duration": "2h", **changes}]}


_ONE_OF_TWO = "set exactly one of maxUnavailable and minAvailable, or mode: Disabled"

CASES: tuple[BadPolicy, ...] = (
    BadPolicy(
        "maintenance in a time zone",
        _window(start="2026-12-06T02:00:00+01:00"),
        "spec.maintenance[0].start",
        "a time in UTC such as 2026-12-06T02:00:00Z",
        _PATTERN,
    ),
    BadPolicy(
        "maintenance on a day that is not",
        _window(start="2027-02-29T02:00:00Z"),
        "spec.maintenance[0].start",
        "'2027-02-29T02:00:00Z' is not in the calendar",
        "date-time",
    ),
    BadPolicy("maintenance of seconds", _window(duration="59s"), "spec.maintenance[0].duration", "between 1m and 168h"),
    BadPolicy("maintenance of weeks", _window(duration="169h"), "spec.maintenance[0].duration", "between 1m and 168h"),
    BadPolicy(
        "maintenance all day, every day", _window(duration="24h", repeat="Daily"), "spec.maintenance[0].duration", "below 24h with repeat"
    ),
    BadPolicy(
        "maintenance all week, every week",
        _window(duration="168h", repeat="Weekly"),
        "spec.maintenance[0].duration",
        "below 24h with repeat",
    ),
    BadPolicy("maintenance that repeats as cron does", _window(repeat="0 2 * * 0"), "spec.maintenance[0].repeat", "'Daily'", '"Daily"'),
    BadPolicy(
        "fewest pods above most", {"scaling": {"minReplicas": 3, "maxReplicas": 2}}, "spec.scaling.minReplicas", "at most maxReplicas"
    ),
    BadPolicy("a use of nothing", {"scaling.target.cpu": "0%"}, "spec.scaling.target.cpu", "from 1% to 999%", _PATTERN),
    BadPolicy(
        "a period longer than Kubernetes remembers",
        {"scaling.behavior.scaleUp.policies": [{"type": "Pods", "value": 1, "period": "31m"}]},
        "spec.scaling.behavior.scaleUp.policies[0].period",
        "period must be between 1s and 30m",
    ),
    BadPolicy(
        "a window longer than Kubernetes remembers",
        {"scaling.behavior.scaleDown.stabilizationWindow": "61m"},
        "spec.scaling.behavior.scaleDown.stabilizationWindow",
        "stabilizationWindow must be between 0s and 1h",
    ),
    BadPolicy("a budget without a figure", {"disruptionBudget": {}}, "spec.disruptionBudget", _ONE_OF_TWO),
    BadPolicy(
        "a budget with both", {"disruptionBudget": {"maxUnavailable": "1", "minAvailable": "1"}}, "spec.disruptionBudget", _ONE_OF_TWO
    ),
    BadPolicy(
        "a share above all",
        {"disruptionBudget": {"maxUnavailable": "101%"}},
        "spec.disruptionBudget.maxUnavailable",
        "a number of pods or a percentage",
        _PATTERN,
    ),
    BadPolicy(
        "a header without a name",
        {"traffic.rateLimit.local": {"requests": 1, "by": [{"type": "Header"}]}},
        "spec.traffic.rateLimit.local.by[0].name",
        "name is required for type: Header",
    ),
    BadPolicy(
        "the address twice",
        {"traffic.rateLimit.local": {"requests": 1, "by": [_ADDRESS, _ADDRESS]}},
        "spec.traffic.rateLimit.local.by",
        "each may appear once",
    ),
    BadPolicy(
        "a limit of a route that is any",
        {"traffic.rateLimit.local.routes": [{"name": "any", "requests": 1}]},
        "spec.traffic.rateLimit.local.routes[0]",
        "set path, method, or both",
    ),
    BadPolicy(
        "a limit in parts of a second",
        {"traffic.rateLimit.local": {"requests": 1, "per": "500ms"}},
        "spec.traffic.rateLimit.local.per",
        "a duration in whole seconds",
        _PATTERN,
    ),
    BadPolicy(
        "a window the rate limit service does not count in",
        {"traffic.rateLimit.global": {"requests": 1, "per": "2m"}},
        "spec.traffic.rateLimit.global.per",
        "1s, 1m, 1h or 24h",
        _PATTERN,
    ),
    BadPolicy("a limit of none", {"traffic.concurrency.max": 0}, "spec.traffic.concurrency.max", "greater than or equal to 1", "1"),
    BadPolicy("a timeout in an unknown unit", {"traffic.timeout": "30 seconds"}, "spec.traffic.timeout", "a duration such as", _PATTERN),
    BadPolicy("a line end behind a duration", {"traffic.timeout": "30s\n"}, "spec.traffic.timeout", "a duration such as", _PATTERN),
    BadPolicy("a window in days", {"thresholds.window": "1d"}, "spec.thresholds.window", "a duration such as", _PATTERN),
    BadPolicy("a percentage without %", {"thresholds.errorRate.max": "5"}, "spec.thresholds.errorRate.max", "a percentage", _PATTERN),
    BadPolicy("more than 100%", {"thresholds.errorRate.max": "101%"}, "spec.thresholds.errorRate.max", "from 0% to 100%", _PATTERN),
    BadPolicy(
        "a number that is not text",
        {"thresholds.throughput.min": 1000},
        "spec.thresholds.throughput.min",
        "put it in quotes",
        "must be of type string",
    ),
    BadPolicy(
        "an unknown field", {"traffic.timeOut": "30s"}, "spec.traffic.timeOut", "unknown field", 'unknown field "spec.traffic.timeOut"'
    ),
    BadPolicy("an unknown field in a list item", _route(weight=1), "spec.traffic.routes[0].weight", "unknown field", "unknown field"),
    BadPolicy("an unknown mode", {"mode": "Dryrun"}, "spec.mode", "'Enforce' or 'Observe'", 'supported values: "Enforce", "Observe"'),
    BadPolicy("both workload forms", {"workload": {**TARGET, "deployment": DEPLOYMENT}}, "spec.workload", "set exactly one of targetRef"),
    BadPolicy("neither workload form", {"workload": {}}, "spec.workload", "set exactly one of targetRef"),
    BadPolicy(
        "a serviceRef with a deployment",
        {"workload": {"deployment": DEPLOYMENT, "serviceRef": {"name": "shop"}}},
        "spec.workload.serviceRef",
        "serviceRef goes with targetRef",
    ),
    BadPolicy(
        "a port beside a serviceRef", {"workload": TARGET, "service.port": 80}, "spec.service", "only service.metricsPort is allowed"
    ),
    BadPolicy(
        "a Rollout of the apps group",
        {"workload": {**TARGET, "targetRef": {"group": "apps", "kind": "Rollout", "name": "shop"}}},
        "spec.workload.targetRef.group",
        "argoproj.io for Rollout",
    ),
    BadPolicy(
        "p99 below p95", {"thresholds.latency": _LATENCY}, "spec.thresholds.latency", "a higher quantile cannot have a smaller limit"
    ),
    BadPolicy(
        "a quantile twice",
        {"thresholds.latency": [{"quantile": "p95", "max": "1s"}, {"quantile": "p95", "max": "1s"}]},
        "spec.thresholds.latency[1]",
        "each may appear once",
        "Duplicate value",
    ),
    BadPolicy(
        "a quantile of 100",
        {"thresholds.latency": [{"quantile": "p100", "max": "1s"}]},
        "spec.thresholds.latency[0].quantile",
        "form",
        _PATTERN,
    ),
    BadPolicy(
        "a quantile written another way",
        {"thresholds.latency": [{"quantile": "p99.0", "max": "1s"}]},
        "spec.thresholds.latency[0].quantile",
        "form",
        _PATTERN,
    ),
    BadPolicy("a window of 1 s", {"thresholds.window": "1s"}, "spec.thresholds.window", "between 10s and 24h"),
    BadPolicy(
        "a minimum above the maximum",
        {"thresholds.throughput": {"min": "10", "max": "5"}},
        "spec.thresholds.throughput",
        "min <= target <= max",
    ),
    BadPolicy(
        "an objective of 100%", {"objectives": [{**_OBJECTIVE, "target": "100%"}]}, "spec.objectives[0].target", "leaves no error budget"
    ),
    BadPolicy("an objective of 0%", {"objectives": [{**_OBJECTIVE, "target": "0.0%"}]}, "spec.objectives[0].target", "above 0%"),
    BadPolicy(
        "a latency objective without threshold",
        {"objectives": [{**_OBJECTIVE, "sli": "Latency"}]},
        "spec.objectives[0].threshold",
        "required for sli: Latency",
    ),
    BadPolicy(
        "an objective over 0 days",
        {"objectives": [{**_OBJECTIVE, "windowDays": 0}]},
        "spec.objectives[0].windowDays",
        "greater than or equal to 1",
    ),
    BadPolicy(
        "two objectives of one name",
        {"objectives": [_OBJECTIVE, _OBJECTIVE]},
        "spec.objectives[1]",
        "each may appear once",
        "Duplicate value",
    ),
    BadPolicy(
        "weights that sum to 90",
        _route(destinations=[{"subset": "a", "weight": 50}, {"subset": "b", "weight": 40}]),
        "spec.traffic.routes[0].destinations",
        "sum to 100",
    ),
    BadPolicy(
        "several destinations without weights",
        _route(destinations=[{"subset": "a"}, {"subset": "b"}]),
        "spec.traffic.routes[0].destinations",
        "sum to 100",
    ),
    BadPolicy(
        "an undeclared subset",
        {
            "traffic.subsets": [{"name": "stable", "labels": {"version": "stable"}}],
            "traffic.routes": [{"name": "all", "destinations": [{"subset": "canary"}]}],
        },
        "spec.traffic.routes",
        "must be declared in spec.traffic.subsets",
    ),
    BadPolicy(
        "a route behind one that takes everything",
        {"traffic.routes": [{"name": "all"}, {"name": "api", "matches": [{"method": "GET"}]}]},
        "spec.traffic.routes",
        "only the last route may have none",
    ),
    BadPolicy(
        "two routes of one name",
        {"traffic.routes": [{"name": "a", "matches": [{"method": "GET"}]}] * 2},
        "spec.traffic.routes[1]",
        "each may appear once",
        "Duplicate value",
    ),
    BadPolicy(
        "a redirect that also routes",
        _route(redirect={"path": "/new"}, destinations=[{}]),
        "spec.traffic.routes[0].redirect",
        "a redirect answers itself",
    ),
    BadPolicy(
        "a path without /",
        _route(matches=[{"path": {"type": "Prefix", "value": "api"}}]),
        "spec.traffic.routes[0].matches[0].path.value",
        "begins with /",
    ),
    BadPolicy("a match without conditions", _route(matches=[{}]), "spec.traffic.routes[0].matches[0]", "set at least one of path"),
    BadPolicy("a fault without kind", _route(fault={}), "spec.traffic.routes[0].fault", "set delay, abort, or both"),
    BadPolicy(
        "a fault nobody would see",
        _route(fault={"abort": {"status": 503, "percent": "0.00009%"}}),
        "spec.traffic.routes[0].fault.abort.percent",
        "at least 0.0001%",
    ),
    BadPolicy(
        "a probe every half second",
        {"workload.deployment.probes": {"liveness": {"path": "/", "period": "500ms"}}},
        "spec.workload.deployment.probes.liveness.period",
        "whole seconds",
        _PATTERN,
    ),
    BadPolicy("a mirror to nowhere", _route(mirror={"percent": "10%"}), "spec.traffic.routes[0].mirror", "exactly one of service"),
    BadPolicy(
        "a mirror to another namespace", _route(mirror={"service": "bank.vault"}), "spec.traffic.routes[0].mirror.service", "form", _PATTERN
    ),
    BadPolicy(
        "an Envoy command in a header",
        _route(headers={"response": {"set": [{"name": "x-a", "value": "%BROKEN"}]}}),
        "spec.traffic.routes[0].headers.response.set[0].value",
        "form",
        _PATTERN,
    ),
    BadPolicy(
        "a pseudo header",
        _route(headers={"request": {"set": [{"name": ":authority", "value": "bank"}]}}),
        "spec.traffic.routes[0].headers.request.set[0].name",
        "form",
        _PATTERN,
    ),
    BadPolicy(
        "cookies for every origin",
        _route(cors={"allowOrigins": [{"value": "*"}], "credentials": "Allowed"}),
        "spec.traffic.routes[0].cors.credentials",
        "needs named origins",
    ),
    BadPolicy("eleven retries", {"traffic.retries.attempts": 11}, "spec.traffic.retries.attempts", "less than or equal to 10"),
    BadPolicy("a host that is no DNS name", {"traffic.hosts": ["api_ce.com"]}, "spec.traffic.hosts[0]", "form", _PATTERN),
    BadPolicy("every host", {"traffic.hosts": ["*"]}, "spec.traffic.hosts[0]", "form", _PATTERN),
    BadPolicy("a host twice", {"traffic.hosts": ["a.com", "a.com"]}, "spec.traffic.hosts[1]", "each may appear once", "Duplicate value"),
    BadPolicy(
        "a hash without name",
        {"traffic.loadBalancer": {"algorithm": "ConsistentHash", "consistentHash": {"type": "Header"}}},
        "spec.traffic.loadBalancer.consistentHash.name",
        "name is required",
    ),
    BadPolicy(
        "a region that takes over from itself",
        {"traffic.loadBalancer.locality.failover": [{"from": "eu", "to": "eu"}]},
        "spec.traffic.loadBalancer.locality.failover[0].to",
        "different regions",
    ),
    BadPolicy(
        "localities both shared out and preferred",
        {
            "traffic.loadBalancer.locality.failover": [{"from": "eu", "to": "us"}],
            "traffic.loadBalancer.locality.distribute": [{"from": "eu", "to": [{"locality": "eu", "weight": 100}]}],
        },
        "spec.traffic.loadBalancer.locality.distribute",
        "not both",
    ),
    BadPolicy(
        "localities whose shares are not everything",
        {"traffic.loadBalancer.locality.distribute": [{"from": "eu", "to": [{"locality": "eu", "weight": 99}]}]},
        "spec.traffic.loadBalancer.locality.distribute[0].to",
        "weights must sum to 100",
    ),
    BadPolicy(
        "a locality with a star in its midst",
        {"traffic.loadBalancer.locality.distribute": [{"from": "eu/*/a", "to": [{"locality": "eu", "weight": 100}]}]},
        "spec.traffic.loadBalancer.locality.distribute[0].from",
        "the form",
        _PATTERN,
    ),
    BadPolicy(
        "a label key that is none",
        {"traffic.subsets": [{"name": "a", "labels": {"ver sion": "a"}}]},
        "spec.traffic.subsets[0].labels.ver sion",
        "form",
        "keys must have the form",
    ),
    BadPolicy(
        "a principal that is no identity",
        {"security.allow": [{"from": {"principals": ["*"]}}]},
        "spec.security.allow[0].from.principals[0]",
        "an identity such as",
        _PATTERN,
    ),
    BadPolicy("a rule for everybody", {"security.allow": [{}]}, "spec.security.allow[0]", "would match every request"),
    BadPolicy("an empty from", {"security.allow": [{"from": {}}]}, "spec.security.allow[0].from", "would match everybody"),
    BadPolicy("an empty to", {"security.allow": [{"to": {}}]}, "spec.security.allow[0].to", "would match everything"),
    BadPolicy(
        "an ingress rule without peer",
        {"network.ingress": [{"ports": [{"port": 80}]}]},
        "spec.network.ingress[0]",
        "name at least one of fromNamespaces",
    ),
    BadPolicy(
        "an egress rule without peer",
        {"network.egress": [{"ports": [{"port": 80}]}]},
        "spec.network.egress[0]",
        "name at least one of toServices",
    ),
    BadPolicy("a port of 70000", {"service.port": 70000}, "spec.service.port", "less than or equal to 65535"),
    BadPolicy(
        "an alert nobody writes",
        {"observability.alerts.disabled": ["HighFever"]},
        "spec.observability.alerts.disabled[0]",
        "HighResponseTime",
        "HighResponseTime",
    ),
    BadPolicy(
        "an alert sent into another namespace",
        {"observability.alerts.labels": {"namespace": "victim"}},
        "spec.observability.alerts.labels",
        "set by the rules",
    ),
    BadPolicy(
        "a label of the rules", {"observability.alerts.labels": {"severity": "low"}}, "spec.observability.alerts.labels", "set by the rules"
    ),
    BadPolicy(
        "a template expression in an alert label",
        {"observability.alerts.labels": {"team": "{{ $labels.instance }}"}},
        "spec.observability.alerts.labels.team",
        "form",
        _PATTERN,
    ),
    BadPolicy("a name of 51 characters", {}, "", "at most 50 characters", name="a" * 51),
    BadPolicy("a name with a dot", {}, "", "lower-case letters, digits and -", name="shop.v2"),
    BadPolicy("a name beginning with a digit", {}, "", "beginning with a letter", name="2shop"),
    BadPolicy("a redirect to nowhere", _route(redirect={"code": 308}), "spec.traffic.routes[0].redirect", "set path, host, or both"),
    *(
        BadPolicy(f"{block} disabled with contents", {block: {"mode": "Disabled", **contents}}, f"spec.{block}.mode", "stands alone")
        for block, contents in _CONTENTS.items()
    ),
)
