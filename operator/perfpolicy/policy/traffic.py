"""Traffic: wire form to model, with the checks that need the class, the Service or other fields. Pure."""

from typing import Final

from perfpolicy.api import traffic as wire
from perfpolicy.policy import model
from perfpolicy.policy.limits import resolve_proxy
from perfpolicy.policy.resolution import Resolution, filled
from perfpolicy.policy.routes import resolve_routes
from perfpolicy.units import parse_duration
from perfpolicy.vocabulary import Reason


def resolve_traffic(context: Resolution, service: model.Service, *, in_mesh: bool) -> model.Traffic:
    """Routing and resilience of the requests to `service`. On a TCP service the class's HTTP settings are left out.

    `in_mesh`: the pods have sidecars.
    """
    settings = context.settings.traffic or wire.Traffic()
    hosts, gateways = _exposure(context, settings)
    subsets = tuple(model.Subset(subset.name, dict(subset.labels)) for subset in settings.subsets or ())
    routes = resolve_routes(context, settings, service) if service.speaks_http else ()
    if not service.speaks_http:
        _refuse_http(context)
    return model.Traffic(
        hosts=hosts,
        gateways=gateways,
        routes=routes,
        subsets=subsets,
        load_balancer=_load_balancer(context, settings, service),
        connection_pool=_connection_pool(context, settings.connection_pool),
        circuit_breaker=_circuit_breaker(settings.circuit_breaker),
        proxy=resolve_proxy(context, settings, service, in_mesh=in_mesh),
    )


def _exposure(context: Resolution, settings: wire.Traffic) -> tuple[tuple[str, ...], tuple[model.GatewayRef, ...]]:
    """Hosts and gateways, which go together; a class's gateways wait for a policy's hosts."""
    name = context.cls.metadata.name
    for index, host in enumerate(settings.hosts or ()):
        if not context.granted.host(host):
            allowed = ", ".join(context.granted.hosts) or "no host"
            message = f"class {name} does not grant host {host} to namespace {context.namespace}; it grants {allowed}"
            context.report(f"spec.traffic.hosts[{index}]", message, Reason.NOT_GRANTED)
    for index, ref in enumerate(settings.gateways or ()):
        if not context.granted.gateway(ref.namespace, ref.name):
            allowed = ", ".join(context.granted.gateways) or "no gateway"
            message = (
                f"class {name} does not grant gateway {ref.namespace}/{ref.name} to namespace {context.namespace}; it grants {allowed}"
            )
            context.report(f"spec.traffic.gateways[{index}]", message, Reason.NOT_GRANTED)
    if settings.hosts and not settings.gateways:
        context.report("spec.traffic.gateways", "hosts need a gateway: name at least one the class grants")
    if settings.gateways and not settings.hosts:
        if context.by_policy("spec.traffic.gateways"):
            context.report("spec.traffic.hosts", "gateways need a host: name at least one the class grants")
        return (), ()
    return tuple(settings.hosts or ()), tuple(model.GatewayRef(ref.namespace, ref.name) for ref in settings.gateways or ())


_OF_REQUESTS: Final = (
    "hosts", "routes", "timeout", "retries",
    "connectionPool.maxPendingRequests", "connectionPool.maxRequests", "connectionPool.maxRequestsPerConnection",
)  # fmt: skip
"""What means nothing where only connections are seen."""


def _refuse_http(context: Resolution) -> None:
    for name in _OF_REQUESTS:
        if context.by_policy(f"spec.traffic.{name}"):
            message = "the Service has no HTTP or gRPC port: name its port http or grpc, set appProtocol, or remove this field"
            context.report(f"spec.traffic.{name}", message)


def _load_balancer(context: Resolution, settings: wire.Traffic, service: model.Service) -> model.LoadBalancer | None:
    balancer = settings.load_balancer
    if balancer is None or not balancer.enabled:
        return None
    path, algorithm, hashed = "spec.traffic.loadBalancer", model.Algorithm(filled(balancer.algorithm)), balancer.consistent_hash
    hashing = algorithm is model.Algorithm.CONSISTENT_HASH
    if hashing and hashed is None:
        context.report(f"{path}.consistentHash", "required for algorithm: ConsistentHash")
    if hashed and not hashing and context.by_policy(f"{path}.consistentHash"):
        context.report(f"{path}.consistentHash", f"only for algorithm: ConsistentHash, not {algorithm}")
    warms = algorithm in (model.Algorithm.ROUND_ROBIN, model.Algorithm.LEAST_REQUEST)
    if balancer.warmup and not warms and context.by_policy(f"{path}.warmup"):
        context.report(f"{path}.warmup", f"only for algorithm: RoundRobin and LeastRequest, not {algorithm}")
    used = hashed if hashing else None
    if used and used.type != "SourceIP" and not service.speaks_http:
        if context.by_policy(f"{path}.consistentHash"):
            context.report(
                f"{path}.consistentHash.type", f"the Service has no HTTP or gRPC port, so nothing has a {used.type}: use SourceIP"
            )
        return None
    return model.LoadBalancer(
        algorithm=algorithm,
        hash_header=used.name if used and used.type == "Header" else None,
        hash_cookie=used.name if used and used.type == "Cookie" else None,
        hash_source_ip=bool(used and used.type == "SourceIP"),
        warmup=parse_duration(balancer.warmup) if balancer.warmup and warms else None,
        locality=_locality(context, balancer.locality, breaker=settings.circuit_breaker),
    )


def _locality(
    context: Resolution, locality: wire.LocalityBalancing | None, *, breaker: wire.CircuitBreaker | None
) -> model.LocalityBalancing | None:
    if locality is None:
        return None
    path = "spec.traffic.loadBalancer.locality"
    if locality.enabled and not locality.distribute and not (breaker and breaker.enabled):
        # Istio leaves failover out then: nobody would notice that the preferred pods fail.
        if context.by_policy(path):
            context.report(path, "needs spec.traffic.circuitBreaker, which finds out that pods fail; only distribute does without")
        return None
    failover, distribute = locality.failover or [], locality.distribute or []
    _check_apart(context, f"{path}.failover", [rule.from_ for rule in failover], "from")
    _check_apart(context, f"{path}.distribute", [rule.from_ for rule in distribute], "from")
    for index, rule in enumerate(distribute):
        _check_apart(context, f"{path}.distribute[{index}].to", [share.locality for share in rule.to], "locality")
    return model.LocalityBalancing(
        enabled=locality.enabled,
        failover={rule.from_: rule.to for rule in failover},
        distribute={rule.from_: {share.locality: share.weight for share in rule.to} for rule in distribute},
    )


def _check_apart(context: Resolution, path: str, localities: list[str], name: str) -> None:
    """Reports localities of which one contains another: which of the two counts would depend on their order."""
    for index, text in enumerate(localities):
        for other in localities[:index]:
            if _contains(text, other) or _contains(other, text):
                context.report(f"{path}[{index}].{name}", f"{text} overlaps {other}: each place may be named once")


def _contains(outer: str, inner: str) -> bool:
    area = outer.removesuffix("*").removesuffix("/")
    return not area or f"{inner}/".startswith(f"{area}/")


def _connection_pool(context: Resolution, pool: wire.ConnectionPool | None) -> model.ConnectionPool | None:
    if pool is None or not pool.enabled:
        return None
    if not pool.model_dump(exclude_none=True, exclude={"mode"}):
        context.report("spec.traffic.connectionPool", "set a limit, or mode: Disabled")
    return model.ConnectionPool(
        max_connections=pool.max_connections,
        connect_timeout=parse_duration(pool.connect_timeout) if pool.connect_timeout else None,
        idle_timeout=parse_duration(pool.idle_timeout) if pool.idle_timeout else None,
        max_connection_duration=parse_duration(pool.max_connection_duration) if pool.max_connection_duration else None,
        max_pending_requests=pool.max_pending_requests,
        max_requests=pool.max_requests,
        max_requests_per_connection=pool.max_requests_per_connection,
    )


def _circuit_breaker(breaker: wire.CircuitBreaker | None) -> model.CircuitBreaker | None:
    if breaker is None or not breaker.enabled:
        return None
    return model.CircuitBreaker(
        consecutive_errors=filled(breaker.consecutive_errors),
        interval=parse_duration(filled(breaker.interval)),
        base_ejection=parse_duration(filled(breaker.base_ejection)),
        max_ejected_percent=int(filled(breaker.max_ejected)[:-1]),
        min_health_percent=int(filled(breaker.min_health)[:-1]),
    )
