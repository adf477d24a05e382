"""Traffic: wire form to model, with the checks that need the class, the Service or other fields. Pure."""

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
        load_balancer=_load_balancer(context, settings.load_balancer),
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


def _refuse_http(context: Resolution) -> None:
    for name in ("hosts", "routes", "timeout", "retries"):
        if context.by_policy(f"spec.traffic.{name}"):
            message = "the Service has no HTTP or gRPC port: name its port http or grpc, set appProtocol, or remove this field"
            context.report(f"spec.traffic.{name}", message)


def _load_balancer(context: Resolution, balancer: wire.LoadBalancer | None) -> model.LoadBalancer | None:
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
    return model.LoadBalancer(
        algorithm=algorithm,
        hash_header=used.name if used and used.type == "Header" else None,
        hash_cookie=used.name if used and used.type == "Cookie" else None,
        hash_source_ip=bool(used and used.type == "SourceIP"),
        warmup=parse_duration(balancer.warmup) if balancer.warmup and warms else None,
    )


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
