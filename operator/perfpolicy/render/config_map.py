"""What is given to people and tools as a file: the policy's dashboard for Grafana, and its rules where the PrometheusRule CRD is absent."""

import hashlib
import json

from perfpolicy import vocabulary, yaml_text
from perfpolicy.policy.model import Policy
from perfpolicy.promql.panels import panels
from perfpolicy.promql.rules import rule_groups
from perfpolicy.render import dashboard, prometheus_rule
from perfpolicy.render.manifest import ALWAYS, Child, ChildKind

RULES = "-rules"
DASHBOARD = "-dashboard"


def build(policy: Policy) -> tuple[Child, ...]:
    """One ConfigMap with the dashboard where the policy asks for it."""
    if not policy.observability.dashboard:
        return ()
    alerts = policy.observability.alerts
    links = [dashboard.by_tag("Policies of the namespace", dashboard.TAG, policy.key.namespace)]
    if alerts and alerts.runbook:
        links.append(dashboard.web_page("Runbook", alerts.runbook))
    content = dashboard.dashboard(_uid(policy), str(policy.key), panels(policy), tags=[policy.key.namespace], links=links)
    data = {f"{_file(policy)}.json": dashboard.text(content)}
    return (Child(policy.key.name + DASHBOARD, {"data": data}, labels=policy.observability.dashboard_labels),)


def rules(policy: Policy) -> tuple[Child, ...]:
    """One ConfigMap with one rule file where the policy has any rule, for a Prometheus that mounts or side-loads those."""
    groups = [group.to_dict() for group in rule_groups(policy)]
    if not groups:
        return ()
    data = {f"{_file(policy)}.yaml": yaml_text.dump({"groups": groups})}
    labels = {**policy.observability.rule_labels, vocabulary.RULES_CONFIGMAP_LABEL: "true"}
    return (Child(policy.key.name + RULES, {"data": data}, labels=labels),)


def _file(policy: Policy) -> str:
    """After namespace and policy: side-loaders put the files of all namespaces into one directory."""
    return f"{policy.key.namespace}.{policy.key.name}"


def _uid(policy: Policy) -> str:
    """Equal for a policy made again, and different in clusters that share a Grafana as their series share a Prometheus: by the matchers."""
    identity = json.dumps([*policy.key, *policy.metrics.provider.matchers])
    return f"perfpolicy-{hashlib.sha256(identity.encode()).hexdigest()[:24]}"


KIND = ChildKind(
    group="",
    version="v1",
    kind="ConfigMap",
    plural="configmaps",
    template="config_map.yaml.j2",
    build=build,
    asked=ALWAYS,
    asked_by="spec.observability.dashboard, and every policy where PrometheusRule is not served",
    suffixes=(RULES, DASHBOARD),
    observing=True,
    stands_in_for=prometheus_rule.KIND.group_kind,
    stand_in=rules,
)
