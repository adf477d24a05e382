"""What the pods' proxies tell of requests, in Istio's words."""

from decimal import Decimal
from typing import Any

from perfpolicy.policy import model
from perfpolicy.render import EVERYTHING, GroupKind, Manifest, render
from tests import builders as a
from tests.render.support import all_of, spec_of

TELEMETRY = GroupKind("telemetry.istio.io", "Telemetry")
OWN_PODS = {"matchLabels": {"app": "operation-service"}}


def telling(**changes: Any) -> model.Policy:
    return a.a_policy(observability=a.observability(**changes))


def spec(**changes: Any) -> Manifest:
    return spec_of(telling(**changes), "Telemetry")


def test_of_what_the_policy_says_nothing_the_mesh_decides() -> None:
    assert all_of(telling(), "Telemetry") == {}
    assert set(spec(tracing=model.Tracing(Decimal(1)))) == {"selector", "tracing"}
    assert set(spec(access_logs=model.AccessLogs("envoy"))) == {"selector", "accessLogging"}


def test_traces_are_sampled_and_sent_to_the_provider_or_the_meshs_own() -> None:
    assert spec(tracing=model.Tracing(Decimal("0.005"), "zipkin")) == {
        "selector": OWN_PODS,
        "tracing": [{"disableSpanReporting": False, "randomSamplingPercentage": 0.5, "providers": [{"name": "zipkin"}]}],
    }
    assert spec(tracing=model.Tracing(Decimal(0)))["tracing"] == [{"disableSpanReporting": False, "randomSamplingPercentage": 0}]


def test_off_is_said_so_that_neither_mesh_nor_namespace_turns_it_on() -> None:
    assert spec(tracing=model.Tracing(None), access_logs=model.AccessLogs("envoy", enabled=False)) == {
        "selector": OWN_PODS,
        "tracing": [{"disableSpanReporting": True}],
        "accessLogging": [{"disabled": True, "providers": [{"name": "envoy"}]}],
    }


def test_access_logs_are_of_all_requests_or_of_those_that_fail() -> None:
    assert spec(access_logs=model.AccessLogs("otel"))["accessLogging"] == [{"disabled": False, "providers": [{"name": "otel"}]}]
    (failed,) = spec(access_logs=model.AccessLogs("envoy", failed_only=True))["accessLogging"]
    assert failed["filter"]["expression"].startswith("!has(response.code) || response.code >= 400 || ")


def test_without_its_definition_the_rest_is_written_and_it_is_named() -> None:
    rendering = render(telling(access_logs=model.AccessLogs("envoy")), EVERYTHING - {TELEMETRY})
    assert rendering.missing == (TELEMETRY,)
    assert [manifest["kind"] for manifest in rendering.manifests] == ["PrometheusRule"]
