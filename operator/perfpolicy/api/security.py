"""Wire format of who may call the workload: mTLS, authorization, network policies."""

from typing import Annotated, Literal

from pydantic import Field

from perfpolicy.api.base import Atomic, Block, DnsLabel, Host, HttpMethod, Labels, Named, PortNumber, Rule, ServiceName, SetOf, Switch, Wire

Principal = Annotated[
    str, Field(pattern="^(\\*|[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?)/ns/[a-z0-9-]{1,63}/sa/[a-z0-9.-]{1,253}$", max_length=512)
]
CIDR_PATTERN = "^([0-9]{1,3}\\.){3}[0-9]{1,3}/[0-9]{1,2}$|^[0-9a-f:]{2,39}/[0-9]{1,3}$"
Cidr = Annotated[str, Field(pattern=CIDR_PATTERN, max_length=43)]


class AccessSource(Wire):
    """Who calls. Values of one list are alternatives; all lists given must match."""

    principals: SetOf[Principal] | None = None
    """Identities of callers by mTLS, as trust-domain/ns/NAMESPACE/sa/SERVICEACCOUNT; the trust domain may be *."""
    namespaces: SetOf[DnsLabel] | None = None
    """Namespaces of callers, by mTLS."""
    ip_blocks: SetOf[Cidr] | None = None
    """Address ranges of callers, for example 10.0.0.0/8."""

    RULES = (
        Rule(
            cel="(has(self.principals) && self.principals.size() > 0) || (has(self.namespaces) && self.namespaces.size() > 0)"
            " || (has(self.ipBlocks) && self.ipBlocks.size() > 0)",
            holds=lambda s: bool(s.principals or s.namespaces or s.ip_blocks),
            message="name at least one of principals, namespaces and ipBlocks: an empty from would match everybody",
        ),
    )


class AccessTarget(Wire):
    """What is called. Values of one list are alternatives; all lists given must match."""

    methods: SetOf[HttpMethod] | None = None
    """HTTP methods."""
    paths: SetOf[Annotated[str, Field(pattern="^/[A-Za-z0-9/_.~!$&'()+,;=:@-]*\\*?$", max_length=256)]] | None = None
    """Paths; a * at the end matches any continuation, as in /api/*."""
    ports: SetOf[PortNumber] | None = None
    """Container ports."""
    hosts: SetOf[Host] | None = None
    """Host headers; *.example.com matches every host below."""

    RULES = (
        Rule(
            cel="(has(self.methods) && self.methods.size() > 0) || (has(self.paths) && self.paths.size() > 0)"
            " || (has(self.ports) && self.ports.size() > 0) || (has(self.hosts) && self.hosts.size() > 0)",
            holds=lambda t: bool(t.methods or t.paths or t.ports or t.hosts),
            message="name at least one of methods, paths, ports and hosts: an empty to would match everything",
        ),
    )


class AccessRule(Wire):
    """One rule: matches when both from and to match."""

    from_: AccessSource | None = Field(default=None, alias="from")
    """Who calls. Left out: anybody."""
    to: AccessTarget | None = None
    """What is called. Left out: anything."""

    RULES = (
        Rule(
            cel="has(self.from) || has(self.to)",
            holds=lambda r: r.from_ is not None or r.to is not None,
            message="set from, to, or both: a rule without either would match every request",
        ),
    )


class Security(Wire):
    """Encryption between proxies, and who may call what."""

    mtls: Literal["Strict", "Permissive", "Disabled", "Inherit"] | None = None
    """Strict: callers must use mTLS. Permissive: they may. Disabled: plaintext only. Inherit, or left out: the mesh decides."""
    allow: Atomic[AccessRule] | None = None
    """Requests that are let in; when there is at least one rule, every other request is refused."""
    deny: Atomic[AccessRule] | None = None
    """Requests that are refused even if allowed above."""
    default_deny: Switch | None = None
    """Enabled: requests no allow rule matches are refused, even when there is no rule at all. Left out: Disabled."""


class NetworkPort(Wire):
    """A port of a network rule."""

    port: PortNumber
    """Number of the port at the pods."""
    protocol: Literal["TCP", "UDP", "SCTP"] | None = None
    """Left out: TCP."""


class CidrBlock(Wire):
    """An address range with holes."""

    cidr: Cidr
    """The range, for example 10.0.0.0/8."""
    except_: SetOf[Cidr] | None = Field(default=None, alias="except")
    """Parts of the range that are left out."""


class IngressRule(Wire):
    """Connections let in. fromNamespaces and fromPods together mean those pods in those namespaces; fromCIDRs is an alternative to them."""

    from_namespaces: Labels | None = None
    """Labels of the callers' namespaces."""
    from_pods: Labels | None = None
    """Labels of the calling pods, in fromNamespaces or else in the policy's namespace."""
    from_cidrs: Atomic[CidrBlock] | None = Field(default=None, alias="fromCIDRs")
    """Address ranges of callers."""
    ports: Atomic[NetworkPort] | None = None
    """Container ports they may reach. Left out: all."""

    RULES = (
        Rule(
            cel="has(self.fromNamespaces) || has(self.fromPods) || (has(self.fromCIDRs) && self.fromCIDRs.size() > 0)",
            holds=lambda r: r.from_namespaces is not None or r.from_pods is not None or bool(r.from_cidrs),
            message="name at least one of fromNamespaces, fromPods and fromCIDRs",
        ),
    )


class NetworkService(Wire):
    """A Service by name."""

    name: ServiceName
    """Name of the Service, in the policy's namespace."""


class EgressRule(Wire):
    """Connections let out. toNamespaces and toPods together mean those pods in those namespaces; the others are alternatives."""

    to_services: Named[NetworkService] | None = None
    """Services of the policy's namespace: their pods and, when `ports` is left out, their target ports."""
    to_pods: Labels | None = None
    """Labels of the pods called, in toNamespaces or else in the policy's namespace."""
    to_namespaces: Labels | None = None
    """Labels of the namespaces called."""
    to_cidrs: Atomic[CidrBlock] | None = Field(default=None, alias="toCIDRs")
    """Address ranges called."""
    ports: Atomic[NetworkPort] | None = None
    """Ports at the called pods. Left out: all, or the target ports of toServices."""

    RULES = (
        Rule(
            cel="has(self.toNamespaces) || has(self.toPods) || (has(self.toCIDRs) && self.toCIDRs.size() > 0)"
            " || (has(self.toServices) && self.toServices.size() > 0)",
            holds=lambda r: r.to_namespaces is not None or r.to_pods is not None or bool(r.to_cidrs) or bool(r.to_services),
            message="name at least one of toServices, toPods, toNamespaces and toCIDRs",
        ),
    )


class Network(Block):
    """Network policies. What the policy itself needs (DNS, the mesh, Prometheus, probes, the gateways) is always let through."""

    ingress: Atomic[IngressRule] | None = None
    """Connections let in; an empty list lets in only what the policy needs. Left out: not restricted."""
    egress: Atomic[EgressRule] | None = None
    """Connections let out; an empty list lets out only what the policy needs. Left out: not restricted."""
