"""Who reaches the pods on layer 3 and 4: the author's rules, and always what the policy itself needs, or it would break what it protects.

Needed inwards: gateways to the application ports, Prometheus to the metrics ports, health checks to the sidecar's (from node addresses,
which no selector can name: admitted from anywhere; they serve health and merged metrics only). Kubernetes itself promises that a pod's own
node reaches it, which covers probes of pods without a sidecar. Needed outwards: DNS, istiod for certificates and configuration, and
the rate limit service where it counts.
"""

from collections.abc import Iterable
from typing import Final

from perfpolicy.policy.model import Network, NetworkPeer, NetworkPort, NetworkRule, Policy
from perfpolicy.render.manifest import Child, ChildKind
from perfpolicy.render.ports import application_ports, targets

ISTIOD_PORT: Final = 15012
"""Certificates and configuration over mTLS."""
HEALTH_PORTS: Final = (15020, 15021)
"""Rewritten application probes and merged metrics; the sidecar's own readiness."""
PROXY_METRICS_PORTS: Final = (15020, 15090)
"""Merged metrics; Envoy's own."""
DNS_PORT: Final = 53
DNS_NAMESPACE: Final = "kube-system"
NODE_LOCAL_DNS: Final = "169.254.20.10/32"
"""NodeLocal DNSCache listens on a link-local address, which no selector matches."""


def build(policy: Policy) -> tuple[Child, ...]:
    """One NetworkPolicy for the workload's pods where at least one direction is restricted."""
    network = policy.network
    if network is None or (network.ingress is None and network.egress is None):
        return ()
    ingress = None if network.ingress is None else (*network.ingress, *_needed_ingress(policy, network))
    egress = None if network.egress is None else (*network.egress, *_needed_egress(policy, network))
    values = {
        "selector": policy.workload.selector,
        "types": [name for name, rules in (("Ingress", ingress), ("Egress", egress)) if rules is not None],
        "ingress": ingress,
        "egress": egress,
    }
    return (Child(policy.key.name, values),)


def _needed_ingress(policy: Policy, network: Network) -> Iterable[NetworkRule]:
    gateways = dict.fromkeys((*(gateway.namespace for gateway in policy.traffic.gateways), network.gateway_namespace))
    ports = targets(application_ports(policy.service))
    if policy.traffic.hosts and policy.traffic.gateways and ports:
        yield NetworkRule(tuple(map(_namespace, gateways)), _tcp(*ports))
    own = policy.service.metrics_port if policy.observability.scrape else None
    metrics = (*((own,) if own else ()), *(PROXY_METRICS_PORTS if policy.in_mesh else ()))
    if metrics:
        yield NetworkRule((_namespace(network.metrics_namespace),), _tcp(*metrics))
    if policy.in_mesh:
        yield NetworkRule((), _tcp(*HEALTH_PORTS))


def _needed_egress(policy: Policy, network: Network) -> Iterable[NetworkRule]:
    dns = (_namespace(DNS_NAMESPACE), NetworkPeer(None, None, NODE_LOCAL_DNS))
    yield NetworkRule(dns, (NetworkPort(DNS_PORT, "UDP"), NetworkPort(DNS_PORT, "TCP")))
    if policy.in_mesh:
        yield NetworkRule((_namespace(network.mesh_namespace),), _tcp(ISTIOD_PORT))
    if counted := policy.traffic.proxy.global_limits:
        yield NetworkRule((_namespace(counted.service.namespace),), _tcp(counted.service.port))


def _namespace(name: str) -> NetworkPeer:
    """Every pod of one namespace."""
    return NetworkPeer(namespace_labels={"kubernetes.io/metadata.name": name}, pod_labels=None, cidr=None)


def _tcp(*ports: int) -> tuple[NetworkPort, ...]:
    return tuple(NetworkPort(port, "TCP") for port in ports)


KIND = ChildKind(
    group="networking.k8s.io",
    version="v1",
    kind="NetworkPolicy",
    plural="networkpolicies",
    template="network_policy.yaml.j2",
    build=build,
    asked="has(spec.network) && (has(spec.network.ingress) || has(spec.network.egress))",
    asked_by="spec.network",
)
