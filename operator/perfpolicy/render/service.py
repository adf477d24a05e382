"""The Service a policy creates when `spec.service` asks for one. Each port says its protocol: Istio must not guess it from a name."""

from perfpolicy.policy.model import Policy
from perfpolicy.render.manifest import Child, ChildKind


def build(policy: Policy) -> tuple[Child, ...]:
    """One Service where the policy owns it."""
    if not policy.service.owned:
        return ()
    return (Child(policy.service.name, {"selector": policy.workload.selector, "ports": policy.service.ports}),)


KIND = ChildKind(
    group="",
    version="v1",
    kind="Service",
    plural="services",
    template="service.yaml.j2",
    build=build,
    asked="!has(spec.workload.serviceRef)",
    asked_by="spec.workload without serviceRef",
    suffixes=(),
)
