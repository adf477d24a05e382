"""Which ports of a workload carry the application and which its metrics. Pure.

The distinction decides what security opens: the metrics port may take plaintext from Prometheus, an application port never.
"""

from perfpolicy.policy.model import Policy, Port, Protocol, Service


def application_ports(service: Service) -> tuple[Port, ...]:
    """The Service's ports except the one that leads to a separate metrics endpoint."""
    others = tuple(port for port in service.ports if port.target != service.metrics_port)
    return others or service.ports


def open_metrics_port(policy: Policy) -> int | None:
    """Container port to open for Prometheus, or None.

    None where nothing is to be scraped, and where the endpoint shares the application's port: opening that one would open the application,
    and Istio's merged endpoint (15020) serves those metrics instead.
    """
    port = policy.service.metrics_port
    if policy.observability.scrape is None or port is None:
        return None
    return None if any(port == other.target for other in application_ports(policy.service)) else port


def http_ports(service: Service) -> tuple[Port, ...]:
    """Application ports that speak HTTP or gRPC: where routes, methods, paths and hosts mean something."""
    return tuple(port for port in application_ports(service) if port.protocol is not Protocol.TCP)


def targets(ports: tuple[Port, ...]) -> tuple[int, ...]:
    """Container ports, each once, in order."""
    return tuple(dict.fromkeys(port.target for port in ports))
