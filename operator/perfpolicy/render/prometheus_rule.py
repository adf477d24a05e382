"""Recording and alert rules for a Prometheus run by prometheus-operator. What they say is promql's; here they get an object."""

from perfpolicy.policy.model import Policy
from perfpolicy.promql.rules import rule_groups
from perfpolicy.render.manifest import ALWAYS, Child, ChildKind


def build(policy: Policy) -> tuple[Child, ...]:
    """One PrometheusRule where the policy has any rule."""
    groups = [group.to_dict() for group in rule_groups(policy)]
    return (Child(policy.key.name, {"groups": groups}, labels=policy.observability.rule_labels),) if groups else ()


KIND = ChildKind(
    group="monitoring.coreos.com",
    version="v1",
    kind="PrometheusRule",
    plural="prometheusrules",
    template="prometheus_rule.yaml.j2",
    build=build,
    asked=ALWAYS,
    asked_by="every policy",
    observing=True,
)
