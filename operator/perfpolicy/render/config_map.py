"""The same rules as a file in a ConfigMap, where the PrometheusRule CRD is absent, for a Prometheus that mounts or side-loads those."""

from perfpolicy import vocabulary, yaml_text
from perfpolicy.policy.model import Policy
from perfpolicy.promql.rules import rule_groups
from perfpolicy.render import prometheus_rule
from perfpolicy.render.manifest import ALWAYS, Child, ChildKind

SUFFIX = "-rules"


def build(policy: Policy) -> tuple[Child, ...]:
    """One ConfigMap with one rule file where the policy has any rule.

    The file is named after namespace and policy: side-loaders put the files of all namespaces into one directory.
    """
    groups = [group.to_dict() for group in rule_groups(policy)]
    if not groups:
        return ()
    data = {f"{policy.key.namespace}.{policy.key.name}.yaml": yaml_text.dump({"groups": groups})}
    labels = {**policy.observability.rule_labels, vocabulary.RULES_CONFIGMAP_LABEL: "true"}
    return (Child(policy.key.name + SUFFIX, {"data": data}, labels=labels),)


KIND = ChildKind(
    group="",
    version="v1",
    kind="ConfigMap",
    plural="configmaps",
    template="config_map.yaml.j2",
    build=build,
    asked=ALWAYS,
    asked_by="every policy, where PrometheusRule is not served",
    suffixes=(SUFFIX,),
    observing=True,
    stands_in_for=prometheus_rule.KIND.group_kind,
)
