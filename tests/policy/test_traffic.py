"""Routing and resilience in the model, and what is refused on the way."""

from datetime import timedelta
from decimal import Decimal

import pytest

from perfpolicy.policy import model
from perfpolicy.policy.facts import Facts
from perfpolicy.vocabulary import Reason
from tests.policy.support import Changes, a_raw_service, problems, resolved

GATEWAY = {"namespace": "istio-system", "name": "public"}
GRANT = [{"name": "public", "gateways": [GATEWAY], "hosts": ["*.example.com"], "workloadCreation": "Allowed"}]
EXPOSED: Changes = {"traffic.hosts": ["api.example.com"], "traffic.gateways": [GATEWAY]}
SUBSETS = [{"name": "stable", "labels": {"version": "stable"}}, {"name": "canary", "labels": {"version": "canary"}}]


def only_route(**changes: object) -> model.Route:
    (route,) = resolved({"traffic.routes": [{"name": "all", **changes}], "traffic.subsets": SUBSETS}).traffic.routes
    return route


def test_nothing_asked_for_is_nothing_written() -> None:
    assert resolved().traffic == model.Traffic((), (), (), (), None, None, None)


def test_a_timeout_alone_makes_one_route_for_everything() -> None:
    (route,) = resolved({"traffic.timeout": "1m30s"}).traffic.routes
    assert (route.name, route.matches, route.timeout) == ("default", (), timedelta(seconds=90))
    assert route.destinations == (model.Destination(None, 100),)


def test_granted_hosts_and_gateways_are_kept() -> None:
    traffic = resolved(EXPOSED, {"grants": GRANT}).traffic
    assert (traffic.hosts, traffic.gateways) == (("api.example.com",), (model.GatewayRef("istio-system", "public"),))
    assert [route.name for route in traffic.routes] == ["default"]


def test_hosts_and_gateways_that_are_not_granted_are_refused_with_those_that_are() -> None:
    changes = {"traffic.hosts": ["api.bank.com"], "traffic.gateways": [{"namespace": "istio-system", "name": "private"}]}
    found = problems(changes, {"grants": GRANT})
    assert [(p.path, p.reason) for p in found] == [
        ("spec.traffic.gateways[0]", Reason.NOT_GRANTED),
        ("spec.traffic.hosts[0]", Reason.NOT_GRANTED),
    ]
    assert "it grants istio-system/public" in found[0].message
    assert "it grants *.example.com" in found[1].message


def test_hosts_without_gateways_are_refused() -> None:
    assert [p.path for p in problems({"traffic.hosts": ["a.example.com"]}, {"grants": GRANT})] == ["spec.traffic.gateways"]


def test_gateways_without_hosts_are_refused() -> None:
    assert [p.path for p in problems({"traffic.gateways": [GATEWAY]}, {"grants": GRANT})] == ["spec.traffic.hosts"]


def test_a_classs_gateways_wait_for_hosts() -> None:
    cls = {"grants": GRANT, "defaults.traffic.gateways": [GATEWAY]}
    assert resolved({}, cls).traffic.gateways == ()
    assert resolved({"traffic.hosts": ["a.example.com"]}, cls).traffic.gateways == (model.GatewayRef("istio-system", "public"),)


def test_routes_fall_back_to_the_policys_timeout_and_retries() -> None:
    routes = [
        {"name": "own", "matches": [{"method": "GET"}], "timeout": "1s", "retries": {"attempts": 1}},
        {"name": "none", "matches": [{"method": "PUT"}], "retries": {"mode": "Disabled"}},
        {"name": "rest"},
    ]
    own, none, rest = resolved(
        {"traffic.timeout": "9s", "traffic.retries": {"attempts": 2, "perTryTimeout": "3s", "retryOn": ["reset"]}, "traffic.routes": routes}
    ).traffic.routes
    assert (own.timeout, own.retries) == (timedelta(seconds=1), model.Retries(1, timedelta(seconds=3), ("reset",)))
    assert (none.timeout, none.retries) == (timedelta(seconds=9), model.Retries(0, timedelta(0), ()))
    assert (rest.timeout, rest.retries) == (timedelta(seconds=9), model.Retries(2, timedelta(seconds=3), ("reset",)))


def test_a_timeout_of_zero_is_said_explicitly() -> None:
    assert only_route(timeout="0s").timeout == timedelta(0)
    assert only_route().timeout is None


def test_conditions_of_a_match() -> None:
    match = {
        "path": {"type": "Prefix", "value": "/api/"},
        "method": "GET",
        "headers": [{"name": "x-canary", "value": "true"}],
        "query": [{"name": "v", "type": "Regex", "value": "[0-9]+"}],
    }
    assert only_route(matches=[match]).matches == (
        model.RouteMatch(
            path=model.StringMatch(model.MatchKind.PREFIX, "/api/"),
            method=model.StringMatch(model.MatchKind.EXACT, "GET"),
            headers=(("x-canary", model.StringMatch(model.MatchKind.EXACT, "true")),),
            query=(("v", model.StringMatch(model.MatchKind.REGEX, "[0-9]+")),),
        ),
    )


@pytest.mark.parametrize(
    "expression", ["(?=a)", r"(a)\1", "(", "(?<!a)b", "a{2000}", "(?x) a", r"\u0041", r"\Qa\E", "(?P=x)", "a*+", "(?#x)", r"\Z", "(?>a)"]
)
def test_an_expression_envoy_cannot_compile_is_refused(expression: str) -> None:
    routes = [{"name": "all", "matches": [{"path": {"type": "Regex", "value": expression}}]}]
    assert [p.path for p in problems({"traffic.routes": routes})] == ["spec.traffic.routes[0].matches[0].path.value"]


@pytest.mark.parametrize(
    "expression",
    ["/v[0-9]+/.*", "(?P<x>a)", "[*+]+", r"\++", "a+?", "a{1000}", "[[:alpha:]]", "/(a|b)?", r"/\d{1,3}\.html", "(?i)/API", "(?:/a)+"],
)
def test_an_expression_envoy_compiles_is_kept(expression: str) -> None:
    route = only_route(matches=[{"path": {"type": "Regex", "value": expression}}])
    assert route.matches[0].path == model.StringMatch(model.MatchKind.REGEX, expression)


def test_expressions_are_checked_in_headers_queries_and_origins() -> None:
    value = {"name": "a", "type": "Regex", "value": "("}
    route = {
        "name": "all",
        "matches": [{"headers": [value], "query": [value]}],
        "cors": {"allowOrigins": [{"type": "Regex", "value": "("}]},
    }
    assert [p.path for p in problems({"traffic.routes": [route]})] == [
        "spec.traffic.routes[0].cors.allowOrigins[0].value",
        "spec.traffic.routes[0].matches[0].headers[0].value",
        "spec.traffic.routes[0].matches[0].query[0].value",
    ]


def test_destinations_by_weight() -> None:
    route = only_route(destinations=[{"subset": "stable", "weight": 90}, {"subset": "canary", "weight": 10}])
    assert route.destinations == (model.Destination("stable", 90), model.Destination("canary", 10))
    assert only_route(destinations=[{"subset": "canary"}]).destinations == (model.Destination("canary", 100),)


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"destinations": [{"subset": "blue"}]}, "spec.traffic.routes[0].destinations[0].subset"),
        ({"mirror": {"subset": "blue"}}, "spec.traffic.routes[0].mirror.subset"),
    ],
)
def test_a_subset_neither_policy_nor_class_declares_is_refused(changes: dict[str, object], path: str) -> None:
    policy = {"traffic.routes": [{"name": "all", **changes}]}
    (problem,) = problems(policy)
    assert (problem.path, "there is: none" in problem.message) == (path, True)
    declared = {"defaults.traffic.subsets": [{"name": "blue", "labels": {"colour": "blue"}}]}
    assert problems(policy, declared) == []


def test_a_mirror_stays_in_the_namespace() -> None:
    routes = {"traffic.routes": [{"name": "all", "mirror": {"service": "shadow", "percent": "10%"}}]}
    (route,) = resolved(routes, facts=Facts(services={"shadow": a_raw_service("shadow")})).traffic.routes
    assert route.mirror == model.Mirror("shadow.shops.svc.cluster.local", None, Decimal("0.1"))
    assert only_route(mirror={"subset": "canary"}).mirror == model.Mirror("shop.shops.svc.cluster.local", "canary", Decimal(1))


@pytest.mark.parametrize(
    ("service", "reason"),
    [
        (a_raw_service("shadow", type="ExternalName", externalName="api.victim.svc.cluster.local"), Reason.TARGET_UNSUPPORTED),
        (a_raw_service("shadow", selector=None), Reason.TARGET_UNSUPPORTED),
        (None, Reason.TARGET_NOT_FOUND),
    ],
)
def test_a_mirror_that_may_lead_out_of_the_namespace_is_refused(service: Changes | None, reason: Reason) -> None:
    routes = {"traffic.routes": [{"name": "all", "mirror": {"service": "shadow"}}]}
    (problem,) = problems(routes, facts=Facts(services={"shadow": service} if service else {}))
    assert (problem.path, problem.reason) == ("spec.traffic.routes[0].mirror.service", reason)


def test_faults_are_ratios() -> None:
    fault = {"delay": {"duration": "100ms", "percent": "0.1%"}, "abort": {"status": 503, "percent": "0.01%"}}
    assert only_route(fault=fault).fault == model.Fault(timedelta(milliseconds=100), Decimal("0.001"), 503, Decimal("0.0001"))


def test_headers_cors_rewrite_and_redirect() -> None:
    edits = {"set": [{"name": "x-a", "value": "1"}], "add": [{"name": "x-b", "value": "2"}], "remove": ["x-c"]}
    route = only_route(
        headers={"response": edits},
        rewrite={"prefix": "/"},
        cors={"allowOrigins": [{"value": "https://a.com"}], "maxAge": "1h", "credentials": "Allowed"},
    )
    assert route.response_headers == model.HeaderEdits({"x-a": "1"}, {"x-b": "2"}, ("x-c",))
    assert route.request_headers == model.HeaderEdits()
    assert route.rewrite_prefix == "/"
    assert route.cors is not None
    assert (route.cors.max_age, route.cors.allow_credentials) == (timedelta(hours=1), True)
    redirect = only_route(redirect={"path": "/new"})
    assert redirect.redirect == model.Redirect("/new", None, 301)
    assert (redirect.destinations, redirect.timeout, redirect.retries) == ((), None, None)


def test_a_redirect_takes_no_timeout_from_the_policy() -> None:
    (route,) = resolved({"traffic.timeout": "3s", "traffic.routes": [{"name": "all", "redirect": {"path": "/new"}}]}).traffic.routes
    assert route.timeout is None


@pytest.mark.parametrize(
    ("hashed", "expected"),
    [
        ({"type": "Header", "name": "x-user"}, ("x-user", None, False)),
        ({"type": "Cookie", "name": "session"}, (None, "session", False)),
        ({"type": "SourceIP"}, (None, None, True)),
    ],
)
def test_exactly_one_thing_is_hashed(hashed: dict[str, str], expected: tuple[str | None, str | None, bool]) -> None:
    balancer = resolved({"traffic.loadBalancer": {"algorithm": "ConsistentHash", "consistentHash": hashed}}).traffic.load_balancer
    assert balancer is not None
    assert (balancer.hash_header, balancer.hash_cookie, balancer.hash_source_ip) == expected


@pytest.mark.parametrize(
    ("balancer", "path"),
    [
        ({"algorithm": "ConsistentHash"}, "consistentHash"),
        ({"algorithm": "Random", "consistentHash": {"type": "SourceIP"}}, "consistentHash"),
        ({"algorithm": "Random", "warmup": "60s"}, "warmup"),
    ],
)
def test_a_load_balancer_setting_without_effect_is_refused(balancer: dict[str, object], path: str) -> None:
    assert [p.path for p in problems({"traffic.loadBalancer": balancer})] == [f"spec.traffic.loadBalancer.{path}"]


def test_a_classs_warm_up_is_dropped_where_the_algorithm_has_none() -> None:
    balancer = resolved({"traffic.loadBalancer.algorithm": "Random"}, {"defaults.traffic.loadBalancer.warmup": "60s"}).traffic.load_balancer
    assert balancer == model.LoadBalancer(model.Algorithm.RANDOM, None, None, False, None)


FAILOVER = [{"from": "eu", "to": "us"}]
BREAKER: Changes = {"traffic.circuitBreaker": {}}


def locality(policy: Changes, cls: Changes | None = None) -> model.LocalityBalancing | None:
    balancer = resolved(policy, cls).traffic.load_balancer
    assert balancer is not None
    return balancer.locality


def shares(*places: str) -> list[dict[str, object]]:
    return [{"locality": place, "weight": 100 // len(places)} for place in places]


def test_a_region_takes_over() -> None:
    found = locality({**BREAKER, "traffic.loadBalancer.locality.failover": FAILOVER})
    assert found == model.LocalityBalancing(enabled=True, failover={"eu": "us"}, distribute={})


def test_requests_are_shared_out_without_a_circuit_breaker() -> None:
    rule = {"from": "eu/one/*", "to": [{"locality": "eu/one", "weight": 80}, {"locality": "eu/two", "weight": 20}]}
    found = locality({"traffic.loadBalancer.locality.distribute": [rule]})
    assert found == model.LocalityBalancing(enabled=True, failover={}, distribute={"eu/one/*": {"eu/one": 80, "eu/two": 20}})


def test_localities_can_be_ignored_whatever_the_class_says() -> None:
    cls = {"defaults.traffic.loadBalancer.locality.failover": FAILOVER, "defaults.traffic.circuitBreaker": {}}
    found = locality({"traffic.loadBalancer.locality.mode": "Disabled"}, cls)
    assert found == model.LocalityBalancing(enabled=False, failover={}, distribute={})


def test_a_policys_shares_replace_the_classs_failover() -> None:
    cls = {"defaults.traffic.loadBalancer.locality.failover": FAILOVER}
    found = locality({"traffic.loadBalancer.locality.distribute": [{"from": "*", "to": shares("eu", "us")}]}, cls)
    assert found == model.LocalityBalancing(enabled=True, failover={}, distribute={"*": {"eu": 50, "us": 50}})


def test_failover_without_a_circuit_breaker_is_refused_and_a_classs_is_dropped() -> None:
    wanted = {"traffic.loadBalancer.locality.failover": FAILOVER}
    (problem,) = problems(wanted)
    assert (problem.path, "needs spec.traffic.circuitBreaker" in problem.message) == ("spec.traffic.loadBalancer.locality", True)
    (problem,) = problems({**wanted, "traffic.circuitBreaker.mode": "Disabled"}, {"defaults.traffic.circuitBreaker": {}})
    assert problem.path == "spec.traffic.loadBalancer.locality"
    assert locality({}, {"defaults.traffic.loadBalancer.locality.failover": FAILOVER}) is None


@pytest.mark.parametrize(
    ("outer", "inner"),
    [("*", "eu"), ("eu", "eu/one"), ("eu/*", "eu/one/a"), ("eu/one", "eu/one/*"), ("eu", "eu"), ("eu/one/*", "eu/one/a")],
)
def test_localities_that_overlap_are_refused(outer: str, inner: str) -> None:
    path = "spec.traffic.loadBalancer.locality.distribute"
    for first, second in ((outer, inner), (inner, outer)):
        one = [{"from": "x", "to": shares(first, second)}]
        assert [p.path for p in problems({"traffic.loadBalancer.locality.distribute": one})] == [f"{path}[0].to[1].locality"]
        two = [{"from": first, "to": shares("x")}, {"from": second, "to": shares("x")}]
        assert [p.path for p in problems({"traffic.loadBalancer.locality.distribute": two})] == [f"{path}[1].from"]


@pytest.mark.parametrize(("one", "other"), [("eu/one", "eu/two"), ("eu", "eu-2"), ("eu/one/*", "eu/ones/*"), ("eu/one/a", "eu/one/b")])
def test_localities_beside_each_other_are_kept(one: str, other: str) -> None:
    assert problems({"traffic.loadBalancer.locality.distribute": [{"from": "x", "to": shares(one, other)}]}) == []


def test_a_region_that_fails_over_twice_is_refused() -> None:
    twice = [*FAILOVER, {"from": "eu", "to": "asia"}]
    (problem,) = problems({**BREAKER, "traffic.loadBalancer.locality.failover": twice})
    assert problem.path == "spec.traffic.loadBalancer.locality.failover[1].from"


def test_pool_and_breaker_have_the_users_figures() -> None:
    pool = {"maxConnections": 10, "idleTimeout": "5m", "maxConnectionDuration": "1h"}
    traffic = resolved({"traffic.connectionPool": pool, "traffic.circuitBreaker": {}}).traffic
    half_a_minute = timedelta(seconds=30)
    assert traffic.circuit_breaker == model.CircuitBreaker(5, half_a_minute, half_a_minute, 50, 0)
    assert traffic.connection_pool == model.ConnectionPool(10, None, timedelta(minutes=5), timedelta(hours=1), None, None, None)


def test_a_pool_without_limits_is_refused() -> None:
    assert [p.path for p in problems({"traffic.connectionPool": {}})] == ["spec.traffic.connectionPool"]


TCP: Changes = {"service.appProtocol": "Tcp"}


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"traffic.timeout": "3s"}, "spec.traffic.timeout"),
        ({"traffic.retries.attempts": 1}, "spec.traffic.retries"),
        ({"traffic.routes": [{"name": "all"}]}, "spec.traffic.routes"),
        ({"traffic.connectionPool.maxPendingRequests": 1}, "spec.traffic.connectionPool.maxPendingRequests"),
        ({"traffic.connectionPool.maxRequests": 1}, "spec.traffic.connectionPool.maxRequests"),
        ({"traffic.connectionPool.maxRequestsPerConnection": 1}, "spec.traffic.connectionPool.maxRequestsPerConnection"),
        (
            {"traffic.loadBalancer": {"algorithm": "ConsistentHash", "consistentHash": {"type": "Cookie", "name": "a"}}},
            "spec.traffic.loadBalancer.consistentHash.type",
        ),
        ({"thresholds.latency": [{"quantile": "p95", "max": "1s"}]}, "spec.thresholds.latency"),
        ({"thresholds.errorRate.max": "1%"}, "spec.thresholds.errorRate"),
        ({"thresholds.throughput.min": "1"}, "spec.thresholds.throughput"),
        ({"objectives": [{"name": "up", "sli": "Availability", "target": "99%", "windowDays": 7}]}, "spec.objectives"),
        ({"security.allow": [{"to": {"methods": ["GET"]}}]}, "spec.security.allow[0].to.methods"),
        ({"security.deny": [{"to": {"paths": ["/a"], "hosts": ["a.com"]}}]}, "spec.security.deny[0].to.paths"),
    ],
)
def test_a_tcp_service_refuses_what_is_about_requests(changes: Changes, path: str) -> None:
    found = problems({**TCP, **changes})
    assert path in [p.path for p in found]
    assert all("HTTP or gRPC" in p.message for p in found)


def test_a_tcp_service_drops_the_classs_settings_about_requests() -> None:
    cls = {
        "defaults.traffic.timeout": "3s",
        "defaults.thresholds.latency": [{"quantile": "p95", "max": "1s"}],
        "defaults.thresholds.errorRate.max": "1%",
        "defaults.thresholds.resources.cpu": "70%",
        "defaults.objectives": [{"name": "up", "sli": "Availability", "target": "99%", "windowDays": 7}],
        "defaults.traffic.connectionPool.maxRequests": 7,
        "defaults.traffic.loadBalancer": {"algorithm": "ConsistentHash", "consistentHash": {"type": "Header", "name": "x-user"}},
    }
    policy = resolved({**TCP, "traffic.connectionPool.maxConnections": 5, "workload.deployment.resources.limits.cpu": "1"}, cls)
    assert (policy.traffic.routes, policy.objectives, policy.thresholds.latency, policy.thresholds.error_rate) == ((), (), (), None)
    assert policy.thresholds.cpu == Decimal("0.7")
    assert policy.traffic.connection_pool is not None
    assert policy.traffic.load_balancer is None


def test_a_tcp_service_keeps_what_connections_can_have() -> None:
    traffic = resolved(
        {
            **TCP,
            "traffic.loadBalancer": {"algorithm": "ConsistentHash", "consistentHash": {"type": "SourceIP"}},
            "traffic.connectionPool": {"maxConnections": 5, "connectTimeout": "1s", "idleTimeout": "1m"},
            "traffic.circuitBreaker": {"consecutiveErrors": 2},
        }
    ).traffic
    assert traffic.load_balancer is not None
    assert traffic.load_balancer.hash_source_ip
    assert traffic.connection_pool is not None
    assert traffic.circuit_breaker is not None
