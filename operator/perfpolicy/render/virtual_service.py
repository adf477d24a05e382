"""Routes: `<name>` for callers inside the mesh, by the Service's own FQDN; `<name>-gateway` for the external hosts the class granted.

Two objects because they are seen by different proxies: the mesh one is exported to every namespace, the gateway one only to its own and the
gateways' namespaces, so that an external host never changes what sidecars elsewhere do. A timeout of zero is left out: no limit is Istio's
default, and its schema refuses `0s`.

Ports: a destination without a port is ambiguous once a Service has several (istioctl analyze IST0112). In the mesh each application port
keeps to itself and the metrics port is passed on untouched; behind a gateway, whose own port says nothing about ours, the first application
port serves.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from perfpolicy.policy.model import Destination, HeaderEdits, Policy, Protocol, Route, Service
from perfpolicy.render.manifest import Child, ChildKind
from perfpolicy.render.ports import http_ports

GATEWAY_SUFFIX = "-gateway"


@dataclass(frozen=True, slots=True)
class _Entry:
    """One entry of `http`: a route, the port it sends to, and the port it is limited to. None: not said."""

    route: Route
    port: int | None
    only_on: int | None = None


def build(policy: Policy) -> tuple[Child, ...]:
    """The mesh VirtualService where there are routes, and the gateway one where there are hosts and gateways too. TCP has no routes."""
    traffic, service = policy.traffic, policy.service
    ports = http_ports(service)
    if not traffic.routes or not ports:
        return ()
    routes = tuple(map(_normal, traffic.routes))
    mesh = {"hosts": (service.fqdn,), "gateways": None, "export_to": ("*",), "entries": tuple(_mesh_entries(routes, service))}
    children = [Child(policy.key.name, {"service": service.fqdn, **mesh})]
    if traffic.hosts and traffic.gateways:
        namespaces = dict.fromkeys(gateway.namespace for gateway in traffic.gateways if gateway.namespace != policy.key.namespace)
        gateway = {
            "hosts": traffic.hosts,
            "gateways": [f"{gateway.namespace}/{gateway.name}" for gateway in traffic.gateways],
            "export_to": (".", *namespaces),
            "entries": [_Entry(route, ports[0].number) for route in routes],
        }
        children.append(Child(policy.key.name + GATEWAY_SUFFIX, {"service": service.fqdn, **gateway}))
    return tuple(children)


def _mesh_entries(routes: tuple[Route, ...], service: Service) -> Iterable[_Entry]:
    """Every route for every application port, then the ports that carry HTTP but not the application."""
    routed = http_ports(service)
    others = [port for port in service.ports if port.protocol is not Protocol.TCP and port not in routed]
    alone = len(routed) + len(others) == 1
    for port in routed:
        for route in routes:
            named = route if len(routed) == 1 else replace(route, name=f"{route.name}-{port.name}")
            yield _Entry(named, port.number if len(service.ports) > 1 else None, None if alone else port.number)
    for port in others:
        yield _Entry(_untouched(port.name), port.number, port.number)


def _normal(route: Route) -> Route:
    """A match without conditions matches everything, and so do its alternatives then: Istio wants no match at all."""
    unconditional = any(not (match.path or match.method or match.headers or match.query) for match in route.matches)
    return replace(route, matches=()) if unconditional else route


def _untouched(name: str) -> Route:
    """A route that only passes on."""
    return Route(
        name=name,
        matches=(),
        rewrite_prefix=None,
        redirect=None,
        timeout=None,
        retries=None,
        fault=None,
        mirror=None,
        request_headers=HeaderEdits(),
        response_headers=HeaderEdits(),
        cors=None,
        destinations=(Destination(None, 100),),
    )


KIND = ChildKind(
    group="networking.istio.io",
    version="v1",
    kind="VirtualService",
    plural="virtualservices",
    template="virtual_service.yaml.j2",
    build=build,
    asked=(
        "has(spec.traffic) && ((has(spec.traffic.routes) && spec.traffic.routes.size() > 0)"
        " || (has(spec.traffic.hosts) && spec.traffic.hosts.size() > 0) || has(spec.traffic.timeout) || has(spec.traffic.retries))"
    ),
    asked_by="spec.traffic.routes, hosts, timeout or retries",
    suffixes=("", GATEWAY_SUFFIX),
)
