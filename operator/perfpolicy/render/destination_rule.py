"""What callers' proxies do towards the Service: subsets, TLS, balancing, pools, outlier detection.

With STRICT the rule says ISTIO_MUTUAL although auto-mTLS would find it out: the promise then stands in one place and a mesh without
auto-mTLS keeps it.
"""

from typing import Final

from perfpolicy.policy.model import Algorithm, Mtls, Policy
from perfpolicy.render.manifest import Child, ChildKind, used
from perfpolicy.render.ports import http_ports

_SIMPLE: Final = {
    Algorithm.ROUND_ROBIN: "ROUND_ROBIN",
    Algorithm.LEAST_REQUEST: "LEAST_REQUEST",
    Algorithm.RANDOM: "RANDOM",
    Algorithm.CONSISTENT_HASH: None,
}


def build(policy: Policy) -> tuple[Child, ...]:
    """One DestinationRule for the Service's FQDN where anything of it is asked for."""
    traffic = policy.traffic
    balancer, pool, breaker = traffic.load_balancer, traffic.connection_pool, traffic.circuit_breaker
    mutual = policy.in_mesh and policy.security.mtls is Mtls.STRICT
    if not (traffic.subsets or balancer or pool or breaker or mutual):
        return ()
    values = {
        "host": policy.service.fqdn,
        "tls": "ISTIO_MUTUAL" if mutual else None,
        "balancer": balancer,
        "simple": _SIMPLE[balancer.algorithm] if balancer else None,
        "pool": pool,
        "http": bool(http_ports(policy.service)),
        "breaker": breaker,
        "subsets": traffic.subsets,
    }
    return (Child(policy.key.name, values),)


KIND = ChildKind(
    group="networking.istio.io",
    version="v1",
    kind="DestinationRule",
    plural="destinationrules",
    template="destination_rule.yaml.j2",
    build=build,
    asked=(
        "(has(spec.traffic) && ((has(spec.traffic.subsets) && spec.traffic.subsets.size() > 0)"
        f" || {used('spec.traffic.loadBalancer')} || {used('spec.traffic.connectionPool')} || {used('spec.traffic.circuitBreaker')}))"
        " || (has(spec.security) && has(spec.security.mtls) && spec.security.mtls == 'Strict')"
    ),
    asked_by="spec.traffic.subsets, loadBalancer, connectionPool or circuitBreaker, or spec.security.mtls: Strict",
)
