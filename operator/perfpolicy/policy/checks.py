"""Rules that need more than one field and the class: who may use the class, and the limits no policy may pass. Pure."""

from datetime import timedelta
from typing import Final

from perfpolicy.api.performance_class import Limits, RequestRate
from perfpolicy.api.routes import Retries
from perfpolicy.api.traffic import Traffic
from perfpolicy.policy.classes import admits
from perfpolicy.policy.layers import WHEN_USED
from perfpolicy.policy.model import Service
from perfpolicy.policy.resolution import Resolution, filled
from perfpolicy.units import parse_duration, parse_percent
from perfpolicy.vocabulary import Reason

ISTIO_RETRIES: Final = 2
"""What Istio does where nobody says anything about retries."""
_STRENGTH: Final = {"Disabled": 0, "Permissive": 1, "Strict": 2}


def check_class_permitted(context: Resolution) -> None:
    """The class must admit the policy's namespace."""
    allowed = context.cls.spec.allowed_namespaces
    if allowed is not None and not admits(allowed, context.namespace, context.facts.namespace_labels):
        wanted = [*(allowed.names or ())]
        if allowed.selector is not None:
            wanted.append("those labelled " + ",".join(f"{key}={value}" for key, value in sorted(allowed.selector.match_labels.items())))
        message = (
            f"class {context.cls.metadata.name} does not admit namespace {context.namespace}; its spec.allowedNamespaces are "
            f"{', '.join(wanted) or 'none'}"
        )
        context.report("spec.className", message, Reason.CLASS_NOT_PERMITTED)


def check_limits(context: Resolution, service: Service | None) -> None:
    """No setting may pass the class's limits. `service` None: it could not be had, and is taken to speak HTTP."""
    limits = context.cls.spec.limits
    if limits is None:
        return
    _check_security(context, limits)
    _check_traffic(context, limits, speaks_http=service is None or service.speaks_http)
    deployment = context.policy.spec.workload.deployment
    if limits.max_replicas is not None and deployment and deployment.replicas > limits.max_replicas:
        _passed(context, "spec.workload.deployment.replicas", "maxReplicas", f"at most {limits.max_replicas}")
    tracing = context.settings.observability.tracing if context.settings.observability else None
    if limits.max_sampling is not None and tracing and tracing.enabled:
        sampling = filled(tracing.sampling)
        if parse_percent(sampling) > parse_percent(limits.max_sampling):
            _passed(context, "spec.observability.tracing.sampling", "maxSampling", f"at most {limits.max_sampling}, not {sampling}")
    scaling = context.settings.scaling
    most = scaling.max_replicas if scaling and scaling.enabled else None
    if limits.max_replicas is not None and most is not None and most > limits.max_replicas:
        _passed(context, "spec.scaling.maxReplicas", "maxReplicas", f"at most {limits.max_replicas}, not {most}")


def _passed(context: Resolution, path: str, limit: str, allowed: str) -> None:
    context.report(path, f"class {context.cls.metadata.name} allows {allowed} (its spec.limits.{limit})")


def _check_security(context: Resolution, limits: Limits) -> None:
    security, network = context.settings.security, context.settings.network
    mtls = (security.mtls if security else None) or "Inherit"
    if limits.min_mtls is not None and _STRENGTH.get(mtls, -1) < _STRENGTH[limits.min_mtls]:
        allowed = " or ".join(mode for mode, strength in _STRENGTH.items() if strength >= _STRENGTH[limits.min_mtls])
        _passed(context, "spec.security.mtls", "minMtls", f"{allowed}, not {mtls}")
    if limits.default_deny == "Required" and not (security and security.default_deny == "Enabled"):
        _passed(context, "spec.security.defaultDeny", "defaultDeny", "only Enabled")
    if limits.network == "Required" and not (network and network.enabled and network.ingress is not None):
        _passed(context, "spec.network.ingress", "network", "only policies that list who may connect")
    if limits.network == "Required":
        for index, rule in enumerate((network.ingress if network else None) or ()):
            everybody = rule.from_namespaces == {} and not rule.from_pods
            if everybody or any(block.cidr.endswith("/0") for block in rule.from_cidrs or ()):
                _passed(context, f"spec.network.ingress[{index}]", "network", "only rules that do not admit everybody")


def _check_traffic(context: Resolution, limits: Limits, *, speaks_http: bool) -> None:
    traffic = context.settings.traffic or Traffic()
    if limits.max_timeout is not None and speaks_http:
        _check_timeouts(context, traffic, limits.max_timeout)
    if limits.max_retry_attempts is not None and speaks_http:
        _check_retries(context, traffic, limits.max_retry_attempts)
    if limits.max_connections is not None:
        pool = traffic.connection_pool
        connections = pool.max_connections if pool and pool.enabled else None
        if connections is None or connections > limits.max_connections:
            path = "spec.traffic.connectionPool.maxConnections"
            _passed(context, path, "maxConnections", f"at most {limits.max_connections}, not {connections or 'no limit'}")
    if limits.max_request_rate is not None and speaks_http:
        _check_request_rate(context, traffic, limits.max_request_rate)
    if limits.max_concurrency is not None and speaks_http:
        capped = traffic.concurrency.max if traffic.concurrency and traffic.concurrency.enabled else None
        if capped is None or capped > limits.max_concurrency:
            allowed = f"at most {limits.max_concurrency}, not {capped or 'no limit'}"
            _passed(context, "spec.traffic.concurrency.max", "maxConcurrency", allowed)
    if limits.max_fault is not None:
        _check_faults(context, traffic, limits.max_fault)
    for index, route in enumerate(traffic.routes or ()):
        delay = route.fault.delay if route.fault else None
        if limits.max_timeout is not None and delay and parse_duration(delay.duration) > parse_duration(limits.max_timeout):
            path = f"spec.traffic.routes[{index}].fault.delay.duration"
            _passed(context, path, "maxTimeout", f"at most {limits.max_timeout}, not {delay.duration}")


def _check_timeouts(context: Resolution, traffic: Traffic, longest: str) -> None:
    """No timeout, or 0s, is the longest of all."""
    timeouts = {"spec.traffic.timeout": traffic.timeout}
    timeouts |= {f"spec.traffic.routes[{i}].timeout": route.timeout for i, route in enumerate(traffic.routes or ()) if route.timeout}
    for path, timeout in timeouts.items():
        if not timeout or not timedelta(0) < parse_duration(timeout) <= parse_duration(longest):
            _passed(context, path, "maxTimeout", f"at most {longest}, not {timeout or 'none'}")


def _check_retries(context: Resolution, traffic: Traffic, most: int) -> None:
    base = traffic.retries
    general = ISTIO_RETRIES if base is None else _attempts(base, None)
    if general > most:
        said = f"the mesh's default of {general}: set retries" if base is None else str(general)
        _passed(context, "spec.traffic.retries.attempts", "maxRetryAttempts", f"at most {most}, not {said}")
    for index, route in enumerate(traffic.routes or ()):
        if route.retries is not None and (attempts := _attempts(route.retries, base)) > most:
            path = f"spec.traffic.routes[{index}].retries.attempts"
            _passed(context, path, "maxRetryAttempts", f"at most {most}, not {attempts}")


def _check_request_rate(context: Resolution, traffic: Traffic, most: RequestRate) -> None:
    """Routes only limit further. A bucket larger than the class's would let more through at once than the class does in all its time."""
    local = traffic.rate_limit.local if traffic.rate_limit and traffic.rate_limit.enabled else None
    requests, per = (local.requests, local.per) if local and local.enabled else (None, None)
    if requests and per and requests <= most.requests and requests * parse_duration(most.per) <= most.requests * parse_duration(per):
        return
    found = f"{requests} in {per}" if requests else "no limit"
    allowed = f"at most {most.requests} requests in {most.per}, not {found}"
    _passed(context, "spec.traffic.rateLimit.local.requests", "maxRequestRate", allowed)


def _attempts(retries: Retries, base: Retries | None) -> int:
    if not retries.enabled:
        return 0
    inherited = base.attempts if base is not None and base.enabled else None
    return next(int(count) for count in (retries.attempts, inherited, WHEN_USED[Retries]["attempts"]) if count is not None)


def _check_faults(context: Resolution, traffic: Traffic, most: str) -> None:
    for index, route in enumerate(traffic.routes or ()):
        faults = {"delay": route.fault.delay, "abort": route.fault.abort} if route.fault else {}
        for kind, fault in faults.items():
            if fault and parse_percent(fault.percent) > parse_percent(most):
                _passed(context, f"spec.traffic.routes[{index}].fault.{kind}.percent", "maxFault", f"at most {most}, not {fault.percent}")
