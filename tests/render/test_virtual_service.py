"""Routes in Istio's form."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from perfpolicy.policy import model
from perfpolicy.render import Manifest
from tests.builders import a_full_policy, a_match, a_policy, a_port, a_route, a_service, retries, traffic
from tests.render.support import all_of, spec_of

FQDN = "operation-service.ce-hub.svc.cluster.local"
EXACT = model.StringMatch(model.MatchKind.EXACT, "GET")
EVERYWHERE = [{"destination": {"host": FQDN}}]


def route(**changes: Any) -> Manifest:
    """The first rendered route of a policy with one route."""
    (rendered,) = spec_of(a_policy(traffic=traffic(routes=(a_route(**changes),))), "VirtualService")["http"]
    assert isinstance(rendered, dict)
    return rendered


def test_without_routes_there_is_none() -> None:
    assert all_of(a_policy(), "VirtualService") == {}


def test_tcp_services_have_no_http_routes() -> None:
    policy = a_full_policy(service=a_service(ports=(a_port("postgres", 5432, 5432, model.Protocol.TCP),)), security=a_policy().security)
    assert all_of(policy, "VirtualService") == {}


def test_the_mesh_one_is_for_every_namespace_and_no_gateway() -> None:
    spec = spec_of(a_full_policy(), "VirtualService")
    assert (spec["hosts"], spec["exportTo"], "gateways" in spec) == ([FQDN], ["*"], False)


def test_the_gateway_one_is_seen_by_its_own_and_the_gateways_namespaces() -> None:
    gateways = (model.GatewayRef("edge", "a"), model.GatewayRef("ce-hub", "b"), model.GatewayRef("edge", "c"))
    policy = a_policy(traffic=traffic(hosts=("api.ce-hub.com",), gateways=gateways, routes=(a_route(),)))
    spec = spec_of(policy, "VirtualService", "operation-service-gateway")
    assert spec["hosts"] == ["api.ce-hub.com"]
    assert spec["gateways"] == ["edge/a", "ce-hub/b", "edge/c"]
    assert spec["exportTo"] == [".", "edge"]


@pytest.mark.parametrize("changes", [{"hosts": ("api.ce-hub.com",)}, {"gateways": (model.GatewayRef("edge", "a"),)}])
def test_hosts_and_gateways_make_a_gateway_one_only_together(changes: dict[str, Any]) -> None:
    assert set(all_of(a_policy(traffic=traffic(routes=(a_route(),), **changes)), "VirtualService")) == {"operation-service"}


def ports_of(*ports: model.Port) -> list[tuple[str, int | None, int | None]]:
    """Name, port condition and destination port of every mesh entry of a policy with one route."""
    policy = a_policy(service=a_service(ports=ports), traffic=traffic(routes=(a_route(),)))
    entries = spec_of(policy, "VirtualService")["http"]
    conditions = [entry["match"][0]["port"] if "match" in entry else None for entry in entries]
    destinations = [entry["route"][0]["destination"].get("port", {}).get("number") for entry in entries]
    return list(zip([entry["name"] for entry in entries], conditions, destinations, strict=True))


DATABASE, METRICS = a_port("db", 5432, 5432, model.Protocol.TCP), a_port("http-metrics", 9090, 9090)


@pytest.mark.parametrize(
    ("ports", "entries"),
    [
        ((a_port(),), [("default", None, None)]),
        ((a_port(), DATABASE), [("default", None, 80)]),
        ((METRICS, a_port()), [("default", 80, 80), ("http-metrics", 9090, 9090)]),
        ((METRICS,), [("default", None, None)]),
        ((a_port(), a_port("grpc", 81, 81)), [("default-http", 80, 80), ("default-grpc", 81, 81)]),
    ],
    ids=["one port", "and TCP", "and metrics", "metrics alone", "two applications"],
)
def test_each_port_keeps_to_itself_in_the_mesh(ports: tuple[model.Port, ...], entries: list[tuple[str, int | None, int | None]]) -> None:
    assert ports_of(*ports) == entries


def test_the_port_is_one_more_condition_of_every_match() -> None:
    service = a_service(ports=(a_port(), METRICS))
    policy = a_policy(service=service, traffic=traffic(routes=(a_route(matches=(a_match(), a_match(path=None, method=EXACT))),)))
    assert spec_of(policy, "VirtualService")["http"][0]["match"] == [
        {"port": 80, "uri": {"prefix": "/api"}},
        {"port": 80, "method": {"exact": "GET"}},
    ]


def test_behind_a_gateway_the_first_http_port_serves_whatever_the_gateways_own_is() -> None:
    policy = a_full_policy(service=a_service(ports=(DATABASE, METRICS, a_port("http", 81, 8081))))
    entries = spec_of(policy, "VirtualService", "operation-service-gateway")["http"]
    assert {destination["destination"]["port"]["number"] for entry in entries for destination in entry["route"]} == {81}
    assert not any("port" in match for entry in entries for match in entry.get("match", ()))


def test_a_bare_route_says_nothing_but_where() -> None:
    assert route() == {"name": "default", "route": EVERYWHERE}


def test_matches() -> None:
    exact = model.StringMatch(model.MatchKind.EXACT, "true")
    match = model.RouteMatch(
        model.StringMatch(model.MatchKind.PREFIX, "/api"),
        model.StringMatch(model.MatchKind.REGEX, "GET|HEAD"),
        (("x-canary", exact),),
        (("canary", exact),),
    )
    assert route(matches=(match, a_match()))["match"] == [
        {
            "uri": {"prefix": "/api"},
            "method": {"regex": "GET|HEAD"},
            "headers": {"x-canary": {"exact": "true"}},
            "queryParams": {"canary": {"exact": "true"}},
        },
        {"uri": {"prefix": "/api"}},
    ]


def test_a_match_of_everything_makes_its_alternatives_pointless() -> None:
    assert "match" not in route(matches=(a_match(), a_match(path=None)))


def test_weights_only_where_there_is_a_choice() -> None:
    rendered = route(destinations=(model.Destination("stable", 90), model.Destination("canary", 10)))["route"]
    assert [(entry["destination"]["subset"], entry["weight"]) for entry in rendered] == [("stable", 90), ("canary", 10)]
    assert "weight" not in route()["route"][0]


def test_timeout_and_retries() -> None:
    rendered = route(timeout=timedelta(seconds=30), retries=retries())
    assert rendered["timeout"] == "30s"
    assert rendered["retries"] == {"attempts": 3, "perTryTimeout": "10s", "retryOn": "5xx,gateway-error,connect-failure,refused-stream"}


def test_no_limit_is_istios_default_and_no_retries_is_not() -> None:
    rendered = route(timeout=timedelta(0), retries=model.Retries(0, timedelta(0), ()))
    assert "timeout" not in rendered
    assert rendered["retries"] == {"attempts": 0}


def test_fault_percentages_are_percent() -> None:
    fault = model.Fault(timedelta(milliseconds=100), Decimal("0.001"), 503, Decimal("0.0001"))
    assert route(fault=fault)["fault"] == {
        "delay": {"fixedDelay": "0.1s", "percentage": {"value": 0.1}},
        "abort": {"httpStatus": 503, "percentage": {"value": 0.01}},
    }


def test_one_fault_alone() -> None:
    assert route(fault=model.Fault(None, Decimal(0), 503, Decimal(1)))["fault"] == {
        "abort": {"httpStatus": 503, "percentage": {"value": 100}}
    }


def test_redirect_replaces_the_route() -> None:
    assert route(redirect=model.Redirect("/new", None, 301)) == {"name": "default", "redirect": {"uri": "/new", "redirectCode": 301}}


def test_rewrite() -> None:
    assert route(rewrite_prefix="/")["rewrite"] == {"uri": "/"}


def test_mirror() -> None:
    rendered = route(mirror=model.Mirror("shadow.ce-hub.svc.cluster.local", None, Decimal("0.5")))
    assert rendered["mirror"] == {"host": "shadow.ce-hub.svc.cluster.local"}
    assert rendered["mirrorPercentage"] == {"value": 50}


def test_a_mirror_behind_a_gateway_names_the_port_only_of_the_own_service() -> None:
    def mirrored(host: str) -> Manifest:
        routes = (a_route(mirror=model.Mirror(host, "canary", Decimal(1))),)
        gateways = (model.GatewayRef("edge", "a"),)
        policy = a_policy(traffic=traffic(hosts=("api.ce-hub.com",), gateways=gateways, routes=routes))
        mirror: Manifest = spec_of(policy, "VirtualService", "operation-service-gateway")["http"][0]["mirror"]
        return mirror

    assert mirrored(FQDN) == {"host": FQDN, "subset": "canary", "port": {"number": 80}}
    assert "port" not in mirrored("shadow.ce-hub.svc.cluster.local")


def test_header_edits() -> None:
    rendered = route(
        request_headers=model.HeaderEdits(set={"x-a": "1"}, remove=("x-b",)), response_headers=model.HeaderEdits(add={"x-c": "on"})
    )
    assert rendered["headers"] == {"request": {"set": {"x-a": "1"}, "remove": ["x-b"]}, "response": {"add": {"x-c": "on"}}}


def test_cors() -> None:
    origin = model.StringMatch(model.MatchKind.EXACT, "https://ce-hub.com")
    cors = model.Cors((origin,), ("GET",), ("x-a",), (), timedelta(hours=24), False)
    assert route(cors=cors)["corsPolicy"] == {
        "allowOrigins": [{"exact": "https://ce-hub.com"}],
        "allowMethods": ["GET"],
        "allowHeaders": ["x-a"],
        "maxAge": "86400s",
        "allowCredentials": False,
    }
