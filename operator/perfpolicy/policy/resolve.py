"""Policy + class + facts to the frozen model: the only place that fills defaults, and the one validation of CLI and operator. Pure."""

from perfpolicy.api.base import broken_rules
from perfpolicy.api.parse import validate
from perfpolicy.api.performance_class import PerformanceClass
from perfpolicy.api.policy import PerformancePolicy, PolicySettings
from perfpolicy.errors import InvalidSpec, Problem
from perfpolicy.policy import model
from perfpolicy.policy.checks import check_class_permitted, check_limits
from perfpolicy.policy.classes import granted
from perfpolicy.policy.facts import Facts, pods_in_mesh
from perfpolicy.policy.layers import merge
from perfpolicy.policy.maintenance import resolve_maintenance
from perfpolicy.policy.observability import resolve_observability
from perfpolicy.policy.resolution import Resolution, filled
from perfpolicy.policy.scaling import resolve_budget, resolve_scaling
from perfpolicy.policy.security import refuse_security_in_root_namespace, refuse_security_without_mesh, resolve_network, resolve_security
from perfpolicy.policy.sources import bounds, resolve_source
from perfpolicy.policy.targets import measured_by, metrics_source, objectives, refuse_unmeasured, sli, thresholds
from perfpolicy.policy.traffic import resolve_traffic
from perfpolicy.policy.workload import pod_labels, resolve_workload


def resolve(policy: PerformancePolicy, cls: PerformanceClass, facts: Facts) -> model.Policy:
    """The model of `policy` under `cls`; InvalidSpec carries all problems."""
    resolved, problems = _attempt(policy, cls, facts)
    if problems or resolved is None:
        raise InvalidSpec(problems)
    return resolved


def check(policy: PerformancePolicy, cls: PerformanceClass, facts: Facts) -> list[Problem]:
    """All problems `resolve` would raise, in the order of their paths."""
    return _attempt(policy, cls, facts)[1]


def _attempt(policy: PerformancePolicy, cls: PerformanceClass, facts: Facts) -> tuple[model.Policy | None, list[Problem]]:
    layered = merge(policy, cls)
    try:
        settings = validate(layered.values, PolicySettings, "spec")
    except InvalidSpec as error:  # each layer fits its bounds, both together need not: labels of policy and class add up
        return None, list(error.problems)
    grants = granted(cls, policy.metadata.namespace, facts.namespace_labels)
    context = Resolution(policy, cls, facts, settings, layered, grants)
    context.problems.extend(_of_both_layers(settings))
    check_class_permitted(context)
    found = resolve_workload(context)
    check_limits(context, found[1] if found else None)
    resolved = _model(context, *found) if found else None
    return resolved, sorted(set(context.problems))


def _of_both_layers(settings: PolicySettings) -> list[Problem]:
    """Cross-field rules policy and class keep apart but break together."""
    return [
        Problem(problem.path, f"{problem.message} (after the class's defaults: see perfpolicy render --show-origin)")
        for problem in broken_rules(settings, "spec")
    ]


def _model(context: Resolution, workload: model.Workload, service: model.Service) -> model.Policy:
    metadata, cls, settings = context.policy.metadata, context.cls, context.settings
    in_mesh = pods_in_mesh(context.facts, pod_labels(context))
    source = resolve_source(context)
    buckets = bounds(context, source)
    measured = measured_by(context, source, buckets, service)
    refuse_unmeasured(context, measured)
    if not in_mesh:
        refuse_security_without_mesh(context)
    refuse_security_in_root_namespace(context)
    return model.Policy(
        identity=model.Identity(model.PolicyKey(metadata.namespace, metadata.name), metadata.uid, metadata.generation),
        class_ref=model.ClassRef(cls.metadata.name, cls.metadata.generation),
        mode=model.Mode(filled(settings.mode)),
        suspended=settings.suspend == "All",
        workload=workload,
        service=service,
        sli=sli(filled(settings.sli)),
        thresholds=thresholds(context, workload, measured),
        objectives=objectives(context, measured),
        metrics=metrics_source(context, source, buckets),
        traffic=resolve_traffic(context, service, in_mesh=in_mesh),
        security=resolve_security(context, service),
        network=resolve_network(context),
        observability=resolve_observability(context, service, in_mesh=in_mesh),
        in_mesh=in_mesh,
        scaling=resolve_scaling(context, workload),
        disruption_budget=resolve_budget(context, workload),
        maintenance=resolve_maintenance(settings.maintenance or ()),
    )
