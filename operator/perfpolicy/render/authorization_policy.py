"""Who may call what: `<name>-allow` and `<name>-deny`, each rule with its source AND its target in one rule.

Split into two rules they would be alternatives, and the service would be open to every source for the one and on every path for the other.
"""

from dataclasses import astuple, replace

from perfpolicy.errors import RenderError
from perfpolicy.policy.model import AccessRule, AccessTarget, Policy, Protocol
from perfpolicy.render.manifest import OPENS_METRICS, Child, ChildKind
from perfpolicy.render.ports import http_ports, open_metrics_port, targets


def build(policy: Policy) -> tuple[Child, ...]:
    """The ALLOW policy where rules or default-deny ask for it, and the DENY policy where there are deny rules.

    An ALLOW policy also admits the scrape, from everybody: Prometheus has no identity in the mesh. NetworkPolicy says who reaches it.
    """
    security = policy.security
    children: list[Child] = []
    if security.allow or security.default_deny:
        rules = [_normal(rule, policy) for rule in security.allow]
        port = open_metrics_port(policy)
        if port is not None:
            rules.append(AccessRule(None, _scrape(policy, port)))
        children.append(_child(policy, "allow", rules))
    if security.deny:
        children.append(_child(policy, "deny", [_normal(rule, policy) for rule in security.deny]))
    return tuple(children)


def _scrape(policy: Policy, port: int) -> AccessTarget:
    """GET of the metrics path alone: whatever else listens on the port named as metricsPort stays behind the other rules."""
    scrape = policy.observability.scrape
    if scrape is None or any(listed.target == port and listed.protocol is Protocol.TCP for listed in policy.service.ports):
        return AccessTarget((), (), (port,), ())
    return AccessTarget(("GET",), (scrape.path,), (port,), ())


def _child(policy: Policy, action: str, rules: list[AccessRule]) -> Child:
    return Child(f"{policy.key.name}-{action}", {"selector": policy.workload.selector, "action": action.upper(), "rules": rules})


def _normal(rule: AccessRule, policy: Policy) -> AccessRule:
    """One spelling of "everybody" and "everything", and HTTP conditions kept to HTTP ports.

    Istio ignores methods, paths and hosts on a TCP port: an ALLOW rule then never matches there, and a DENY rule refuses everything. Where
    all ports speak HTTP the rule stays unlimited, so that a port the Service does not list is not a way around it.
    """
    source = rule.source if rule.source and any(astuple(rule.source)) else None
    target = rule.target if rule.target and any(astuple(rule.target)) else None
    if target is not None and (target.methods or target.paths or target.hosts):
        target = _on_http_ports(target, policy)
    return AccessRule(source, target)


def _on_http_ports(target: AccessTarget, policy: Policy) -> AccessTarget:
    service = policy.service
    http = targets(http_ports(service))
    if not http:
        raise RenderError(f"policy {policy.key}: methods, paths and hosts cannot be matched on a TCP workload")
    if target.ports or all(port.protocol is not Protocol.TCP for port in service.ports):
        return target
    metrics = () if service.metrics_port is None else (service.metrics_port,)
    return replace(target, ports=tuple(dict.fromkeys((*http, *metrics))))


KIND = ChildKind(
    group="security.istio.io",
    version="v1",
    kind="AuthorizationPolicy",
    plural="authorizationpolicies",
    template="authorization_policy.yaml.j2",
    build=build,
    asked=(
        "(has(spec.security) && ((has(spec.security.allow) && spec.security.allow.size() > 0)"
        " || (has(spec.security.deny) && spec.security.deny.size() > 0)"
        " || (has(spec.security.defaultDeny) && spec.security.defaultDeny == 'Enabled')))"
        f" || {OPENS_METRICS}"
    ),
    asked_by="spec.security.allow, deny or defaultDeny, or service.metricsPort",
    suffixes=("-allow", "-deny"),
)
