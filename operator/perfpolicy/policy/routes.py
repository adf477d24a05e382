"""HTTP routes: wire form to model, with what a route takes from spec.traffic. Pure."""

from datetime import timedelta
from decimal import Decimal
from typing import NamedTuple

from perfpolicy.api import routes as wire
from perfpolicy.api.traffic import Traffic
from perfpolicy.policy import model
from perfpolicy.policy.facts import leads_elsewhere
from perfpolicy.policy.layers import WHEN_USED
from perfpolicy.policy.re2 import is_re2
from perfpolicy.policy.resolution import Resolution
from perfpolicy.units import parse_duration, parse_percent
from perfpolicy.vocabulary import Reason

_NO_RETRIES = model.Retries(0, timedelta(0), ())
_WHEN_RETRIED = WHEN_USED[wire.Retries]
_DEFAULT_RETRIES = model.Retries(_WHEN_RETRIED["attempts"], parse_duration(_WHEN_RETRIED["perTryTimeout"]), tuple(_WHEN_RETRIED["retryOn"]))


class _Base(NamedTuple):
    """What routes fall back to and may refer to."""

    timeout: timedelta | None
    retries: model.Retries | None
    subsets: frozenset[str]


def resolve_routes(context: Resolution, settings: Traffic, service: model.Service) -> tuple[model.Route, ...]:
    """The routes; one that takes every request where none is given but a timeout, retries or hosts are."""
    timeout = parse_duration(settings.timeout) if settings.timeout else None
    base = _Base(timeout, _retries(settings.retries, None), frozenset(subset.name for subset in settings.subsets or ()))
    given = settings.routes or []
    if not given and (base.timeout is not None or base.retries is not None or settings.hosts):
        given = [wire.Route(name="default")]
    return tuple(_route(context, f"spec.traffic.routes[{index}]", route, base, service) for index, route in enumerate(given))


def _route(context: Resolution, path: str, route: wire.Route, base: _Base, service: model.Service) -> model.Route:
    headers = route.headers or wire.RouteHeaders()
    redirect = route.redirect
    destinations = () if redirect else tuple(_destination(d) for d in route.destinations or [wire.Destination()])
    named: dict[str, str | None] = {
        f"{path}.destinations[{index}].subset": destination.subset for index, destination in enumerate(destinations)
    }
    if route.mirror:
        named[f"{path}.mirror.subset"] = route.mirror.subset
    for place, subset in named.items():
        if subset is not None and subset not in base.subsets:
            there = ", ".join(sorted(base.subsets)) or "none"
            context.report(place, f"subset {subset!r} is not declared in spec.traffic.subsets; there is: {there}")
    _check_expressions(context, path, route)
    return model.Route(
        name=route.name,
        matches=tuple(_match(match) for match in route.matches or ()),
        rewrite_prefix=route.rewrite.prefix if route.rewrite else None,
        redirect=model.Redirect(redirect.path, redirect.host, redirect.code or 301) if redirect else None,
        timeout=None if redirect else (parse_duration(route.timeout) if route.timeout else base.timeout),
        retries=None if redirect else _retries(route.retries, base.retries),
        fault=_fault(route.fault),
        mirror=_mirror(context, f"{path}.mirror", route.mirror, service),
        request_headers=_edits(headers.request),
        response_headers=_edits(headers.response),
        cors=_cors(route.cors),
        destinations=destinations,
    )


def _destination(destination: wire.Destination) -> model.Destination:
    return model.Destination(destination.subset, 100 if destination.weight is None else destination.weight)


def _match(match: wire.RouteMatch) -> model.RouteMatch:
    return model.RouteMatch(
        path=path_match(match.path) if match.path else None,
        method=model.StringMatch(model.MatchKind.EXACT, match.method) if match.method else None,
        headers=tuple((header.name, _string_match(header.type, header.value)) for header in match.headers or ()),
        query=tuple((parameter.name, _string_match(parameter.type, parameter.value)) for parameter in match.query or ()),
    )


def path_match(path: wire.PathMatch) -> model.StringMatch:
    """A condition on a path."""
    return _string_match(path.type, path.value)


def _string_match(kind: str | None, value: str) -> model.StringMatch:
    return model.StringMatch(model.MatchKind((kind or "Exact").lower()), value)


def _check_expressions(context: Resolution, path: str, route: wire.Route) -> None:
    """Regular expressions must be RE2: one Envoy cannot compile makes it refuse the whole route table."""
    found: list[tuple[str, str | None, str]] = []
    for index, match in enumerate(route.matches or ()):
        if match.path:
            found.append((f"{path}.matches[{index}].path.value", match.path.type, match.path.value))
        for kind, values in (("headers", match.headers), ("query", match.query)):
            found += [(f"{path}.matches[{index}].{kind}[{i}].value", v.type, v.value) for i, v in enumerate(values or ())]
    for index, origin in enumerate(route.cors.allow_origins if route.cors else ()):
        found.append((f"{path}.cors.allowOrigins[{index}].value", origin.type, origin.value))
    for place, form, value in found:
        if form == "Regex" and not is_re2(value):
            context.report(place, f"{value!r} is not a regular expression RE2 reads (no look-around, no back references)")


def _retries(retries: wire.Retries | None, base: model.Retries | None) -> model.Retries | None:
    """`base` is what a route's own retries leave out; what that leaves out, too, is the built-in default."""
    if retries is None:
        return base
    if not retries.enabled:
        return _NO_RETRIES
    known = base if base is not None and base.attempts else _DEFAULT_RETRIES
    return model.Retries(
        attempts=retries.attempts or known.attempts,
        per_try_timeout=parse_duration(retries.per_try_timeout) if retries.per_try_timeout else known.per_try_timeout,
        retry_on=known.retry_on if retries.retry_on is None else tuple(retries.retry_on),
    )


def _fault(fault: wire.Fault | None) -> model.Fault | None:
    if fault is None:
        return None
    return model.Fault(
        delay=parse_duration(fault.delay.duration) if fault.delay else None,
        delay_ratio=parse_percent(fault.delay.percent) if fault.delay else Decimal(0),
        abort_status=fault.abort.status if fault.abort else None,
        abort_ratio=parse_percent(fault.abort.percent) if fault.abort else Decimal(0),
    )


def _mirror(context: Resolution, path: str, mirror: wire.Mirror | None, service: model.Service) -> model.Mirror | None:
    if mirror is None:
        return None
    if mirror.service and mirror.service != service.name:
        _check_mirrored(context, f"{path}.service", mirror.service)
    host = context.fqdn(mirror.service) if mirror.service else service.fqdn
    return model.Mirror(host, mirror.subset, parse_percent(mirror.percent or "100%"))


def _check_mirrored(context: Resolution, path: str, name: str) -> None:
    found = context.facts.services.get(name)
    if found is None:
        context.report(path, f"there is no Service {name!r} in namespace {context.namespace}", Reason.TARGET_NOT_FOUND)
    elif problem := leads_elsewhere(found.get("spec") or {}):
        context.report(path, f"Service {name!r} {problem}", Reason.TARGET_UNSUPPORTED)


def _edits(edits: wire.HeaderEdits | None) -> model.HeaderEdits:
    if edits is None:
        return model.HeaderEdits()
    return model.HeaderEdits(
        set={header.name: header.value for header in edits.set or ()},
        add={header.name: header.value for header in edits.add or ()},
        remove=tuple(edits.remove or ()),
    )


def _cors(cors: wire.Cors | None) -> model.Cors | None:
    if cors is None:
        return None
    return model.Cors(
        allow_origins=tuple(_string_match(origin.type, origin.value) for origin in cors.allow_origins),
        allow_methods=tuple(cors.allow_methods or ()),
        allow_headers=tuple(cors.allow_headers or ()),
        expose_headers=tuple(cors.expose_headers or ()),
        max_age=parse_duration(cors.max_age) if cors.max_age else None,
        allow_credentials=cors.credentials == "Allowed",
    )
