"""Every leaf of the spec has an effect: a change of it is refused, or shows in the children or in what the policy is judged by.

Walked over the schemas themselves, so that a new field is covered, or red, without being named here.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Final

import pytest

from perfpolicy.api.performance_class import parse_class
from perfpolicy.api.policy import PolicySettings, parse_policy
from perfpolicy.api.schema import class_crd, policy_crd
from perfpolicy.errors import InvalidSpec
from perfpolicy.policy.classes import select_class
from perfpolicy.policy.facts import Facts, needed_facts
from perfpolicy.policy.resolve import resolve
from perfpolicy.promql.queries import budget_queries, threshold_queries
from perfpolicy.render import render
from tests.api.objects import TARGET, a_class_object, a_policy_object
from tests.leaves import Change, changes, leaves, used
from tests.policy.support import a_raw_service, a_target

pytestmark = pytest.mark.timeout(600)
"""Seconds of a clock: the longest takes 13 s of a processor, and on a machine with other work that was 120 s."""
_SHARES: Final = [{"locality": "eu/one/*", "weight": 80}, {"locality": "eu/two", "weight": 20}]
_CLIENTS: Final = [{"type": "Header", "name": "x-key"}, {"type": "RemoteAddress"}]


def _limits(per: str, login: str) -> dict[str, Any]:
    """A limit of all requests, and of two routes."""
    path = {"type": "Prefix", "value": "/login"}
    route = {"name": "login", "path": path, "method": "POST", "requests": 3, "per": login, "by": _CLIENTS}
    return {"requests": 10, "per": per, "by": _CLIENTS, "routes": [route, {"name": "reads", "method": "GET", "requests": 4}]}


# Values differ from every default, so that leaving one out is a change, too.
SETTINGS: Final[Mapping[str, Any]] = {
    "service": {"port": 88, "targetPort": 8443, "appProtocol": "Http", "metricsPort": 9090},
    "sli": {"reporter": "Source", "badCodes": ["5xx", "429"]},
    "thresholds": {
        "window": "4m",
        "latency": [{"quantile": "p50", "max": "100ms"}, {"quantile": "p95", "max": "500ms"}],
        "errorRate": {"max": "4%"},
        "throughput": {"min": "10", "target": "20", "max": "30"},
        "resources": {"cpu": "70%", "memory": "80%"},
    },
    "objectives": [
        {"name": "availability", "sli": "Availability", "target": "99.9%", "windowDays": 30},
        {"name": "fast", "sli": "Latency", "threshold": "500ms", "target": "99%", "windowDays": 28},
    ],
    "maintenance": [
        {"name": "upgrade", "start": "2026-12-01T22:00:00Z", "duration": "3h"},
        {"name": "patches", "start": "2026-12-06T01:00:00Z", "duration": "2h", "repeat": "Weekly"},
    ],
    "metrics": {"noData": "Hold", "minimumRate": "0.3", "slowRequest": "500ms"},
    "traffic": {
        "hosts": ["shop.example.com", "www.example.com"],
        "gateways": [{"namespace": "istio-system", "name": "public"}, {"namespace": "istio-system", "name": "partners"}],
        "timeout": "20s",
        "retries": {"attempts": 2, "perTryTimeout": "4s", "retryOn": ["5xx", "reset"]},
        "subsets": [{"name": "stable", "labels": {"version": "stable"}}, {"name": "canary", "labels": {"version": "canary"}}],
        "routes": [
            {
                "name": "api",
                "matches": [
                    {
                        "path": {"type": "Prefix", "value": "/api"},
                        "method": "GET",
                        "headers": [{"name": "x-canary", "type": "Prefix", "value": "true"}],
                        "query": [{"name": "page", "type": "Prefix", "value": "one"}],
                    },
                    {"method": "POST"},
                ],
                "rewrite": {"prefix": "/v2"},
                "timeout": "10s",
                "retries": {"attempts": 4, "perTryTimeout": "2s", "retryOn": ["5xx", "gateway-error"]},
                "fault": {"delay": {"duration": "100ms", "percent": "10%"}, "abort": {"status": 503, "percent": "1%"}},
                "mirror": {"service": "shop", "percent": "50%"},
                "headers": {
                    way: {
                        "set": [{"name": "x-set", "value": "one"}],
                        "add": [{"name": "x-add", "value": "two"}],
                        "remove": ["x-remove", "x-gone"],
                    }
                    for way in ("request", "response")
                },
                "cors": {
                    "allowOrigins": [{"type": "Prefix", "value": "https://shop"}, {"value": "https://example.com"}],
                    "allowMethods": ["GET", "POST"],
                    "allowHeaders": ["x-one", "x-two"],
                    "exposeHeaders": ["x-three", "x-four"],
                    "maxAge": "10m",
                    "credentials": "Allowed",
                },
                "destinations": [{"subset": "stable", "weight": 90}, {"subset": "canary", "weight": 10}],
            },
            {"name": "old", "matches": [{"method": "PUT"}], "redirect": {"path": "/new", "host": "new.example.com", "code": 308}},
            {"name": "rest", "mirror": {"subset": "canary"}, "destinations": [{"subset": "stable"}]},
        ],
        "loadBalancer": {
            "algorithm": "RoundRobin",
            "warmup": "50s",
            "locality": {"distribute": [{"from": "eu/one/*", "to": _SHARES}, {"from": "us", "to": [{"locality": "us", "weight": 100}]}]},
        },
        "connectionPool": {
            "maxConnections": 10,
            "connectTimeout": "2s",
            "idleTimeout": "4m",
            "maxConnectionDuration": "50m",
            "maxPendingRequests": 11,
            "maxRequests": 12,
            "maxRequestsPerConnection": 13,
        },
        "circuitBreaker": {"consecutiveErrors": 4, "interval": "20s", "baseEjection": "25s", "maxEjected": "40%", "minHealth": "10%"},
        "rateLimit": {
            "local": _limits("2m", login="3m"),
            "global": _limits("1h", login="24h"),
        },
        "concurrency": {"mode": "Adaptive", "max": 20},
        "responseHeaders": {"requestId": "Disabled", "responseTime": "Disabled", "security": "Disabled", "hstsDays": 20},
        "compression": {"minBytes": 500},
    },
    "security": {
        "mtls": "Strict",
        "allow": [
            {
                "from": {
                    "principals": ["*/ns/web/sa/web", "*/ns/app/sa/app"],
                    "namespaces": ["web", "app"],
                    "ipBlocks": ["10.0.0.0/8", "10.1.0.0/16"],
                },
                "to": {"methods": ["GET", "POST"], "paths": ["/api/*", "/v1"], "ports": [8080, 8443], "hosts": ["*.example.com", "a.b"]},
            },
            {"from": {"namespaces": ["partner"]}},
        ],
        "deny": [
            {
                "from": {
                    "principals": ["*/ns/bad/sa/bad", "*/ns/x/sa/x"],
                    "namespaces": ["bad", "x"],
                    "ipBlocks": ["10.9.0.0/16", "10.8.0.0/16"],
                },
                "to": {"methods": ["PUT", "HEAD"], "paths": ["/admin", "/x"], "ports": [8444, 8445], "hosts": ["*.example.com", "a.b"]},
            },
            {"to": {"paths": ["/admin/*"]}},
        ],
    },
    "network": {
        "ingress": [
            {
                "fromNamespaces": {"team": "web"},
                "fromPods": {"app": "web"},
                "fromCIDRs": [{"cidr": "10.0.0.0/8", "except": ["10.11.1.0/24", "10.11.2.0/24"]}, {"cidr": "10.1.0.0/16"}],
                "ports": [{"port": 8080, "protocol": "UDP"}, {"port": 8090}],
            }
        ],
        "egress": [
            {
                "toServices": [{"name": "shop"}, {"name": "beta"}],
                "toPods": {"app": "db"},
                "toNamespaces": {"team": "db"},
                "toCIDRs": [{"cidr": "10.0.0.0/8", "except": ["10.11.1.0/24", "10.11.2.0/24"]}, {"cidr": "10.1.0.0/16"}],
                "ports": [{"port": 5432, "protocol": "UDP"}, {"port": 5433}],
            }
        ],
    },
    "scaling": {
        "minReplicas": 2,
        "maxReplicas": 6,
        "target": {"cpu": "60%", "memory": "70%"},
        "behavior": {
            way: {
                "stabilizationWindow": "1m",
                "selectPolicy": "Min",
                "policies": [{"type": "Pods", "value": 2, "period": "20s"}, {"type": "Percent", "value": 50, "period": "30s"}],
            }
            for way in ("scaleUp", "scaleDown")
        },
    },
    "disruptionBudget": {"maxUnavailable": "40%"},
    "observability": {
        "alerts": {"labels": {"team": "shop"}, "runbook": "https://runbooks.example.com/shop", "disabled": ["ErrorBudgetBurn"]},
        "scrape": {"path": "/stats", "podMonitor": "Enabled", "interval": "25s"},
        "dashboard": "Enabled",
        "tracing": {"sampling": "20%", "provider": "zipkin"},
        "accessLogs": {"requests": "Failed", "provider": "otel"},
    },
}
POLICY_SCHEMA: Final = policy_crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
CLASS_SCHEMA: Final = class_crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
_PROBE: Final = {"port": 8443, "initialDelay": "1s", "period": "9s", "timeout": "2s", "failureThreshold": 4}
DEPLOYMENT: Final[Mapping[str, Any]] = {
    "image": "localhost/backend:lab",
    "replicas": 2,
    "ports": [{"name": "http", "port": 8080}, {"name": "tcp-admin", "port": 8443}],
    "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"cpu": "200m", "memory": "128Mi"}},
    "probes": {"liveness": {"path": "/live", **_PROBE}, "readiness": {"path": "/ready", **_PROBE}},
    "env": [{"name": "LEVEL", "value": "info"}, {"name": "MODE", "value": "x"}],
    "template": {"metadata": {"annotations": {"example.com/leaf": "one"}}},
}
CLASS: Final[Mapping[str, Any]] = {
    "allowedNamespaces": {"names": ["shops", "alpha"]},
    "limits": {
        "minMtls": "Permissive",
        "maxTimeout": "20s",
        "maxRetryAttempts": 4,
        "maxConnections": 10,
        "maxRequestRate": {"requests": 10, "per": "2m"},
        "maxConcurrency": 20,
        "maxReplicas": 6,
        "maxFault": "10%",
        "maxSampling": "20%",
    },
    "grants": [
        {
            "name": "all",
            "namespaces": {"names": ["shops", "alpha"]},
            "gateways": [{"namespace": "istio-system", "name": name} for name in ("public", "partners", "alpha", "beta")]
            + [{"namespace": namespace, "name": "public"} for namespace in ("alpha", "beta")],
            "hosts": ["*.example.com"],
            "workloadCreation": "Allowed",
            "envoyFilters": "Allowed",
            "customMetrics": "Allowed",
            "serviceAccounts": ["runner", "other"],
            "tracingProviders": ["zipkin", "alpha", "beta"],
            "accessLogProviders": ["otel", "alpha", "beta"],
        }
    ],
    "metrics": {
        "address": "http://prometheus.example.com:9090",
        "namespace": "watching",
        "tenant": "shop",
        "authFile": "/var/run/token",
        "timeout": "9s",
        "scrapeInterval": "10s",
        "ruleInterval": "20s",
        "ruleQueryOffset": "30s",
        "matchers": [{"name": "cluster", "value": "one"}, {"name": "replica", "value": "a"}],
    },
    "labels": {"rules": {"prometheus": "lab"}, "monitors": {"prometheus": "lab"}, "dashboards": {"grafana_dashboard": "1"}},
    "mesh": {"namespace": "mesh", "gatewayNamespace": "edge", "clusterDomain": "example.local"},
    "rateLimitService": {"namespace": "counting", "name": "counter", "port": 8083, "failureMode": "Closed", "timeout": "1s"},
}

_HASHED: Final = {
    "algorithm": "ConsistentHash",
    "consistentHash": {"type": "Header", "name": "x-user"},
    "locality": {"failover": [{"from": "eu", "to": "us"}, {"from": "asia", "to": "us"}]},
}
_GRPC: Final[Mapping[str, Any]] = {
    "service": {"appProtocol": "Grpc"},
    "sli": {"grpcBadCodes": ["Internal", "Unknown"]},
    "security": {"defaultDeny": "Enabled"},
}
_HTTP: Final[Mapping[str, Any]] = {
    "metrics": {
        "source": "HTTP",
        "http": {
            "requests": "calls_total",
            "durations": "call_seconds",
            "codeLabel": "status",
            "pathLabel": "route",
            "buckets": ["500ms", "2s"],
        },
    },
    "sli": {"excludePaths": ["/healthz", "/metrics"]},
}
_NATIVE: Final[Mapping[str, Any]] = {"metrics": {"source": "HTTP", "http": {"histogram": "Native"}}}
_ENVOY: Final[Mapping[str, Any]] = {"metrics": {"source": "Envoy", "envoy": {"cluster": "shop"}}}
_CUSTOM: Final[Mapping[str, Any]] = {"metrics": {"source": "Custom", "custom": {"requests": "jobs_total", "bad": "jobs_failed_total"}}}
BARE: Final[Mapping[str, Any]] = {"workload": {"deployment": DEPLOYMENT}}
POLICIES: Final[tuple[Mapping[str, Any], ...]] = (
    {**BARE, **SETTINGS},
    {
        **SETTINGS,
        "workload": TARGET,
        "service": {"metricsPort": 9090},
        "traffic": {**SETTINGS["traffic"], "loadBalancer": _HASHED},
        "scaling": {**SETTINGS["scaling"], "target": {"cpu": "60%"}},
        "disruptionBudget": {"minAvailable": "40%"},
    },
    {**BARE, **_GRPC},
    {**BARE, **_HTTP},
    {**BARE, **_NATIVE},
    {**BARE, **_ENVOY},
    {**BARE, **_CUSTOM},
)
"""Together they say something about every leaf that takes a value; what only a later one says is changed there."""
UNLIMITED: Final = {name: value for name, value in CLASS.items() if name != "limits"}
CLASSES: Final[tuple[Mapping[str, Any], ...]] = (
    {**UNLIMITED, "defaults": SETTINGS},
    {
        **UNLIMITED,
        "defaults": {
            **SETTINGS,
            "traffic": {**SETTINGS["traffic"], "loadBalancer": _HASHED},
            "disruptionBudget": {"minAvailable": "40%"},
        },
    },
    {**UNLIMITED, "defaults": _GRPC},
    {**UNLIMITED, "defaults": _HTTP},
    {**UNLIMITED, "defaults": _NATIVE},
    {**UNLIMITED, "defaults": _ENVOY},
    {**UNLIMITED, "defaults": _CUSTOM},
)
"""The same for spec.defaults."""

LAX: Final = {
    **POLICIES[0],
    "workload": {"deployment": {**DEPLOYMENT, "template": {"spec": {"serviceAccountName": "runner"}}}},
    "security": {"mtls": "Permissive"},
    "network": {"mode": "Disabled"},
}
"""As much as CLASS allows."""

_OBJECTIVE: Final = {"name": "promise", "target": "99%", "windowDays": 30}
_SUBSETS: Final = [{"name": "stable", "labels": {"version": "stable"}}, {"name": "canary", "labels": {"version": "canary"}}]


def _split(weight: int) -> dict[str, Any]:
    return {"destinations": [{"subset": "stable", "weight": weight}, {"subset": "canary", "weight": 100 - weight}]}


def _routed(route: Mapping[str, Any], subsets: Any = _SUBSETS) -> dict[str, Any]:
    return {"traffic": {"subsets": subsets, "routes": [{"name": "all", **route}]}}


def _shared(weight: int) -> dict[str, Any]:
    shares = [{"locality": "eu/one", "weight": weight}, {"locality": "eu/two", "weight": 100 - weight}]
    return {"traffic": {"loadBalancer": {"locality": {"distribute": [{"from": "eu", "to": shares}]}}}}


_ADDRESS: Final = [{"type": "RemoteAddress"}]
_HEADER: Final = [{"type": "Header", "name": "x-key"}]


def _limited(where: str, **limit: Any) -> dict[str, Any]:
    return {"traffic": {"rateLimit": {where: {"requests": 1, **limit}}}}


def _limited_route(where: str, **route: Any) -> dict[str, Any]:
    return _limited(where, routes=[{"name": "all", "method": "GET", "requests": 1, **route}])


TOGETHER: Final[Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]]] = {
    "objectives[].sli": (
        {"objectives": [{**_OBJECTIVE, "sli": "Availability"}]},
        {"objectives": [{**_OBJECTIVE, "sli": "Latency", "threshold": "500ms"}]},
    ),
    "metrics.source": ({"metrics": {"source": "Istio"}}, {"metrics": {"source": "HTTP", "http": {}}}),
    "traffic.loadBalancer.locality.distribute[].to[].weight": (_shared(10), _shared(20)),
    "traffic.rateLimit.local.by[].type": (_limited("local", by=_ADDRESS), _limited("local", by=_HEADER)),
    "traffic.rateLimit.local.routes[].by[].type": (_limited_route("local", by=_ADDRESS), _limited_route("local", by=_HEADER)),
    "traffic.rateLimit.global.by[].type": (_limited("global", by=_ADDRESS), _limited("global", by=_HEADER)),
    "traffic.rateLimit.global.routes[].by[].type": (_limited_route("global", by=_ADDRESS), _limited_route("global", by=_HEADER)),
    "traffic.routes[].destinations[].weight": (_routed(_split(10)), _routed(_split(20))),
    "traffic.routes[].mirror.subset": (_routed({"mirror": {"subset": "stable"}}), _routed({"mirror": {"subset": "canary"}})),
    "traffic.subsets[].name": (_routed({}), _routed({}, [{**_SUBSETS[0], "name": "steady"}, _SUBSETS[1]])),
    "workload.targetRef.group": (
        {"workload": TARGET},
        {"workload": {**TARGET, "targetRef": {"group": "argoproj.io", "kind": "Rollout", "name": "shop"}}},
    ),
}
"""Leaves that only change together with another one."""
WITHOUT: Final[Mapping[str, str]] = {
    "maintenance[].name": "told in the status while the window lasts (tests/evaluate/test_maintenance.py)",
    "suspend": "says whether the operator writes, not what (tests/reconcile/test_reconciler.py)",
}
"""Leaves of a policy without effect on its children and its judgement, each with the reason."""

WITHOUT_IN_CLASS: Final[Mapping[str, str]] = {"grants[].name": "tells grants apart for people and for merging the list"}

Outcome = tuple[Any, ...]


@pytest.fixture(autouse=True)
def unparsed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules as they are: parsing each of them, here thousands of times, would take half of the time."""
    monkeypatch.setattr("perfpolicy.promql.rule.check", lambda *_: None)
    monkeypatch.setattr("perfpolicy.promql.panels.check", lambda *_: None)


OTHERS: Final = [
    parse_class({**a_class_object(name=name), "spec": {**UNLIMITED, "metrics": {"address": f"http://{name}.example.com"}}})
    for name in ("alpha", "beta")
]


def outcome(spec: Mapping[str, Any], cls: Mapping[str, Any]) -> Outcome:
    """What a policy of this spec under this class reads, writes and is judged by; its problems where it is refused."""
    policy = a_policy_object()
    policy["spec"], policy["metadata"]["uid"] = spec, "0b0a4c8e-5a51-4a5c-9d0e-3d7b0c1f6a11"
    try:
        classes = [parse_class({**a_class_object(), "spec": cls}), *OTHERS]
        parsed = parse_policy({**policy, "spec": {"className": "plain", **spec}})
        resolved = resolve(parsed, select_class(parsed, classes), _facts(spec))
    except InvalidSpec as error:
        return ("refused", error.problems)
    queries = threshold_queries(resolved.metrics.provider), budget_queries(resolved.metrics.provider)
    judged = resolved.thresholds, resolved.objectives, resolved.metrics, queries, needed_facts(parsed)
    return ("accepted", render(resolved).manifests, judged)


def _facts(spec: Mapping[str, Any]) -> Facts:
    selectors = {"shop": {"app": "shop"}, "alpha": {"app": "shop", "version": "stable"}, "beta": {"app": "beta"}}
    services = {name: a_raw_service(name, selector=selector) for name, selector in selectors.items()}
    labels = {"kubernetes.io/metadata.name": "shops", "team": "shops"}
    return Facts(labels, a_target() if "targetRef" in spec["workload"] else None, services)


class Shown:
    """What became of changes. `effective`: leaves some change of which shows; `lost`: some change of which is taken without a trace."""

    def __init__(self, run: Callable[[Any], Outcome]) -> None:
        """`run`: the outcome of what is changed."""
        self._run = run
        self._outcomes: dict[str, Outcome] = {}
        self.effective, self.lost = set[str](), set[str]()

    def take(self, change: Change, *, refusals: bool = False) -> None:
        """Look at one change. A refusal says nothing, unless `refusals`: then it is the effect."""
        was, now = self._outcome(change.before), self._outcome(change.after)
        if was[0] == "accepted" and (refusals or now[0] == "accepted"):
            (self.effective if was != now else self.lost).add(change.leaf)

    def _outcome(self, value: Any) -> Outcome:
        key = repr(value)
        if key not in self._outcomes:
            self._outcomes[key] = self._run(value)
        return self._outcomes[key]


def _changes(schema: Mapping[str, Any], bases: Iterable[Any], block: str) -> Iterator[Change]:
    """Changes of the leaves below `block`, each leaf in the first base that says something about it."""
    said: frozenset[str] = frozenset()
    known = frozenset(leaf for base in bases for leaf in used(schema, base))
    for base in bases:
        for change in changes(schema, base, known=known):
            if _within(change.leaf, block) and change.leaf not in said:
                yield change
        said |= frozenset(used(schema, base)) | (frozenset(leaves(schema)) - known)


def _leaves(schema: Mapping[str, Any], block: str) -> set[str]:
    return {leaf for leaf in leaves(schema) if _within(leaf, block)}


def _within(leaf: str, block: str) -> bool:
    return leaf == block or leaf.startswith((f"{block}.", f"{block}["))


@pytest.mark.parametrize("base", POLICIES)
def test_what_is_changed_is_accepted_as_it_is(base: Mapping[str, Any]) -> None:
    assert outcome(base, UNLIMITED)[0] == "accepted", outcome(base, UNLIMITED)[1]


@pytest.mark.parametrize("block", sorted(POLICY_SCHEMA["properties"]))
def test_every_leaf_of_a_policy_shows(block: str) -> None:
    shown = Shown(lambda spec: outcome(spec, UNLIMITED))
    for change in _changes(POLICY_SCHEMA, POLICIES, block):
        shown.take(change)
    for leaf, (before, after) in TOGETHER.items():
        if _within(leaf, block):
            shown.take(Change(leaf, {**BARE, **before}, {**BARE, **after}))
    wanted = _leaves(POLICY_SCHEMA, block)
    assert wanted - shown.effective == set(WITHOUT) & wanted, "these leaves change nothing, or are no longer without effect"
    assert shown.lost <= set(WITHOUT), "these changes are accepted and lost"


@pytest.mark.parametrize("block", sorted(set(CLASS_SCHEMA["properties"]) - {"defaults"}))
def test_every_leaf_of_a_class_shows(block: str) -> None:
    """What permits more than before changes nothing, so here nothing is lost; a refusal is what limits and grants are for."""
    policies = {"limits": [LAX], "grants": [LAX, {**LAX, **_CUSTOM, "sli": {}, "thresholds": {}, "objectives": []}]}.get(
        block, POLICIES[:1]
    )
    effective: set[str] = set()
    for policy in policies:
        shown = Shown(partial(outcome, policy))
        for change in _changes(CLASS_SCHEMA, [CLASS], block):
            shown.take(change, refusals=True)
        effective |= shown.effective
    wanted = _leaves(CLASS_SCHEMA, block)
    assert wanted - effective == set(WITHOUT_IN_CLASS) & wanted


@pytest.mark.parametrize("block", sorted(PolicySettings.model_json_schema()["properties"]))
def test_every_default_of_a_class_shows(block: str) -> None:
    shown = Shown(lambda cls: outcome(BARE, cls))
    place = f"defaults.{block}"
    for change in _changes(CLASS_SCHEMA, CLASSES, place):
        if change.leaf not in shown.effective:
            shown.take(change)
    for leaf, (before, after) in TOGETHER.items():
        if _within(leaf, block):
            shown.take(Change(f"defaults.{leaf}", {**UNLIMITED, "defaults": before}, {**UNLIMITED, "defaults": after}))
    wanted = _leaves(CLASS_SCHEMA, place)
    assert wanted - shown.effective == {f"defaults.{leaf}" for leaf in WITHOUT} & wanted
