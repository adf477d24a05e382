"""Wire format of how many pods there are: scaling by use, and how many may be taken away at once."""

from typing import Annotated, Literal

from pydantic import Field

from perfpolicy.api.base import Atomic, Block, PositiveSeconds, Rule, Seconds, Wire
from perfpolicy.api.limits import Offer
from perfpolicy.units import parse_duration

# Of requests, not of limits: more than 100% is usual.
Utilization = Annotated[str, Field(pattern="^[1-9][0-9]{0,2}%$", max_length=4)]
PodsOrShare = Annotated[str, Field(pattern="^([0-9]{1,4}|(100|[0-9]{1,2})%)$", max_length=4)]
Replicas = Annotated[int, Field(ge=1, le=1000)]


class ScalingTarget(Wire):
    """Average use of the application container over all pods, as shares of its requests. The metric that wants most pods decides."""

    cpu: Utilization | None = None
    """Share of the CPU request, for example 70%. The container must have one."""
    memory: Utilization | None = None
    """Share of the memory request. Only for workloads that give memory back: one that keeps it is never scaled in."""


class ScalingPolicy(Wire):
    """How far the number of pods may change within a time."""

    type: Literal["Pods", "Percent"]
    """Pods: value is a number of pods. Percent: it is a percentage of the pods there are."""
    value: Annotated[int, Field(ge=1, le=1000)]
    """The largest change."""
    period: PositiveSeconds
    """The time, at most 30m."""

    RULES = (
        Rule(
            cel="duration(self.period) <= duration('30m')",
            holds=lambda policy: parse_duration(policy.period) <= parse_duration("30m"),
            message="period must be between 1s and 30m",
            field="period",
        ),
    )


class ScalingRules(Wire):
    """How fast the number of pods changes in one direction."""

    stabilization_window: Seconds | None = None
    """How long an advice must hold, at most 1h: scaling out follows the lowest, scaling in the highest advice of so long. Left out: 0s for
    scaling out, 5m for scaling in."""
    select_policy: Literal["Max", "Min", "Disabled"] | None = None
    """Which of the policies counts: the one that allows most (Max), or least (Min). Disabled: never in this direction. Left out: Max."""
    policies: Annotated[Atomic[ScalingPolicy], Field(min_length=1, max_length=8)] | None = None
    """Bounds of the change. Left out: 4 pods or 100% in 15s for scaling out, 100% in 15s for scaling in."""

    RULES = (
        Rule(
            cel="!has(self.stabilizationWindow) || duration(self.stabilizationWindow) <= duration('1h')",
            holds=lambda rules: rules.stabilization_window is None or parse_duration(rules.stabilization_window) <= parse_duration("1h"),
            message="stabilizationWindow must be between 0s and 1h",
            field="stabilizationWindow",
        ),
    )


class ScalingBehavior(Wire):
    """How fast the number of pods changes."""

    scale_up: ScalingRules | None = None
    """Scaling out."""
    scale_down: ScalingRules | None = None
    """Scaling in."""


class Scaling(Offer):
    """A HorizontalPodAutoscaler decides how many pods there are. deployment.replicas is then only what a new Deployment starts with, and
    what it goes back to when scaling is taken out."""

    min_replicas: Replicas | None = None
    """Fewest pods."""
    max_replicas: Replicas | None = None
    """Most pods."""
    target: ScalingTarget | None = None
    """The use to keep: cpu, memory, or both."""
    behavior: ScalingBehavior | None = None
    """How fast the number of pods changes. Left out: as Kubernetes does it."""

    RULES = (
        Rule(
            cel="!has(self.minReplicas) || !has(self.maxReplicas) || self.minReplicas <= self.maxReplicas",
            holds=lambda scaling: (
                scaling.min_replicas is None or scaling.max_replicas is None or scaling.min_replicas <= scaling.max_replicas
            ),
            message="minReplicas must be at most maxReplicas",
            field="minReplicas",
        ),
    )


class DisruptionBudget(Block):
    """A PodDisruptionBudget: how many pods drains and other evictions may take away at once. A policy's replaces its class's whole."""

    max_unavailable: PodsOrShare | None = None
    """Most pods that may be missing: a number, in quotes, or a percentage of the pods wanted, rounded up."""
    min_available: PodsOrShare | None = None
    """Fewest pods that must be left: a number, in quotes, or a percentage of the pods wanted, rounded up."""

    atomic = True
    RULES = (
        Rule(
            cel="(has(self.mode) && self.mode == 'Disabled') || has(self.maxUnavailable) != has(self.minAvailable)",
            holds=lambda budget: budget.mode == "Disabled" or (budget.max_unavailable is None) != (budget.min_available is None),
            message="set exactly one of maxUnavailable and minAvailable, or mode: Disabled",
        ),
    )
