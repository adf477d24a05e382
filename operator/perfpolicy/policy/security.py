"""Security and network: wire form to model. Pure."""

import ipaddress
from collections.abc import Mapping
from typing import Any

from perfpolicy.api import security as wire
from perfpolicy.api.performance_class import ClassMetrics, Mesh
from perfpolicy.policy import model
from perfpolicy.policy.facts import INJECT_LABEL
from perfpolicy.policy.resolution import Resolution, filled
from perfpolicy.vocabulary import Reason

_MTLS = {"Strict": model.Mtls.STRICT, "Permissive": model.Mtls.PERMISSIVE, "Disabled": model.Mtls.DISABLE, "Inherit": None}


def resolve_security(context: Resolution, service: model.Service) -> model.Security:
    """Encryption and authorization of calls to `service`."""
    settings = filled(context.settings.security)
    for kind, rules in (("allow", settings.allow), ("deny", settings.deny)):
        for index, rule in enumerate(rules or ()):
            _check_rule(context, f"spec.security.{kind}[{index}]", rule, speaks_http=service.speaks_http)
    return model.Security(
        mtls=_MTLS[filled(settings.mtls)],
        allow=tuple(_rule(rule) for rule in settings.allow or ()),
        deny=tuple(_rule(rule) for rule in settings.deny or ()),
        default_deny=settings.default_deny == "Enabled",
    )


def refuse_security_without_mesh(context: Resolution) -> None:
    """Reports what only a sidecar can keep: without one the objects would be written and protect nothing."""
    for name in (name for name in _asked(context) if name != "mtls" or filled(context.settings.security).mtls == "Strict"):
        message = (
            f"pods of namespace {context.namespace} get no sidecar, which alone keeps this: label the namespace istio-injection=enabled,"
            f" or the pods {INJECT_LABEL}=true"
        )
        context.report(f"spec.security.{name}", message, Reason.TARGET_UNSUPPORTED)


def refuse_security_in_root_namespace(context: Resolution) -> None:
    """Reports what would be a PeerAuthentication or AuthorizationPolicy where their selectors reach pods of every namespace."""
    for name in _asked(context) if context.in_root_namespace else ():
        kind = "a PeerAuthentication" if name == "mtls" else "an AuthorizationPolicy"
        message = (
            f"{context.namespace} is the mesh's root namespace: {kind} there would select pods of every namespace;"
            f" {'set Inherit' if name == 'mtls' else 'leave it out'}, or set mode: Observe"
        )
        context.report(f"spec.security.{name}", message, Reason.TARGET_UNSUPPORTED)


def _asked(context: Resolution) -> list[str]:
    """Fields of spec.security that become objects."""
    settings = filled(context.settings.security)
    asked = {
        "mtls": _MTLS[filled(settings.mtls)] is not None,
        "allow": bool(settings.allow),
        "deny": bool(settings.deny),
        "defaultDeny": settings.default_deny == "Enabled",
    }
    return [name for name, wanted in asked.items() if wanted and context.settings.mode != "Observe"]


def _check_rule(context: Resolution, path: str, rule: wire.AccessRule, *, speaks_http: bool) -> None:
    for position, block in enumerate((rule.from_.ip_blocks if rule.from_ else None) or ()):
        _check_cidr(context, f"{path}.from.ipBlocks[{position}]", block)
    if rule.to is None or speaks_http:
        return
    # Istio ignores such a rule where it allows, and refuses everything where it denies.
    for name, values in (("methods", rule.to.methods), ("paths", rule.to.paths), ("hosts", rule.to.hosts)):
        if values:
            context.report(f"{path}.to.{name}", "the Service has no HTTP or gRPC port: only ports can be matched")


def _rule(rule: wire.AccessRule) -> model.AccessRule:
    source, target = rule.from_, rule.to
    return model.AccessRule(
        source=model.AccessSource(tuple(source.principals or ()), tuple(source.namespaces or ()), tuple(source.ip_blocks or ()))
        if source
        else None,
        target=model.AccessTarget(
            methods=tuple(target.methods or ()),
            paths=tuple(target.paths or ()),
            ports=tuple(target.ports or ()),
            hosts=tuple(target.hosts or ()),
        )
        if target
        else None,
    )


def resolve_network(context: Resolution) -> model.Network | None:
    """Network rules; None where nothing is restricted."""
    settings = context.settings.network
    if settings is None or not settings.enabled or (settings.ingress is None and settings.egress is None):
        return None
    mesh, metrics = context.cls.spec.mesh or Mesh(), context.cls.spec.metrics or ClassMetrics()
    mesh_namespace = mesh.namespace or "istio-system"
    ingress = [_ingress(context, f"spec.network.ingress[{i}]", rule) for i, rule in enumerate(settings.ingress or ())]
    egress = [out for i, rule in enumerate(settings.egress or ()) for out in _egress(context, f"spec.network.egress[{i}]", rule)]
    return model.Network(
        ingress=None if settings.ingress is None else tuple(ingress),
        egress=None if settings.egress is None else tuple(egress),
        mesh_namespace=mesh_namespace,
        metrics_namespace=metrics.namespace or "monitoring",
        gateway_namespace=mesh.gateway_namespace or mesh_namespace,
    )


def _ingress(context: Resolution, path: str, rule: wire.IngressRule) -> model.NetworkRule:
    peers = _label_peer(rule.from_namespaces, rule.from_pods) + _blocks(context, f"{path}.fromCIDRs", rule.from_cidrs)
    return model.NetworkRule(peers, _ports(rule.ports))


def _egress(context: Resolution, path: str, rule: wire.EgressRule) -> list[model.NetworkRule]:
    """One rule for peers with the rule's own ports, and one per Service whose target ports must be looked up."""
    ports = _ports(rule.ports)
    peers = _label_peer(rule.to_namespaces, rule.to_pods) + _blocks(context, f"{path}.toCIDRs", rule.to_cidrs)
    rules = [model.NetworkRule(peers, ports)] if peers else []
    for index, service in enumerate(rule.to_services or ()):
        found = _service(context, f"{path}.toServices[{index}]", service.name)
        if found is not None:
            rules.append(model.NetworkRule(found.peers, ports or found.ports))
    return rules


def _service(context: Resolution, path: str, name: str) -> model.NetworkRule | None:
    """The pods and target ports of a Service: network policies see traffic after the Service's address was translated."""
    service = context.facts.services.get(name)
    if service is None:
        context.report(path, f"there is no Service {name!r} in namespace {context.namespace}", Reason.TARGET_NOT_FOUND)
        return None
    spec: Mapping[str, Any] = service.get("spec") or {}
    if not spec.get("selector"):
        context.report(path, f"Service {name!r} selects no pods: allow its addresses by toCIDRs", Reason.TARGET_UNSUPPORTED)
        return None
    ports = tuple(model.NetworkPort(port.get("targetPort", port["port"]), port.get("protocol", "TCP")) for port in spec.get("ports") or ())
    return model.NetworkRule((model.NetworkPeer(None, dict(spec["selector"]), None),), ports)


def _label_peer(namespaces: Mapping[str, str] | None, pods: Mapping[str, str] | None) -> tuple[model.NetworkPeer, ...]:
    if namespaces is None and pods is None:
        return ()
    return (model.NetworkPeer(None if namespaces is None else dict(namespaces), None if pods is None else dict(pods), None),)


def _blocks(context: Resolution, path: str, blocks: list[wire.CidrBlock] | None) -> tuple[model.NetworkPeer, ...]:
    for index, block in enumerate(blocks or ()):
        whole = _check_cidr(context, f"{path}[{index}].cidr", block.cidr)
        for position, hole in enumerate(block.except_ or ()):
            part = _check_cidr(context, f"{path}[{index}].except[{position}]", hole)
            if whole and part and not (part.version == whole.version and part.subnet_of(whole)):  # type: ignore[arg-type]  # same version
                context.report(f"{path}[{index}].except[{position}]", f"{hole} is not within {block.cidr}")
    return tuple(model.NetworkPeer(None, None, block.cidr, tuple(block.except_ or ())) for block in blocks or ())


def _check_cidr(context: Resolution, path: str, text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        context.report(path, f"{text!r} is not an address range: {error}")
        return None


def _ports(ports: list[wire.NetworkPort] | None) -> tuple[model.NetworkPort, ...]:
    return tuple(model.NetworkPort(port.port, port.protocol or "TCP") for port in ports or ())
