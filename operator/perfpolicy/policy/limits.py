"""What the workload's own proxies are to do: wire form to model, and when they cannot. Pure."""

from datetime import timedelta
from typing import Final

from perfpolicy.api import limits as wire
from perfpolicy.api.traffic import Traffic
from perfpolicy.policy import model
from perfpolicy.policy.layers import WHEN_USED
from perfpolicy.policy.re2 import is_re2
from perfpolicy.policy.resolution import Resolution, filled
from perfpolicy.policy.routes import path_match
from perfpolicy.units import parse_duration
from perfpolicy.vocabulary import Reason

_PER: Final = str(WHEN_USED[wire.LocalRateLimit]["per"])
_PORT: Final = 8081
_TIMEOUT: Final = "100ms"


def resolve_proxy(context: Resolution, settings: Traffic, service: model.Service, *, in_mesh: bool) -> model.Proxy:
    """What the pods' proxies do to requests; nothing where they cannot, which is reported where the policy itself asked for it."""
    headers, compression = settings.response_headers, settings.compression
    blocks: dict[str, wire.Offer | None] = {
        "rateLimit": settings.rate_limit,
        "concurrency": settings.concurrency,
        "responseHeaders": headers,
        "compression": compression,
    }
    used = [name for name, block in blocks.items() if block is not None and block.enabled]
    for name in blocks:
        if context.layered.at(f"spec.traffic.{name}.mode") == "Offered" and context.by_policy(f"spec.traffic.{name}"):
            context.report(f"spec.traffic.{name}.mode", "Offered is for classes: in a policy leave mode out, or set Disabled")
    if problem := _without_proxy(context, service, in_mesh=in_mesh):
        for name in used:
            if context.by_policy(f"spec.traffic.{name}"):
                context.report(f"spec.traffic.{name}", *problem)
        return model.Proxy()
    for name in used:
        _check_permitted(context, f"spec.traffic.{name}")
    limits = settings.rate_limit if settings.rate_limit and settings.rate_limit.enabled else None
    if limits is not None:
        _check_rate_limit(context, limits)
    return model.Proxy(
        rate_limits=_limits(context, "local", limits.local) if limits else (),
        global_limits=_global_limits(context, limits.global_) if limits else None,
        concurrency=_concurrency(context, settings.concurrency),
        response_headers=_response_headers(context, headers) if headers and headers.enabled else None,
        compress_from=filled(compression.min_bytes) if compression and compression.enabled else None,
    )


def _without_proxy(context: Resolution, service: model.Service, *, in_mesh: bool) -> tuple[str, Reason] | None:
    if not service.speaks_http:
        message = "the Service has no HTTP or gRPC port: name its port http or grpc, set appProtocol, or remove this field"
        return message, Reason.INVALID
    if not in_mesh:
        message = f"the pods have no sidecar that could do this: label the namespace {context.namespace} istio-injection=enabled"
        return message, Reason.TARGET_UNSUPPORTED
    return None


def _check_permitted(context: Resolution, path: str) -> None:
    """Both are about EnvoyFilter, the one kind by which Istio lets its proxies be told anything at all."""
    name = context.cls.metadata.name
    if not context.granted.envoy_filters:
        context.report(path, f"class {name} does not grant namespace {context.namespace} envoyFilters", Reason.NOT_GRANTED)
    if context.in_root_namespace:
        message = f"{context.namespace} is the mesh's root namespace: an EnvoyFilter there would change proxies of every namespace"
        context.report(path, message, Reason.TARGET_UNSUPPORTED)


def _check_rate_limit(context: Resolution, settings: wire.RateLimit) -> None:
    """One limit at least, and a service for those that are counted for all pods."""
    path = "spec.traffic.rateLimit"
    blocks = {"local": settings.local, "global": settings.global_}
    used = {name: block for name, block in blocks.items() if block is not None and block.enabled}
    for name, block in used.items():
        if block.requests is None and not block.routes:
            context.report(f"{path}.{name}.requests", f"required: how many requests are let through; or {name}.mode: Disabled")
        elif block.requests is None and block.by and context.by_policy(f"{path}.{name}.by"):
            context.report(f"{path}.{name}.by", "only with requests: routes have their own")
    if not used:
        context.report(f"{path}.local.requests", "required: how many requests are let through; or rateLimit.mode: Disabled")
    if "global" in used and context.cls.spec.rate_limit_service is None:
        name = context.cls.metadata.name
        context.report(f"{path}.global", f"class {name} names no rateLimitService to count with", Reason.NOT_GRANTED)


def _limits(context: Resolution, name: str, settings: wire.LocalRateLimit | wire.GlobalRateLimit | None) -> tuple[model.RateLimit, ...]:
    """The limits of spec.traffic.rateLimit.`name`, that of all requests first."""
    if settings is None or not settings.enabled:
        return ()
    limits = []
    if settings.requests is not None:
        limits.append(model.RateLimit("", None, None, settings.requests, parse_duration(filled(settings.per)), _clients(settings.by)))
    for index, route in enumerate(settings.routes or ()):
        if route.path and route.path.type == "Regex" and not is_re2(route.path.value):
            message = f"{route.path.value!r} is not a regular expression RE2 reads (no look-around, no back references)"
            context.report(f"spec.traffic.rateLimit.{name}.routes[{index}].path.value", message)
        matched = path_match(route.path) if route.path else None
        limits.append(
            model.RateLimit(route.name, matched, route.method, route.requests, parse_duration(route.per or _PER), _clients(route.by))
        )
    return tuple(limits)


def _global_limits(context: Resolution, settings: wire.GlobalRateLimit | None) -> model.GlobalRateLimits | None:
    limits, service = _limits(context, "global", settings), context.cls.spec.rate_limit_service
    if not limits or service is None:
        return None
    counting = model.RateLimitService(
        namespace=service.namespace,
        host=context.fqdn(service.name, service.namespace),
        port=service.port or _PORT,
        closed=service.failure_mode == "Closed",
        timeout=parse_duration(service.timeout or _TIMEOUT),
    )
    return model.GlobalRateLimits(limits, counting)


def _clients(keys: list[wire.ClientKey] | None) -> tuple[str | None, ...]:
    return tuple(key.name for key in keys or ())


def _concurrency(context: Resolution, settings: wire.Concurrency | None) -> model.Concurrency | None:
    if settings is None or not settings.enabled:
        return None
    if settings.max is None:
        context.report("spec.traffic.concurrency.max", "required: how many requests a pod takes at once; or mode: Disabled")
        return None
    return model.Concurrency(settings.max, adaptive=settings.mode == "Adaptive")


def _response_headers(context: Resolution, settings: wire.ResponseHeaders) -> model.ResponseHeaders | None:
    headers = model.ResponseHeaders(
        request_id=settings.request_id == "Enabled",
        response_time=settings.response_time == "Enabled",
        security=settings.security == "Enabled",
        hsts=timedelta(days=settings.hsts_days) if settings.hsts_days else None,
    )
    if headers == model.ResponseHeaders(False, False, False, None):
        context.report("spec.traffic.responseHeaders", "leave one header Enabled, or set mode: Disabled")
    return headers
