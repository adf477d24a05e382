"""What the pods' own proxies are told: filters in order, on application ports only, and a real Envoy that accepts and keeps every limit."""

import json
import os
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from lab.errors import MissingPrerequisiteError
from lab.mesh_images import envoy
from perfpolicy.policy import model
from perfpolicy.render import Manifest
from tests.builders import a_full_policy, a_policy, a_port, a_proxy, a_rate_limit, a_rate_limit_service, a_service, traffic
from tests.render.support import all_of, spec_of

GRPC = a_service(ports=(a_port("grpc", 80, 8080, model.Protocol.GRPC),))
LOGIN = model.StringMatch(model.MatchKind.EXACT, "/login")


def patches(proxy: model.Proxy, service: model.Service | None = None) -> list[Manifest]:
    found: list[Manifest] = spec_of(a_policy(service=service or a_service(), traffic=traffic(proxy=proxy)), "EnvoyFilter")["configPatches"]
    return found


def filters(proxy: model.Proxy, service: model.Service | None = None) -> dict[str, Any]:
    """The typed configuration of each inserted filter, by name, in order."""
    values = [patch["patch"]["value"] for patch in patches(proxy, service) if patch["applyTo"] == "HTTP_FILTER"]
    return {value["name"]: value["typed_config"] for value in values}


def limiter(*limits: model.RateLimit) -> dict[str, Any]:
    found: dict[str, Any] = filters(a_proxy(rate_limits=limits))["perfpolicy.local_rate_limit"]
    return found


def test_nothing_asked_for_renders_nothing() -> None:
    assert all_of(a_policy(), "EnvoyFilter") == {}


def test_tcp_has_no_http_filters() -> None:
    tcp = a_service(ports=(a_port("tcp", 5432, 5432, model.Protocol.TCP),))
    assert all_of(a_policy(service=tcp, traffic=traffic(proxy=a_proxy(compress_from=1))), "EnvoyFilter") == {}


def test_only_the_policys_pods_are_told() -> None:
    assert spec_of(a_full_policy(), "EnvoyFilter")["workloadSelector"] == {"labels": {"app": "operation-service"}}


def test_every_patch_is_for_requests_to_an_application_port() -> None:
    service = a_service(
        ports=(a_port(), a_port("http-b", 81, 8081), a_port("http-metrics", 9090, 9090), a_port("db", 5, 5, model.Protocol.TCP))
    )
    places = [patch["match"] for patch in patches(a_full_policy().traffic.proxy, service)]
    assert {place["context"] for place in places} == {"SIDECAR_INBOUND"}
    assert sorted({place["listener"]["filterChain"]["destinationPort"] for place in places}) == [8080, 8081]


def test_rejections_carry_the_headers_too_and_a_request_over_its_rate_takes_no_slot() -> None:
    proxy = a_full_policy().traffic.proxy
    assert list(filters(proxy)) == [
        "perfpolicy.response_headers", "perfpolicy.compression", "perfpolicy.local_rate_limit", "perfpolicy.global_rate_limit_figures",
        "perfpolicy.global_rate_limit", "perfpolicy.concurrency",
    ]  # fmt: skip
    assert {patch["patch"]["operation"] for patch in patches(proxy)} == {"INSERT_BEFORE"}


def test_a_limit_of_all_requests_is_the_default_bucket() -> None:
    config = limiter(a_rate_limit(requests=10))
    assert config["token_bucket"] == {"max_tokens": 10, "tokens_per_fill": 10, "fill_interval": "60s"}
    assert not {"rate_limits", "descriptors", "max_dynamic_descriptors"} & set(config)


def test_a_limit_of_each_client_has_one_bucket_per_value_and_one_for_those_without_the_header() -> None:
    config = limiter(a_rate_limit(clients=("x-api-key",)))
    assert "token_bucket" not in config
    assert [each["entries"] for each in config["descriptors"]] == [
        [{"key": "header/x-api-key"}],
        [{"key": "without", "value": "x-api-key"}],
    ]
    assert config["rate_limits"][1]["actions"][0]["header_value_match"]["headers"] == [
        {"name": "x-api-key", "present_match": True, "invert_match": True}
    ]


def test_no_combination_of_missing_headers_is_unlimited() -> None:
    config = limiter(a_rate_limit(name="login", path=LOGIN, clients=("x-a", "x-b")))
    keys = [[entry["key"] for entry in each["entries"]] for each in config["descriptors"]]
    assert keys == [
        ["route", "header/x-a", "header/x-b"],
        ["route", "header/x-a", "without"],
        ["route", "without", "header/x-b"],
        ["route", "without", "without"],
    ]


def counter(*limits: model.RateLimit, **service: Any) -> tuple[Any, Any]:
    """The figures a request carries, and the filter that asks the service."""
    found = filters(a_proxy(global_limits=model.GlobalRateLimits(limits, a_rate_limit_service(**service))))
    (metadata,) = found["perfpolicy.global_rate_limit_figures"]["metadata"]
    return metadata["value"], found["perfpolicy.global_rate_limit"]


class TestAGlobalLimit:
    def test_is_counted_under_the_policys_namespace_and_name(self) -> None:
        _, config = counter(a_rate_limit(), a_rate_limit(name="login", path=LOGIN, clients=("x-a", None)))
        owner = {"generic_key": {"descriptor_key": "policy", "descriptor_value": "ce-hub/operation-service"}}
        assert config["domain"] == "perfpolicy"
        assert [each["actions"][0] for each in config["rate_limits"]] == [owner] * 3
        assert [[next(iter(action)) for action in each["actions"]] for each in config["rate_limits"]] == [
            ["generic_key"],
            ["generic_key", "header_value_match", "request_headers", "remote_address"],
            ["generic_key", "header_value_match", "header_value_match", "remote_address"],
        ]

    def test_carries_its_figures(self) -> None:
        units = {"SECOND": 1, "MINUTE": 60, "HOUR": 3600, "DAY": 86400}
        limits = [a_rate_limit(name=unit.lower(), method="GET", requests=7, per=timedelta(seconds=per)) for unit, per in units.items()]
        figures, config = counter(*limits, a_rate_limit(requests=9))
        assert figures == {unit.lower(): {"requests_per_unit": 7, "unit": unit} for unit in units} | {
            "*": {"requests_per_unit": 9, "unit": "MINUTE"}
        }
        paths = [each["limit"]["dynamic_metadata"]["metadata_key"]["path"] for each in config["rate_limits"]]
        assert paths == [[{"key": name}] for name in ("second", "minute", "hour", "day", "*")]

    @pytest.mark.parametrize("closed", [True, False])
    def test_asks_the_service_the_class_names(self, closed: bool) -> None:
        _, config = counter(a_rate_limit(), host="rl.x.svc.a", port=99, closed=closed, timeout=timedelta(milliseconds=20))
        assert config["rate_limit_service"]["grpc_service"]["envoy_grpc"] == {
            "cluster_name": "outbound|99||rl.x.svc.a",
            "authority": "rl.x.svc.a",
        }
        assert (config["failure_mode_deny"], config["timeout"]) == (closed, "0.02s")


@pytest.mark.parametrize(
    ("path", "matcher"),
    [
        (LOGIN, {"safe_regex": {"regex": "/login(\\?.*)?"}}),
        (model.StringMatch(model.MatchKind.EXACT, "/a.b"), {"safe_regex": {"regex": "/a\\.b(\\?.*)?"}}),
        (model.StringMatch(model.MatchKind.PREFIX, "/v1/"), {"prefix": "/v1/"}),
        (model.StringMatch(model.MatchKind.REGEX, "/a|/b"), {"safe_regex": {"regex": "(?:/a|/b)(\\?.*)?"}}),
    ],
)
def test_paths_are_compared_without_the_query(path: model.StringMatch, matcher: Manifest) -> None:
    config = limiter(a_rate_limit(name="r", path=path, method="GET"))
    assert config["rate_limits"][0]["actions"][0]["header_value_match"]["headers"] == [
        {"name": ":path", "string_match": matcher},
        {"name": ":method", "string_match": {"exact": "GET"}},
    ]


@pytest.mark.parametrize(
    ("limits", "seconds"),
    [([(10, 60)], "6"), ([(100, 1)], "1"), ([(7, 60)], "9"), ([(10, 60), (2, 60)], "30")],
)
def test_retry_after_is_the_time_to_the_next_token_of_the_slowest(limits: list[tuple[int, int]], seconds: str) -> None:
    config = limiter(*(a_rate_limit(name=f"r{n}", method="GET", requests=n, per=timedelta(seconds=per)) for n, per in limits))
    assert config["response_headers_to_add"][0]["header"] == {"key": "retry-after", "value": seconds}


def test_a_fixed_cap_has_equal_bounds_and_an_adaptive_one_only_the_upper() -> None:
    def parameters(*, adaptive: bool) -> tuple[Any, Any]:
        config = filters(a_proxy(concurrency=model.Concurrency(8, adaptive)))["perfpolicy.concurrency"]["gradient_controller_config"]
        limit = config["concurrency_limit_params"]["max_concurrency_limit"]
        return limit, config["min_rtt_calc_params"].get("min_concurrency")

    assert parameters(adaptive=False) == (8, 8)
    assert parameters(adaptive=True) == (8, None)


def test_over_grpc_a_rejection_by_the_cap_is_resource_exhausted() -> None:
    capped = a_proxy(concurrency=model.Concurrency(8, adaptive=False))
    (merged,) = [patch["patch"] for patch in patches(capped, GRPC) if patch["applyTo"] == "NETWORK_FILTER"]
    assert merged["operation"] == "MERGE"
    (mapper,) = merged["value"]["typed_config"]["local_reply_config"]["mappers"]
    assert mapper["headers_to_add"][0]["header"] == {"key": "grpc-status", "value": "8"}
    assert [patch["applyTo"] for patch in patches(capped)] == ["HTTP_FILTER"]


def test_only_the_headers_asked_for_are_sent() -> None:
    asked = a_proxy(response_headers=model.ResponseHeaders(False, True, False, timedelta(days=1)))
    mutations = filters(asked)["perfpolicy.response_headers"]["mutations"]["response_mutations"]
    assert {each["append"]["header"]["key"]: each["append"]["header"]["value"] for each in mutations} == {
        "x-response-time": "%RESPONSE_DURATION%",
        "strict-transport-security": "max-age=86400; includeSubDomains",
    }


ADAPTIVE = a_proxy(concurrency=model.Concurrency(8, adaptive=True), rate_limits=(a_rate_limit(clients=(None, "x-a")),))


@pytest.mark.parametrize("proxy", [a_full_policy().traffic.proxy, ADAPTIVE], ids=["full", "adaptive"])
def test_a_real_envoy_accepts_it(proxy: model.Proxy, tmp_path: Path) -> None:
    try:
        program = envoy()
    except MissingPrerequisiteError:
        assert "PERFPOLICY_REQUIRE_TOOLS" not in os.environ
        pytest.skip("no Envoy: the dependency group `lab` is not installed")
    config = tmp_path / "envoy.json"
    config.write_text(json.dumps(bootstrap(patches(proxy, GRPC))))
    done = subprocess.run([program, "--mode", "validate", "-c", config], capture_output=True, text=True, check=False)
    assert "OK" in done.stdout, done.stderr


def bootstrap(found: list[Manifest]) -> Manifest:
    """An Envoy of one listener with the patches applied as istiod applies them."""
    values = [patch["patch"]["value"] for patch in found]
    network = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
    router = {"name": "router", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}
    manager = {
        "@type": network,
        "stat_prefix": "inbound",
        "route_config": {},
        "http_filters": [*(value for value in values if "name" in value), router],
    }
    for value in values:
        manager |= value["typed_config"] if "name" not in value else {}
    chain = {"filters": [{"name": "http", "typed_config": manager}]}
    address = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
    return {"static_resources": {"listeners": [{"name": "inbound", "address": address, "filter_chains": [chain]}]}}
