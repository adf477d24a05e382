"""What the pods' proxies tell of requests: from the policy, its class and the mesh, and when nobody could."""

from decimal import Decimal

import pytest

from perfpolicy.policy import model
from perfpolicy.policy.facts import Facts
from perfpolicy.vocabulary import Reason
from tests.policy.support import Changes, problems, resolved

OUTSIDE = Facts(in_mesh=False)
CREATION: Changes = {"name": "all", "workloadCreation": "Allowed"}
FIELDS = pytest.mark.parametrize("field", ["tracing", "accessLogs"])


def test_nothing_said_is_left_to_the_mesh() -> None:
    observability = resolved().observability
    assert (observability.tracing, observability.access_logs) == (None, None)


@pytest.mark.parametrize(
    ("written", "tracing"),
    [
        ({}, model.Tracing(Decimal("0.1"))),
        ({"sampling": "0.5%"}, model.Tracing(Decimal("0.005"))),
        ({"sampling": "0%"}, model.Tracing(Decimal(0))),
        ({"mode": "Disabled"}, model.Tracing(None)),
    ],
)
def test_tracing_samples_a_tenth_unless_told_and_can_be_off(written: Changes, tracing: model.Tracing) -> None:
    assert resolved({"observability.tracing": written}).observability.tracing == tracing
    assert resolved({}, {"defaults.observability.tracing": written}).observability.tracing == tracing


@pytest.mark.parametrize(
    ("written", "logs"),
    [
        ({}, model.AccessLogs("envoy")),
        ({"provider": "envoy"}, model.AccessLogs("envoy")),
        ({"requests": "Failed"}, model.AccessLogs("envoy", failed_only=True)),
        ({"mode": "Disabled"}, model.AccessLogs("envoy", enabled=False)),
    ],
)
def test_access_logs_are_of_every_request_unless_told_and_can_be_off(written: Changes, logs: model.AccessLogs) -> None:
    assert resolved({"observability.accessLogs": written}).observability.access_logs == logs
    assert resolved({}, {"defaults.observability.accessLogs": written}).observability.access_logs == logs


@FIELDS
def test_a_provider_is_the_classs_own_or_one_it_grants_the_namespace(field: str) -> None:
    grants = {"tracing": "tracingProviders", "accessLogs": "accessLogProviders"}
    granted: Changes = {"grants": [CREATION, {"name": "shops", "namespaces": {"names": ["shops"]}, grants[field]: ["zipkin"]}]}
    elsewhere: Changes = {"grants": [CREATION, {"name": "others", "namespaces": {"names": ["others"]}, grants[field]: ["zipkin"]}]}
    of_the_class: Changes = {f"defaults.observability.{field}.provider": "zipkin"}
    wanted: Changes = {f"observability.{field}.provider": "zipkin"}
    attribute = {"tracing": "tracing", "accessLogs": "access_logs"}[field]
    for policy, cls in ((wanted, granted), (wanted, of_the_class), ({}, of_the_class)):
        assert getattr(resolved(policy, cls).observability, attribute).provider == "zipkin"
    for cls in ({}, elsewhere):
        (problem,) = problems(wanted, cls)
        assert (problem.path, problem.reason) == (f"spec.observability.{field}.provider", Reason.NOT_GRANTED)
        assert "the provider zipkin" in problem.message


def test_providers_of_one_are_not_granted_for_the_other() -> None:
    granted: Changes = {"grants": [{**CREATION, "tracingProviders": ["zipkin"]}]}
    (problem,) = problems({"observability.accessLogs.provider": "zipkin"}, granted)
    assert problem.message.endswith("it grants: envoy")


def test_a_policy_turns_off_what_its_class_turns_on_and_back_on() -> None:
    on, off = {"defaults.observability.tracing.sampling": "5%"}, {"defaults.observability.tracing.mode": "Disabled"}
    assert resolved({"observability.tracing.mode": "Disabled"}, on).observability.tracing == model.Tracing(None)
    assert resolved({"observability.tracing.sampling": "7%"}, off).observability.tracing == model.Tracing(Decimal("0.07"))


def test_no_more_is_sampled_than_the_class_allows() -> None:
    limits = {"limits.maxSampling": "5%"}
    (problem,) = problems({"observability.tracing": {}}, limits)
    assert problem.path == "spec.observability.tracing.sampling"
    assert "at most 5%, not 10%" in problem.message
    for tracing in ({"sampling": "5%"}, {"mode": "Disabled"}):
        assert problems({"observability.tracing": tracing}, limits) == []
    assert problems({}, limits) == []


@pytest.mark.parametrize(
    ("facts", "cls", "said"),
    [(OUTSIDE, {}, "istio-injection=enabled"), (Facts(), {"mesh.namespace": "shops"}, "root namespace")],
    ids=["no sidecar", "root namespace"],
)
@FIELDS
def test_where_no_proxy_can_be_told_the_policys_wish_is_refused_and_the_classs_left_out(
    field: str, facts: Facts, cls: Changes, said: str
) -> None:
    (problem,) = problems({f"observability.{field}": {}}, cls, facts)
    assert (problem.path, problem.reason) == (f"spec.observability.{field}", Reason.TARGET_UNSUPPORTED)
    assert said in problem.message
    observability = resolved({}, {**cls, f"defaults.observability.{field}": {}}, facts).observability
    assert (observability.tracing, observability.access_logs) == (None, None)


def test_of_a_tcp_service_connections_are_logged_and_what_is_about_requests_is_refused_by_name() -> None:
    tcp: Changes = {"service.appProtocol": "Tcp"}
    wanted: Changes = {"observability.tracing": {}, "observability.accessLogs": {"requests": "Failed"}}
    found = problems({**tcp, **wanted})
    assert [problem.path for problem in found] == ["spec.observability.accessLogs.requests", "spec.observability.tracing"]
    by_class = {f"defaults.{path}": value for path, value in wanted.items()}
    observability = resolved(tcp, by_class).observability
    assert (observability.tracing, observability.access_logs) == (None, model.AccessLogs("envoy"))
    assert resolved({**tcp, "observability.accessLogs": {}}).observability.access_logs == model.AccessLogs("envoy")
