"""Which class a policy gets, whether its namespace may use it, and what the class grants it. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from perfpolicy.api.performance_class import AllowedNamespaces, Grant, PerformanceClass
from perfpolicy.api.policy import PerformancePolicy
from perfpolicy.errors import InvalidSpec, Problem
from perfpolicy.vocabulary import DEFAULT_CLASS_ANNOTATION, Reason


def select_class(policy: PerformancePolicy, classes: Iterable[PerformanceClass]) -> PerformanceClass:
    """The class the policy names, else the default one (the newest, where several are marked). InvalidSpec: ClassNotFound."""
    known = {cls.metadata.name: cls for cls in classes}
    wanted = policy.spec.class_name
    if wanted is not None and wanted in known:
        return known[wanted]
    there = ", ".join(sorted(known)) or "none"
    if wanted is not None:
        message = f"there is no PerformanceClass {wanted!r}; there is: {there}"
        raise InvalidSpec([Problem("spec.className", message, Reason.CLASS_NOT_FOUND)])
    if defaults := default_classes(known.values()):
        return defaults[0]
    message = f"no class is named and none is marked {DEFAULT_CLASS_ANNOTATION}=true; name one of: {there}"
    raise InvalidSpec([Problem("spec.className", message, Reason.CLASS_NOT_FOUND)])


def default_classes(classes: Iterable[PerformanceClass]) -> list[PerformanceClass]:
    """Classes marked default, the one that is used first: the newest, and by name among equally old ones."""
    marked = sorted((cls for cls in classes if cls.is_default), key=lambda cls: cls.metadata.name)
    return sorted(marked, key=lambda cls: cls.metadata.creation_timestamp, reverse=True)


def admits(allowed: AllowedNamespaces | None, namespace: str, labels: Mapping[str, str]) -> bool:
    """Whether `allowed` names the namespace or selects its labels. None admits all."""
    if allowed is None:
        return True
    if namespace in (allowed.names or ()):
        return True
    return allowed.selector is not None and allowed.selector.match_labels.items() <= labels.items()


@dataclass(frozen=True, slots=True)
class Granted:
    """What a class grants one namespace, all its grants together."""

    grants: tuple[Grant, ...]

    def gateway(self, namespace: str, name: str) -> bool:
        """Whether hosts may be attached to the Gateway."""
        return any((g.namespace, g.name) == (namespace, name) for grant in self.grants for g in grant.gateways or ())

    def host(self, host: str) -> bool:
        """Whether the host may be claimed."""
        return any(_covers(pattern, host) for grant in self.grants for pattern in grant.hosts or ())

    @property
    def gateways(self) -> list[str]:
        """The granted Gateways as namespace/name."""
        return sorted({f"{g.namespace}/{g.name}" for grant in self.grants for g in grant.gateways or ()})

    @property
    def hosts(self) -> list[str]:
        """The granted hosts."""
        return sorted({host for grant in self.grants for host in grant.hosts or ()})

    @property
    def service_accounts(self) -> frozenset[str]:
        """ServiceAccounts that pods a policy creates may run as."""
        return frozenset(name for grant in self.grants for name in grant.service_accounts or ())

    @property
    def workload_creation(self) -> bool:
        """Whether Deployments may be created."""
        return any(grant.workload_creation == "Allowed" for grant in self.grants)

    @property
    def envoy_filters(self) -> bool:
        """Whether the proxies of the policy's own pods may be configured by EnvoyFilter."""
        return any(grant.envoy_filters == "Allowed" for grant in self.grants)

    @property
    def custom_metrics(self) -> bool:
        """Whether policies may select counters by PromQL."""
        return any(grant.custom_metrics == "Allowed" for grant in self.grants)

    @property
    def tracing_providers(self) -> frozenset[str]:
        """Whom spans may be sent to."""
        return frozenset(name for grant in self.grants for name in grant.tracing_providers or ())

    @property
    def access_log_providers(self) -> frozenset[str]:
        """Whom access log lines may be sent to."""
        return frozenset(name for grant in self.grants for name in grant.access_log_providers or ())


def granted(cls: PerformanceClass, namespace: str, labels: Mapping[str, str]) -> Granted:
    """What `cls` grants policies of the namespace."""
    return Granted(tuple(grant for grant in cls.spec.grants or () if admits(grant.namespaces, namespace, labels)))


def _covers(pattern: str, host: str) -> bool:
    """`*.x` covers every host below x, at any depth, and `*.y.x`; anything else only itself."""
    return pattern == host or (pattern.startswith("*.") and host.removeprefix("*").endswith(pattern[1:]) and host != pattern[2:])
