"""What the pods' own proxies are asked to do, from the policy and what its class offers, and when that is refused or left out."""

from datetime import timedelta

import pytest

from perfpolicy.policy import model
from perfpolicy.policy.facts import Facts
from perfpolicy.vocabulary import Reason
from tests.policy.support import Changes, problems, resolved

GRANTED: Changes = {"grants": [{"name": "all", "workloadCreation": "Allowed", "envoyFilters": "Allowed"}]}
BLOCKS: Changes = {
    "traffic.rateLimit": {"local": {"requests": 5}},
    "traffic.concurrency": {"max": 5},
    "traffic.responseHeaders": {},
    "traffic.compression": {},
}
MINUTE = timedelta(minutes=1)


def proxy(policy: Changes, cls: Changes | None = None) -> model.Proxy:
    return resolved(policy, {**GRANTED, **(cls or {})}).traffic.proxy


def limits(**local: object) -> tuple[model.RateLimit, ...]:
    return proxy({"traffic.rateLimit.local": local}).rate_limits


def test_nothing_asked_for_is_nothing_done() -> None:
    assert proxy({}) == model.Proxy()


def test_a_limit_of_all_requests() -> None:
    assert limits(requests=100, per="1h") == (model.RateLimit("", None, None, 100, timedelta(hours=1), ()),)


def test_a_limit_is_per_minute_unless_told() -> None:
    assert [limit.per for limit in limits(requests=1, routes=[{"name": "a", "method": "GET", "requests": 1}])] == [MINUTE, MINUTE]


def test_a_limit_of_each_client() -> None:
    by = [{"type": "Header", "name": "x-api-key"}, {"type": "RemoteAddress"}]
    (limit,) = limits(requests=1, by=by)
    assert limit.clients == ("x-api-key", None)


def test_limits_of_routes_stand_beside_the_general_one_or_alone() -> None:
    path = {"type": "Prefix", "value": "/login"}
    route = {"name": "login", "path": path, "method": "POST", "requests": 3, "per": "10s", "by": [{"type": "RemoteAddress"}]}
    login = model.RateLimit("login", model.StringMatch(model.MatchKind.PREFIX, "/login"), "POST", 3, timedelta(seconds=10), (None,))
    assert limits(routes=[route]) == (login,)
    assert limits(requests=9, routes=[route]) == (model.RateLimit("", None, None, 9, MINUTE, ()), login)


@pytest.mark.parametrize(
    ("local", "path"),
    [
        ({}, "requests"),
        ({"per": "1s"}, "requests"),
        ({"by": [{"type": "RemoteAddress"}], "routes": [{"name": "a", "method": "GET", "requests": 1}]}, "by"),
        ({"routes": [{"name": "a", "path": {"type": "Regex", "value": "(?=a)"}, "requests": 1}]}, "routes[0].path.value"),
    ],
)
def test_a_limit_without_effect_or_that_envoy_cannot_read_is_refused(local: Changes, path: str) -> None:
    assert [p.path for p in problems({"traffic.rateLimit.local": local}, GRANTED)] == [f"spec.traffic.rateLimit.local.{path}"]


COUNTED: Changes = {**GRANTED, "rateLimitService": {"namespace": "rate-limit", "name": "ratelimit"}}


class TestAGlobalLimit:
    def test_is_the_local_one_counted_by_the_service_of_the_class(self) -> None:
        asked = {"requests": 9, "per": "1h", "by": [{"type": "RemoteAddress"}], "routes": [{"name": "a", "method": "GET", "requests": 1}]}
        found = resolved({"traffic.rateLimit.global": asked}, COUNTED).traffic.proxy
        limits = (model.RateLimit("", None, None, 9, timedelta(hours=1), (None,)), model.RateLimit("a", None, "GET", 1, MINUTE, ()))
        service = model.RateLimitService("rate-limit", "ratelimit.rate-limit.svc.cluster.local", 8081, False, timedelta(milliseconds=100))
        assert found == model.Proxy(global_limits=model.GlobalRateLimits(limits, service))

    def test_is_kept_as_the_class_says(self) -> None:
        told = {"namespace": "rl", "name": "counter", "port": 99, "failureMode": "Closed", "timeout": "2s"}
        changes = {**COUNTED, "rateLimitService": told, "mesh.clusterDomain": "x.local"}
        found = resolved({"traffic.rateLimit.global.requests": 1}, changes).traffic.proxy.global_limits
        assert found
        assert found.service == model.RateLimitService("rl", "counter.rl.svc.x.local", 99, True, timedelta(seconds=2))

    def test_needs_a_service(self) -> None:
        (problem,) = problems({"traffic.rateLimit.global.requests": 1}, GRANTED)
        assert (problem.path, problem.reason) == ("spec.traffic.rateLimit.global", Reason.NOT_GRANTED)
        assert "class plain names no rateLimitService" in problem.message

    @pytest.mark.parametrize(
        ("written", "path"),
        [
            ({}, "requests"),
            ({"by": [{"type": "RemoteAddress"}], "routes": [{"name": "a", "method": "GET", "requests": 1}]}, "by"),
            ({"routes": [{"name": "a", "path": {"type": "Regex", "value": "(?=a)"}, "requests": 1}]}, "routes[0].path.value"),
        ],
    )
    def test_without_effect_or_that_envoy_cannot_read_is_refused(self, written: object, path: str) -> None:
        assert [p.path for p in problems({"traffic.rateLimit.global": written}, COUNTED)] == [f"spec.traffic.rateLimit.global.{path}"]

    def test_stands_beside_what_the_class_offers_each_pod_or_alone(self) -> None:
        offering = {**COUNTED, "defaults.traffic.rateLimit": {"mode": "Offered", "local": {"requests": 2}}}
        both = resolved({"traffic.rateLimit.global.requests": 50}, offering).traffic.proxy
        alone = resolved({"traffic.rateLimit": {"global": {"requests": 50}, "local": {"mode": "Disabled"}}}, offering).traffic.proxy
        assert [limit.requests for limit in both.rate_limits] == [2]
        assert alone.rate_limits == ()
        assert both.global_limits == alone.global_limits
        assert both.global_limits

    def test_none_of_either_kind_is_refused(self) -> None:
        neither = {"local": {"mode": "Disabled"}, "global": {"mode": "Disabled"}}
        assert [p.path for p in problems({"traffic.rateLimit": neither}, COUNTED)] == ["spec.traffic.rateLimit.local.requests"]


@pytest.mark.parametrize(("mode", "adaptive"), [(None, False), ("Fixed", False), ("Adaptive", True)])
def test_a_cap_is_fixed_unless_told(mode: str | None, adaptive: bool) -> None:
    told = {"mode": mode} if mode else {}
    assert proxy({"traffic.concurrency": {"max": 7, **told}}).concurrency == model.Concurrency(7, adaptive)


def test_a_cap_without_a_figure_is_refused() -> None:
    assert [p.path for p in problems({"traffic.concurrency": {"mode": "Adaptive"}}, GRANTED)] == ["spec.traffic.concurrency.max"]


def test_headers_are_all_but_hsts_unless_told() -> None:
    assert proxy({"traffic.responseHeaders": {}}).response_headers == model.ResponseHeaders(True, True, True, None)
    told = {"requestId": "Disabled", "responseTime": "Disabled", "security": "Disabled", "hstsDays": 2}
    assert proxy({"traffic.responseHeaders": told}).response_headers == model.ResponseHeaders(False, False, False, timedelta(days=2))


def test_no_header_at_all_is_refused() -> None:
    none = {"requestId": "Disabled", "responseTime": "Disabled", "security": "Disabled"}
    assert [p.path for p in problems({"traffic.responseHeaders": none}, GRANTED)] == ["spec.traffic.responseHeaders"]


def test_compression_spares_short_answers() -> None:
    assert proxy({"traffic.compression": {}}).compress_from == 1000
    assert proxy({"traffic.compression.minBytes": 50}).compress_from == 50


OFFER: Changes = {
    "defaults.traffic": {
        "rateLimit": {"mode": "Offered", "local": {"requests": 2, "by": [{"type": "RemoteAddress"}]}},
        "concurrency": {"mode": "Offered", "max": 2},
        "compression": {"mode": "Offered", "minBytes": 77},
    }
}


class TestWhatAClassOffers:
    def test_is_not_used_by_those_who_do_not_ask(self) -> None:
        assert proxy({}, OFFER) == model.Proxy()

    @pytest.mark.parametrize("asking", [{}, {"mode": "Enabled"}])
    def test_is_used_by_those_who_do(self, asking: Changes) -> None:
        found = proxy({"traffic.rateLimit": asking, "traffic.concurrency": {}, "traffic.compression": asking}, OFFER)
        assert found == model.Proxy((model.RateLimit("", None, None, 2, MINUTE, (None,)),), model.Concurrency(2, False), None, 77)

    def test_gives_what_the_policy_leaves_out(self) -> None:
        asking = {"traffic.rateLimit.local.requests": 9, "traffic.concurrency.mode": "Adaptive"}
        found = proxy(asking, OFFER)
        assert found.rate_limits == (model.RateLimit("", None, None, 9, MINUTE, (None,)),)
        assert found.concurrency == model.Concurrency(2, adaptive=True)

    def test_can_be_declined(self) -> None:
        assert proxy({"traffic.rateLimit.mode": "Disabled"}, OFFER) == model.Proxy()

    def test_cannot_be_offered_by_a_policy(self) -> None:
        found = problems({"traffic.concurrency": {"mode": "Offered", "max": 1}}, GRANTED)
        assert [p.path for p in found] == ["spec.traffic.concurrency.mode"]

    def test_needs_no_grant_while_nobody_asks(self) -> None:
        assert problems({}, OFFER) == []


@pytest.mark.parametrize("block", BLOCKS)
class TestWhatTheProxiesDo:
    def test_must_be_granted(self, block: str) -> None:
        (problem,) = problems({block: BLOCKS[block]})
        assert (problem.path, problem.reason) == (f"spec.{block}", Reason.NOT_GRANTED)
        assert "class plain does not grant namespace shops envoyFilters" in problem.message

    def test_is_refused_in_the_root_namespace(self, block: str) -> None:
        (problem,) = problems({block: BLOCKS[block]}, {**GRANTED, "mesh.namespace": "shops"})
        assert (problem.path, problem.reason) == (f"spec.{block}", Reason.TARGET_UNSUPPORTED)

    def test_is_refused_by_name_on_tcp(self, block: str) -> None:
        (problem,) = problems({block: BLOCKS[block], "service.appProtocol": "Tcp"}, GRANTED)
        assert problem.path == f"spec.{block}"
        assert "HTTP or gRPC" in problem.message

    def test_is_refused_by_name_without_a_sidecar(self, block: str) -> None:
        (problem,) = problems({block: BLOCKS[block]}, GRANTED, Facts(in_mesh=False))
        assert (problem.path, problem.reason) == (f"spec.{block}", Reason.TARGET_UNSUPPORTED)

    @pytest.mark.parametrize("facts", [Facts(in_mesh=False), Facts()])
    def test_is_left_out_there_when_only_the_class_asks(self, block: str, facts: Facts) -> None:
        tcp = {"service.appProtocol": "Tcp"} if facts.in_mesh else {}
        assert resolved(tcp, {**GRANTED, f"defaults.{block}": BLOCKS[block]}, facts).traffic.proxy == model.Proxy()
