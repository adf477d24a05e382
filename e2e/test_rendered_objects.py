"""What render makes is what the real API server, Istio's schemas and its webhook accept: every field of every kind, in a dry run."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from subprocess import run
from typing import Any

import pytest

from e2e.conftest import Kubectl
from lab.components import binary
from perfpolicy.policy import model
from perfpolicy.render import EVERYTHING, GroupKind, dump, render
from tests import builders as a
from tests.examples import policies

TCP = model.Protocol.TCP
EXACT = model.StringMatch(model.MatchKind.EXACT, "GET")
REGEX = model.StringMatch(model.MatchKind.REGEX, "/a.*")


def every_route_field(namespace: str) -> model.Policy:
    """Each thing a route can say, in routes that all can be reached."""
    match = model.RouteMatch(REGEX, EXACT, (("x-user", EXACT),), (("q", EXACT),))
    headers = model.HeaderEdits({"x-set": "1"}, {"x-add": "on"}, ("x-remove",))
    policy = a.a_full_policy(namespace=namespace)
    rich = a.a_route(
        name="rich",
        matches=(match,),
        rewrite_prefix="/",
        timeout=timedelta(milliseconds=1),
        retries=model.Retries(0, timedelta(0), ()),
        fault=model.Fault(timedelta(milliseconds=1), Decimal("0.000001"), 503, Decimal(1)),
        mirror=model.Mirror(policy.service.fqdn, "canary", Decimal("0.5")),
        request_headers=headers,
        response_headers=headers,
        cors=model.Cors((REGEX,), ("GET",), ("x-a",), ("x-b",), timedelta(hours=24), True),
    )
    redirect = a.a_route(name="redirect", matches=(a.a_match(),), redirect=model.Redirect("/new", "example.com", 308))
    unlimited = a.a_route(name="rest", timeout=timedelta(0))
    ports = (
        a.a_port(),
        a.a_port("http-metrics", 9090, 9090),
        a.a_port("grpc", 81, 81, model.Protocol.GRPC),
        a.a_port("db", 5432, 5432, TCP),
    )
    return replace(
        policy,
        service=replace(policy.service, ports=ports),
        traffic=replace(policy.traffic, routes=(rich, redirect, unlimited)),
    )


def every_pool_field(namespace: str) -> model.Policy:
    """A full connection pool and outlier detection."""
    pool = a.a_connection_pool(connect_timeout=timedelta(seconds=3), max_pending_requests=1, max_requests=2, max_requests_per_connection=3)
    breaker = a.a_circuit_breaker(min_health_percent=10)
    return a.a_policy(namespace=namespace, traffic=a.traffic(connection_pool=pool, circuit_breaker=breaker))


def by_locality(namespace: str) -> model.Policy:
    """Shares by locality; failover is in the full policy."""
    distribute = {"eu/one/*": {"eu/one/*": 80, "eu/two": 20}, "us": {"*": 100}}
    balancer = a.a_load_balancer(locality=model.LocalityBalancing(enabled=True, failover={}, distribute=distribute))
    return a.a_policy(namespace=namespace, traffic=a.traffic(load_balancer=balancer))


def hashing(**key: object) -> Callable[[str], model.Policy]:
    """Consistent hashing by one key."""
    balancer = a.a_load_balancer(algorithm=model.Algorithm.CONSISTENT_HASH, **key)
    return lambda namespace: a.a_policy(namespace=namespace, traffic=a.traffic(load_balancer=balancer))


def a_tcp_service(namespace: str) -> model.Policy:
    """Nothing but TCP, closed to everybody."""
    return a.a_policy(
        namespace=namespace,
        service=a.a_service(owned=True, ports=(a.a_port("postgres", 5432, 5432, TCP),)),
        traffic=a.traffic(connection_pool=a.a_connection_pool()),
        security=a.security(default_deny=True, mtls=model.Mtls.STRICT),
        network=a.network(),
    )


def told_nothing(namespace: str) -> model.Policy:
    """Traces and access logs turned off; what they say when they are on is in the full policy."""
    return a.a_policy(
        namespace=namespace,
        observability=a.observability(tracing=model.Tracing(None), access_logs=model.AccessLogs("envoy", enabled=False)),
    )


def everything_open(namespace: str) -> model.Policy:
    """The empty forms that mean "everything"."""
    peers = (
        a.a_peer(),
        a.a_peer(namespace_labels={}, pod_labels=None),
        a.a_peer(pod_labels=None, cidr="0.0.0.0/0", cidr_except=("10.0.0.0/8",)),
    )
    rules = (model.NetworkRule((), ()), model.NetworkRule(peers, (model.NetworkPort("http", "TCP"),)))
    return a.a_policy(
        namespace=namespace,
        observability=a.observability(scrape=None),
        security=a.security(mtls=model.Mtls.PERMISSIVE, default_deny=True, deny=(model.AccessRule(None, None),)),
        network=a.network(ingress=rules, egress=()),
    )


VARIANTS: dict[str, Callable[[str], model.Policy]] = {
    "full": lambda namespace: a.a_full_policy(namespace=namespace),
    "routes": every_route_field,
    "pool": every_pool_field,
    "locality": by_locality,
    "hash-header": hashing(hash_header="x-user"),
    "hash-cookie": hashing(hash_cookie="session"),
    "hash-source": hashing(hash_source_ip=True),
    "tcp": a_tcp_service,
    "open": everything_open,
    "told nothing": told_nothing,
}


def stream(policy: model.Policy) -> str:
    """All children, with the ConfigMap that stands in for the PrometheusRule too."""
    with_crd, without = render(policy), render(policy, EVERYTHING - {GroupKind("monitoring.coreos.com", "PrometheusRule")})
    fallback = [manifest for manifest in without.manifests if manifest not in with_crd.manifests]
    assert [manifest["kind"] for manifest in fallback] == ["ConfigMap"]
    return dump((*with_crd.manifests, *fallback))


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_api_server_takes_every_field(variant: str, kubectl: Kubectl, namespace: str) -> None:
    done = kubectl.run(
        "apply", "--server-side", "--dry-run=server", "--field-manager=perfpolicy", "-f", "-", stdin=stream(VARIANTS[variant](namespace))
    )
    assert done.returncode == 0, done.stderr
    assert "unknown field" not in done.stderr


def said(rendered: Any, live: Any, path: str = "") -> list[str]:
    """Where a live object does not say what was rendered; what it says beyond that is others' business."""
    if isinstance(rendered, dict) and isinstance(live, dict):
        return [line for key, value in rendered.items() for line in said(value, live.get(key), f"{path}.{key}")]
    if isinstance(rendered, list) and isinstance(live, list) and len(rendered) == len(live):
        return [line for n, pair in enumerate(zip(rendered, live, strict=True)) for line in said(*pair, f"{path}[{n}]")]
    return [] if rendered == live else [f"{path}: rendered {rendered!r}, stored {live!r}"]


def ours(live: dict[str, Any]) -> dict[str, Any]:
    """A live object without what controllers write at any moment: its status (istiod's analysis, a Deployment's progress), a Deployment's
    revision, and the version and field owners that come of it.
    """
    metadata = {key: value for key, value in live["metadata"].items() if key not in ("resourceVersion", "annotations")}
    annotations = live["metadata"].get("annotations", {})
    metadata["annotations"] = {key: value for key, value in annotations.items() if key != "deployment.kubernetes.io/revision"}
    metadata["managedFields"] = [entry for entry in metadata["managedFields"] if entry["manager"] == "perfpolicy"]
    return {**{key: value for key, value in live.items() if key != "status"}, "metadata": metadata}


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_is_stored_is_what_was_rendered_so_nothing_reads_as_drift(variant: str, kubectl: Kubectl, namespace: str) -> None:
    policy = VARIANTS[variant](namespace)
    owned = policy.workload.owned and replace(policy.workload.owned, replicas=0)
    # Offline: an owner that does not exist would have the garbage collector remove the objects.
    policy = replace(policy, identity=replace(policy.identity, uid=""), workload=replace(policy.workload, owned=owned))
    manifests = render(policy).manifests
    apply = ("apply", "--server-side", "--field-manager=perfpolicy", "-f", "-", "-o", "json", "--show-managed-fields")
    first, second = (json.loads(kubectl(*apply, stdin=dump(manifests))) for _ in range(2))
    stored = first["items"] if first["kind"] == "List" else [first]
    again = second["items"] if second["kind"] == "List" else [second]
    assert [line for pair in zip(manifests, stored, strict=True) for line in said(*pair)] == []
    assert [ours(item) for item in stored] == [ours(item) for item in again]


@pytest.mark.parametrize("example", ["ce-hub", "runeframe"])
def test_istio_has_nothing_to_say_about_the_examples(example: str, kubectl: Kubectl, tmp_path: Path) -> None:
    file = tmp_path / "children.yaml"
    documents = [manifest for policy in policies(example) for manifest in render(policy).manifests]
    file.write_text(dump(documents))
    others = sorted(str(path) for path in (Path(__file__).parents[1] / "examples" / example).glob("*.yaml"))
    done = run(
        [binary("istioctl"), "analyze", "--use-kube=false", str(file), *others],
        env={**os.environ, **kubectl.environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No validation issues found" in done.stdout + done.stderr
