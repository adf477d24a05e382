"""Whatever the strings of a policy are, its children stay in its namespace and every string arrives unchanged."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perfpolicy import yaml_text
from perfpolicy.policy import model
from perfpolicy.render import dump, render
from tests.builders import (
    a_full_policy,
    a_policy,
    a_proxy,
    a_rate_limit,
    a_rate_limit_service,
    a_route,
    an_owned_deployment,
    security,
    traffic,
)

HOSTILE = [
    "{{ 7*7 }}",
    "{% raw %}",
    "{# x",
    "\ue0000\ue000",
    "*alias",
    "&anchor",
    "<<",
    "!!python/object:os.system",
    "a: b",
    "- a",
    "x\n---\nkind: Secret",
    "x\nmetadata:\n  namespace: kube-system",
    "'\"",
    "no",
    "1e3",
    "0x10",
    "2001-01-01",
    "null",
    "~",
    "",
    "\u2028\x85\x7f\x00\U0001f600",
    "%YAML 1.1",
    "#",
    " x ",
]
TEXT = st.text(max_size=20) | st.sampled_from(HOSTILE)
NAMES = st.lists(TEXT, min_size=1, max_size=3, unique=True).map(tuple)
LABELS = st.dictionaries(TEXT, TEXT, min_size=1, max_size=3)
NAMESPACE = "ce-hub"


@st.composite
def policies(draw: st.DrawFn) -> model.Policy:
    """A policy with every free string drawn."""
    match = model.StringMatch(model.MatchKind.EXACT, draw(TEXT))
    route = a_route(
        name=draw(TEXT),
        matches=(model.RouteMatch(match, match, ((draw(TEXT), match),), ((draw(TEXT), match),)),),
        rewrite_prefix=draw(TEXT),
        mirror=model.Mirror(draw(TEXT), draw(TEXT), Decimal("0.1")),
        request_headers=model.HeaderEdits(draw(LABELS), draw(LABELS), draw(NAMES)),
        cors=model.Cors((match,), draw(NAMES), draw(NAMES), draw(NAMES), timedelta(1), True),
        destinations=(model.Destination(draw(TEXT), 100),),
    )
    rule = model.AccessRule(
        model.AccessSource(draw(NAMES), draw(NAMES), draw(NAMES)), model.AccessTarget(draw(NAMES), draw(NAMES), (), draw(NAMES))
    )
    base = a_full_policy()
    owned = an_owned_deployment(image=draw(TEXT), env=draw(LABELS), template={"metadata": {"annotations": draw(LABELS)}})
    return replace(
        base,
        workload=replace(base.workload, selector=draw(LABELS), container=draw(TEXT), owned=owned),
        traffic=traffic(
            hosts=draw(NAMES),
            gateways=(model.GatewayRef(draw(TEXT), draw(TEXT)),),
            routes=(route,),
            subsets=(model.Subset(draw(TEXT), draw(LABELS)),),
            proxy=a_proxy(
                rate_limits=(a_rate_limit(name=draw(TEXT), path=replace(match, kind=model.MatchKind.PREFIX), clients=(draw(TEXT), None)),),
                global_limits=model.GlobalRateLimits((a_rate_limit(name=draw(TEXT), clients=(draw(TEXT), None)),), a_rate_limit_service()),
            ),
        ),
        security=security(mtls=model.Mtls.STRICT, allow=(rule,), deny=(rule,)),
        observability=replace(
            base.observability, tracing=model.Tracing(Decimal("0.1"), draw(TEXT)), access_logs=model.AccessLogs(draw(TEXT))
        ),
        network=model.Network((model.NetworkRule((model.NetworkPeer(draw(LABELS), draw(LABELS), None),), ()),), (), draw(TEXT), draw(TEXT)),
    )


def strings(value: object) -> Iterator[str]:
    """Every string of a manifest, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)


def given_strings(policy: model.Policy) -> Iterator[str]:
    """Every string put into a policy by `policies` that must show up whole."""
    route, rule = policy.traffic.routes[0], policy.security.allow[0]
    assert rule.source
    assert rule.target
    assert policy.workload.owned
    yield from (route.name, route.matches[0].headers[0][0], *route.request_headers.set.values(), *route.request_headers.remove)
    yield from (*policy.traffic.hosts, policy.traffic.subsets[0].name, *rule.source.principals, *rule.target.paths, *rule.target.hosts)
    (limit,) = policy.traffic.proxy.rate_limits
    for counted in policy.traffic.proxy.global_limits.limits if policy.traffic.proxy.global_limits else ():
        yield from (counted.clients[0] or "", *([counted.name] if counted.name else []))
    yield from (limit.path.value if limit.path else "", limit.clients[0] or "", *([limit.name] if limit.name else []))
    observed = policy.observability
    yield from filter(None, (one.provider for one in (observed.tracing, observed.access_logs) if one is not None))
    yield from (policy.workload.owned.image, *policy.workload.owned.env.values(), policy.workload.container, *policy.workload.selector)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(policy=policies())
def test_no_string_moves_a_child_or_loses_a_character(policy: model.Policy) -> None:
    calm = render(a_full_policy(traffic=policy.traffic, security=policy.security, observability=policy.observability))
    manifests = render(policy).manifests
    assert [(m["apiVersion"], m["kind"], m["metadata"]["name"]) for m in manifests] == [
        (m["apiVersion"], m["kind"], m["metadata"]["name"]) for m in calm.manifests
    ]
    assert {m["metadata"]["namespace"] for m in manifests} == {NAMESPACE}
    assert set(given_strings(policy)) <= set(strings(list(manifests)))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(policy=policies())
def test_manifests_are_json_data(policy: model.Policy) -> None:
    manifests = list(render(policy).manifests)
    assert json.loads(json.dumps(manifests)) == manifests


@settings(max_examples=40, deadline=None)
@given(name=st.from_regex(r"[a-z]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True), namespace=st.from_regex(r"[a-z0-9]{1,20}", fullmatch=True))
def test_every_child_is_in_the_policys_namespace(name: str, namespace: str) -> None:
    assert {m["metadata"]["namespace"] for m in render(a_full_policy(name=name, namespace=namespace)).manifests} == {namespace}


def test_the_printed_stream_reads_back_as_the_manifests() -> None:
    policy = a_policy(traffic=traffic(routes=tuple(a_route(name=text) for text in HOSTILE if text.isprintable())))
    manifests = render(policy).manifests
    assert yaml_text.load_all(dump(manifests)) == list(manifests)
