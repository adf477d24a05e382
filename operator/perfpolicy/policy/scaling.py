"""How many pods there are: wire form to model, and when nobody can scale or count them. Pure."""

from decimal import Decimal
from typing import Final

from perfpolicy.api import scaling as wire
from perfpolicy.policy import model
from perfpolicy.policy.resolution import Resolution
from perfpolicy.units import parse_duration
from perfpolicy.vocabulary import Reason

_SCALING: Final = "spec.scaling"
_BUDGET: Final = "spec.disruptionBudget"
_UNCOUNTED: Final = "DaemonSet"
"""Has as many pods as there are nodes: no scale subresource, which both an autoscaler and a budget ask."""


def resolve_scaling(context: Resolution, workload: model.Workload) -> model.Scaling | None:
    """The autoscaler; None where there is none, or none can be, which is reported where the policy itself asked for it."""
    settings = context.settings.scaling
    if context.layered.at(f"{_SCALING}.mode") == "Offered" and context.by_policy(_SCALING):
        context.report(f"{_SCALING}.mode", "Offered is for classes: in a policy leave mode out, or set Disabled")
    if settings is None or not settings.enabled:
        return None
    problem = _unscalable(workload, settings.target or wire.ScalingTarget())
    if problem is not None and not context.by_policy(_SCALING):
        return None
    if problem is not None:
        context.report(*problem)
    return _complete(context, settings)


def _unscalable(workload: model.Workload, target: wire.ScalingTarget) -> tuple[str, str, Reason] | None:
    if workload.kind == _UNCOUNTED:
        return _SCALING, "a DaemonSet has one pod on every node and cannot be scaled: remove this", Reason.TARGET_UNSUPPORTED
    for name, asked, request in (("cpu", target.cpu, workload.requests.cpu), ("memory", target.memory, workload.requests.memory)):
        if asked is not None and not request:
            message = f"container {workload.container} requests no {name}, of which this is a share: set its resources.requests.{name}"
            return f"{_SCALING}.target.{name}", message, Reason.INVALID
    return None


def _complete(context: Resolution, settings: wire.Scaling) -> model.Scaling | None:
    target = settings.target or wire.ScalingTarget()
    if settings.min_replicas is None:
        context.report(f"{_SCALING}.minReplicas", "required: the fewest pods; or mode: Disabled")
    if settings.max_replicas is None:
        context.report(f"{_SCALING}.maxReplicas", "required: the most pods; or mode: Disabled")
    if target.cpu is None and target.memory is None:
        context.report(f"{_SCALING}.target", "required: the cpu or memory to keep, such as cpu: 70%; or mode: Disabled")
    if settings.min_replicas is None or settings.max_replicas is None:
        return None
    behavior = settings.behavior or wire.ScalingBehavior()
    return model.Scaling(
        minimum=settings.min_replicas,
        maximum=settings.max_replicas,
        cpu_percent=_percent(target.cpu),
        memory_percent=_percent(target.memory),
        up=_rules(behavior.scale_up),
        down=_rules(behavior.scale_down),
    )


def _rules(rules: wire.ScalingRules | None) -> model.ScalingRules | None:
    if rules is None or rules == wire.ScalingRules():
        return None
    return model.ScalingRules(
        window=parse_duration(rules.stabilization_window) if rules.stabilization_window else None,
        select=rules.select_policy,
        steps=tuple(model.ScalingStep(step.type, step.value, parse_duration(step.period)) for step in rules.policies or ()),
    )


def _percent(text: str | None) -> int | None:
    return int(text[:-1]) if text else None


def resolve_budget(context: Resolution, workload: model.Workload) -> model.DisruptionBudget | None:
    """The disruption budget; None where there is none, or none can be, which is reported where the policy itself asked for it."""
    settings = context.settings.disruption_budget
    if settings is None or not settings.enabled:
        return None
    if workload.kind == _UNCOUNTED:
        if context.by_policy(_BUDGET):
            message = "a DaemonSet has no number of pods to keep, and drains leave its pods alone: remove this"
            context.report(_BUDGET, message, Reason.TARGET_UNSUPPORTED)
        return None
    return model.DisruptionBudget(_pods(settings.max_unavailable), _pods(settings.min_available))


def _pods(text: str | None) -> int | Decimal | None:
    if text is None:
        return None
    return Decimal(text[:-1]) / 100 if text.endswith("%") else int(text)
