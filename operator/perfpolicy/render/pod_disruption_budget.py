"""The PodDisruptionBudget: how many of the policy's pods drains and other evictions may take away at once."""

from perfpolicy.policy.model import Policy
from perfpolicy.render.manifest import Child, ChildKind, used


def build(policy: Policy) -> tuple[Child, ...]:
    """One where the policy has a budget."""
    if policy.disruption_budget is None:
        return ()
    return (Child(policy.key.name, {"selector": policy.workload.selector, "budget": policy.disruption_budget}),)


KIND = ChildKind(
    group="policy",
    version="v1",
    kind="PodDisruptionBudget",
    plural="poddisruptionbudgets",
    template="pod_disruption_budget.yaml.j2",
    build=build,
    asked=used("spec.disruptionBudget"),
    asked_by="spec.disruptionBudget",
)
