"""The built-in classes fill an ordinary policy without a complaint, with the users' figures."""

from datetime import timedelta

import pytest

from perfpolicy.api.policy import parse_policy
from perfpolicy.errors import InvalidSpec
from perfpolicy.policy.builtin import builtin_classes
from perfpolicy.policy.facts import Facts
from perfpolicy.policy.model import Concurrency, Mtls, Policy, Proxy, RateLimit, ResponseHeaders, Retries
from perfpolicy.policy.resolve import resolve
from perfpolicy.vocabulary import Reason
from tests.api.objects import a_policy_object

CLASSES = {cls.metadata.name: cls for cls in builtin_classes()}
RETRY_ON = ("5xx", "gateway-error", "connect-failure", "refused-stream")


def under(name: str) -> Policy:
    labels = {"istio-injection": "enabled", "perfpolicy.io/environment": name}
    return resolve(parse_policy(a_policy_object()), CLASSES[name], Facts(namespace_labels=labels))


@pytest.mark.parametrize("name", CLASSES)
def test_an_ordinary_policy_resolves_under_every_class(name: str) -> None:
    policy = under(name)
    assert policy.class_ref.name == name
    assert policy.metrics.slow_request == timedelta(seconds=1)
    assert str(policy.thresholds.error_rate) == "0.05"


@pytest.mark.parametrize("name", [name for name in CLASSES if name != "production"])
@pytest.mark.parametrize("labels", [{}, {"perfpolicy.io/environment": "production"}])
def test_no_class_is_a_way_around_productions_limits(name: str, labels: dict[str, str]) -> None:
    with pytest.raises(InvalidSpec) as refused:
        resolve(parse_policy(a_policy_object()), CLASSES[name], Facts(namespace_labels={"istio-injection": "enabled", **labels}))
    (problem,) = refused.value.problems
    assert problem.reason is Reason.CLASS_NOT_PERMITTED
    assert f"those labelled perfpolicy.io/environment={name}" in problem.message


@pytest.mark.parametrize("name", ["staging", "production"])
def test_the_users_figures_are_defaults_where_it_matters(name: str) -> None:
    policy, second = under(name), timedelta(seconds=1)
    assert [(limit.name, limit.maximum / second) for limit in policy.thresholds.latency] == [("p50", 0.1), ("p95", 0.5), ("p99", 1)]
    (route,) = policy.traffic.routes
    assert (route.timeout, route.retries) == (30 * second, Retries(3, 10 * second, RETRY_ON))
    breaker = policy.traffic.circuit_breaker
    assert breaker is not None
    assert (breaker.consecutive_errors, breaker.interval, breaker.base_ejection, breaker.max_ejected_percent) == (
        5,
        30 * second,
        30 * second,
        50,
    )
    assert policy.security.mtls is Mtls.STRICT


def test_no_default_throttles_a_service_in_production() -> None:
    pool = under("production").traffic.connection_pool
    assert pool is not None
    assert pool.max_connections is not None
    assert pool.max_connections >= 1000


@pytest.mark.parametrize(("name", "figure"), [("development", 10), ("testing", 5), ("staging", 3), ("production", 2)])
def test_the_users_limits_of_a_client_are_there_for_the_asking(name: str, figure: int) -> None:
    asked: dict[str, object] = {"traffic": {"rateLimit": {}, "concurrency": {}, "responseHeaders": {}}}
    facts = Facts(namespace_labels={"istio-injection": "enabled", "perfpolicy.io/environment": name})
    proxy = resolve(parse_policy(a_policy_object(asked)), CLASSES[name], facts).traffic.proxy
    assert proxy.rate_limits == (RateLimit("", None, None, figure, timedelta(minutes=1), (None,)),)
    assert proxy.concurrency == Concurrency(figure, adaptive=False)
    assert proxy.response_headers == ResponseHeaders(True, True, True, timedelta(days=365) if name == "production" else None)
    assert under(name).traffic.proxy == Proxy()


def test_only_production_promises_an_error_budget() -> None:
    assert {name: [str(o.target) for o in under(name).objectives] for name in CLASSES} == {
        "development": [],
        "testing": [],
        "staging": [],
        "production": ["0.999"],
    }
