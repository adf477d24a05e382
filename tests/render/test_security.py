"""PeerAuthentication and AuthorizationPolicy: what they refuse matters more than what they allow."""

from dataclasses import replace
from typing import Any

import pytest

from perfpolicy.errors import RenderError
from perfpolicy.policy import model
from perfpolicy.render import render
from tests.builders import a_policy, a_port, a_service, access_rule, observability, security
from tests.render.support import all_of, spec_of

TCP = model.Protocol.TCP
STRICT = security(mtls=model.Mtls.STRICT)
ALLOW, DENY = "operation-service-allow", "operation-service-deny"


def rules(name: str, **changes: Any) -> Any:
    """The rules of one AuthorizationPolicy, scraping off so that only the author's are there; None where the key is absent."""
    policy = a_policy(**{"observability": observability(scrape=None), **changes})
    return spec_of(policy, "AuthorizationPolicy", name).get("rules")


def test_no_mtls_asked_for() -> None:
    assert all_of(a_policy(), "PeerAuthentication") == {}


def test_strict_opens_the_separate_metrics_port_only() -> None:
    assert spec_of(a_policy(security=STRICT), "PeerAuthentication") == {
        "selector": {"matchLabels": {"app": "operation-service"}},
        "mtls": {"mode": "STRICT"},
        "portLevelMtls": {"9090": {"mode": "PERMISSIVE"}},
    }


@pytest.mark.parametrize(
    "changes",
    [
        {"service": a_service(metrics_port=None)},
        {"service": a_service(metrics_port=8080)},
        {"observability": observability(scrape=None)},
        {"security": security(mtls=model.Mtls.PERMISSIVE)},
        {"security": security(mtls=model.Mtls.DISABLE)},
    ],
    ids=["no metrics port", "metrics on the application port", "no scraping", "permissive", "disabled"],
)
def test_no_port_is_opened(changes: dict[str, Any]) -> None:
    assert "portLevelMtls" not in spec_of(a_policy(**{"security": STRICT, **changes}), "PeerAuthentication")


def test_a_metrics_port_that_the_service_also_lists_is_still_not_the_application() -> None:
    service = a_service(ports=(a_port(), a_port("http-metrics", 9090, 9090)))
    assert spec_of(a_policy(security=STRICT, service=service), "PeerAuthentication")["portLevelMtls"] == {"9090": {"mode": "PERMISSIVE"}}


def test_source_and_target_stay_in_one_rule() -> None:
    rule = access_rule(principals=("p",), namespaces=("n",), ip_blocks=("10.0.0.0/8",), methods=("GET",), paths=("/api/*",), hosts=("h",))
    (rendered,) = rules(ALLOW, security=security(allow=(rule,)))
    assert rendered == {
        "from": [{"source": {"principals": ["p"], "namespaces": ["n"], "ipBlocks": ["10.0.0.0/8"]}}],
        "to": [{"operation": {"methods": ["GET"], "paths": ["/api/*"], "hosts": ["h"]}}],
    }


def test_one_policy_an_action() -> None:
    policy = a_policy(security=security(allow=(access_rule(namespaces=("a",)),), deny=(access_rule(paths=("/x",)),)))
    actions = {name: manifest["spec"]["action"] for name, manifest in all_of(policy, "AuthorizationPolicy").items()}
    assert actions == {ALLOW: "ALLOW", DENY: "DENY"}


def test_ports_are_text() -> None:
    assert rules(ALLOW, security=security(allow=(access_rule(ports=(8080,)),))) == [{"to": [{"operation": {"ports": ["8080"]}}]}]


def test_default_deny_alone_allows_nothing() -> None:
    assert rules(ALLOW, security=security(default_deny=True)) is None


@pytest.mark.parametrize(
    ("listed", "operation"),
    [
        ((), {"methods": ["GET"], "paths": ["/metrics"], "ports": ["9090"]}),
        ((a_port("http-metrics", 9090, 9090),), {"methods": ["GET"], "paths": ["/metrics"], "ports": ["9090"]}),
        # A TCP port has no paths: the rule would never match.
        ((a_port("tcp-metrics", 9090, 9090, TCP),), {"ports": ["9090"]}),
    ],
)
def test_default_deny_still_lets_prometheus_scrape_and_nothing_else(listed: tuple[model.Port, ...], operation: dict[str, Any]) -> None:
    policy = a_policy(security=security(default_deny=True), service=a_service(ports=(a_port(), *listed)))
    assert spec_of(policy, "AuthorizationPolicy", ALLOW)["rules"] == [{"to": [{"operation": operation}]}]


def test_metrics_on_the_application_port_get_no_rule_of_their_own() -> None:
    policy = a_policy(security=security(default_deny=True), service=a_service(metrics_port=8080))
    assert "rules" not in spec_of(policy, "AuthorizationPolicy", ALLOW)


@pytest.mark.parametrize(
    "rule",
    [model.AccessRule(None, None), model.AccessRule(model.AccessSource((), (), ()), model.AccessTarget((), (), (), ()))],
    ids=["absent", "empty"],
)
def test_everybody_is_one_empty_rule_and_not_no_rule(rule: model.AccessRule) -> None:
    assert rules(ALLOW, security=security(allow=(rule,))) == [{}]


@pytest.mark.parametrize("name", [ALLOW, DENY])
@pytest.mark.parametrize("target", [{"methods": ("GET",)}, {"paths": ("/x",)}, {"hosts": ("h",)}], ids=lambda t: next(iter(t)))
def test_http_conditions_are_kept_to_http_ports(name: str, target: dict[str, Any]) -> None:
    service = a_service(ports=(a_port(), a_port("db", 5432, 5432, TCP), a_port("grpc", 81, 8081, model.Protocol.GRPC)))
    (rendered,) = rules(name, service=service, security=security(allow=(access_rule(**target),), deny=(access_rule(**target),)))
    assert rendered["to"][0]["operation"]["ports"] == ["8080", "8081", "9090"]


def test_http_conditions_are_unlimited_where_every_port_speaks_http() -> None:
    (rendered,) = rules(DENY, security=security(deny=(access_rule(paths=("/x",)),)))
    assert rendered == {"to": [{"operation": {"paths": ["/x"]}}]}


def test_ports_the_author_named_are_not_changed() -> None:
    service = a_service(ports=(a_port(), a_port("db", 5432, 5432, TCP)))
    (rendered,) = rules(DENY, service=service, security=security(deny=(access_rule(paths=("/x",), ports=(8080,)),)))
    assert rendered["to"][0]["operation"] == {"paths": ["/x"], "ports": ["8080"]}


def test_rules_without_http_conditions_hold_on_tcp_workloads() -> None:
    service = a_service(ports=(a_port("db", 5432, 5432, TCP),))
    rule = access_rule(principals=("p",), ports=(5432,))
    assert rules(ALLOW, service=service, security=security(allow=(rule,))) == [
        {"from": [{"source": {"principals": ["p"]}}], "to": [{"operation": {"ports": ["5432"]}}]}
    ]


def test_http_conditions_on_a_tcp_workload_are_refused() -> None:
    service = replace(a_service(), ports=(a_port("db", 5432, 5432, TCP),))
    with pytest.raises(RenderError, match="ce-hub/operation-service: methods, paths and hosts"):
        render(a_policy(service=service, security=security(deny=(access_rule(paths=("/x",)),))))
