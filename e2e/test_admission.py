"""Nobody obtains through a policy what the API server denies them directly: real users against the chart's ValidatingAdmissionPolicy."""

import json
import secrets
from collections.abc import Iterator
from typing import Any

import pytest

from e2e.access import applied, may, rendered, role, rule, user_name
from e2e.api import api_of
from e2e.cluster import Cluster
from e2e.policies import a_class, a_policy
from e2e.waiting import eventually
from lab.errors import CommandError
from perfpolicy.api.performance_class import PerformanceClass, parse_class
from perfpolicy.api.policy import parse_policy
from perfpolicy.policy.builtin import builtin_classes
from perfpolicy.policy.facts import Facts
from perfpolicy.policy.resolve import resolve
from perfpolicy.render.manifest import ChildKind
from perfpolicy.render.registry import KINDS, render
from tools import access

RELEASE = "perfpolicy-admission"
DEFAULT, PRIVATE = "e2e-default", "e2e-private"
POLICIES = rule("perfpolicy.io", ["performancepolicies"], ["create", "get", "update", "patch", "delete"])
MEASURING = {"prometheusrules", "configmaps"}
"""What the chart delegates with every class."""
OWNER, TENANT, VISITOR, DELEGATE = "owner", "tenant", "visitor", "delegate"


def rights(kind: ChildKind) -> dict[str, Any]:
    """Everything on one kind of child."""
    return rule(kind.group, [kind.plural], ["create", "update", "patch", "delete"])


@pytest.fixture(scope="module")
def admission(cluster: Cluster) -> Iterator[Cluster]:
    """The lab with the chart's admission policies in force. Of several that refuse, the API server names one, whichever it comes to first:
    each is waited for with a policy that only it refuses.
    """
    values = {"classes": {"production": {"default": False}, DEFAULT: {"default": True, "spec": {}}, PRIVATE: {"spec": {}}}}
    with applied(cluster, rendered(cluster.lab, RELEASE, "admission.yaml", values)):
        cluster.apply(*role("nobody", "default", POLICIES))
        refused: dict[str, dict[str, Any]] = {"may not use PerformanceClass": {"className": PRIVATE}}
        for part in access.admission():
            kind = next(variable["name"] for variable in part["variables"] if variable["name"] in ASKED_BY_ONE_BLOCK)
            refused[f"may not create {kind}"] = ASKED_BY_ONE_BLOCK[kind]
        for why, asked in refused.items():
            probe = bare("probe", "default", **asked)
            eventually(lambda why=why, probe=probe: why in refusal(cluster, "nobody", probe))  # type: ignore[misc]
        yield cluster
        cluster.kubectl("delete", "role,rolebinding", "nobody", "-n", "default")


@pytest.fixture
def home(admission: Cluster) -> Iterator[str]:
    """A namespace with an owner of everything, a tenant without Deployments, and a visitor who may write policies only."""
    namespace = f"e2e-{secrets.token_hex(4)}"
    admission.kubectl("create", "namespace", namespace)
    others = [rights(kind) for kind in KINDS if kind.plural not in MEASURING]
    admission.apply(
        *role(OWNER, namespace, POLICIES, *others),
        *role(TENANT, namespace, POLICIES, *(rights(kind) for kind in KINDS if kind.plural not in {"deployments", *MEASURING})),
        *role(VISITOR, namespace, POLICIES),
    )
    # The last of them is known, so all are.
    eventually(lambda: may(admission, VISITOR, "create", "performancepolicies.perfpolicy.io", namespace))
    yield namespace
    admission.kubectl("delete", "namespace", namespace, "--wait=false", "--ignore-not-found")


def as_user(cluster: Cluster, user: str, *arguments: str, stdin: str | None = None) -> str:
    """kubectl by a user of the API server."""
    return cluster.kubectl(f"--as={user}", "--as-group=system:authenticated", *arguments, input=stdin)


def refusal(cluster: Cluster, user: str, policy: dict[str, Any], verb: str = "create") -> str:
    """Why the user may not write the policy (a dry run); empty where they may."""
    try:
        as_user(cluster, user, verb, "--dry-run=server", "-f", "-", stdin=json.dumps(policy))
    except CommandError as error:
        return str(error)
    return ""


def targeting(name: str, namespace: str, **spec: Any) -> dict[str, Any]:
    """A policy for a Deployment and Service that exist already: it creates neither."""
    made = a_policy(name, namespace, **{"className": DEFAULT, **spec})
    target = {"group": "apps", "kind": "Deployment", "name": name}
    made["spec"] |= {"workload": {"targetRef": target, "serviceRef": {"name": name}}}
    del made["spec"]["service"]
    return made


def bare(name: str, namespace: str, **spec: Any) -> dict[str, Any]:
    """One that asks for nothing else but to be measured."""
    made = targeting(name, namespace, **spec)
    for block in {"traffic", "security", "network", "scaling", "disruptionBudget", "observability"} - spec.keys():
        del made["spec"][block]
    return made


def test_a_tenant_without_deployments_gets_none_through_a_policy(admission: Cluster, home: str) -> None:
    why = refusal(admission, TENANT, a_policy("web", home, className=DEFAULT))
    assert f"spec.workload.deployment: {TENANT} may not create deployments.apps in namespace {home}" in why
    assert "performanceclasses/deployments" in why, "it says who can change that"
    assert refusal(admission, TENANT, targeting("web", home)) == ""
    assert refusal(admission, OWNER, a_policy("web", home, className=DEFAULT)) == ""


def test_an_update_must_not_smuggle_in_what_a_create_may_not(admission: Cluster, home: str) -> None:
    as_user(admission, TENANT, "create", "-f", "-", stdin=json.dumps(targeting("web", home)))
    assert "may not create deployments.apps" in refusal(admission, TENANT, a_policy("web", home, className=DEFAULT), "replace")
    as_user(admission, OWNER, "replace", "-f", "-", stdin=json.dumps(a_policy("web", home, className=DEFAULT)))
    changed = a_policy("web", home, className=DEFAULT, replicas=5)
    assert "may not update deployments.apps" in refusal(admission, TENANT, changed, "replace")
    assert refusal(admission, OWNER, changed, "replace") == ""


def may_use_private(cluster: Cluster, namespace: str) -> None:
    """Bind the owner to what the chart makes for the class."""
    group = "rbac.authorization.k8s.io"
    binding = {
        "apiVersion": f"{group}/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "private", "namespace": namespace},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": f"{RELEASE}-use-{PRIVATE}"},
        "subjects": [{"apiGroup": group, "kind": "User", "name": OWNER}],
    }
    cluster.apply(binding)


def test_a_class_takes_the_verb_use(admission: Cluster, home: str) -> None:
    private = targeting("web", home, className=PRIVATE)
    why = refusal(admission, OWNER, private)
    assert f"{OWNER} may not use PerformanceClass {PRIVATE} in namespace {home}" in why
    del private["spec"]["className"]
    assert refusal(admission, OWNER, private) == "", "the default class is everybody's"
    may_use_private(admission, home)
    eventually(lambda: refusal(admission, OWNER, targeting("web", home, className=PRIVATE)) == "")


def test_a_class_that_does_not_exist_opens_nothing(admission: Cluster, home: str) -> None:
    # Whoever writes the policy first and has the class made later must have every right all the same.
    others = [rights(kind) for kind in KINDS if kind.plural in MEASURING]
    admission.apply(*role(TENANT, home, rule("perfpolicy.io", ["performanceclasses"], ["use"]), *others, name="any-class"))
    ghost = a_policy("web", home, className="ghost")
    eventually(lambda: "may not use" not in refusal(admission, TENANT, ghost))
    eventually(lambda: "may not create deployments.apps" in refusal(admission, TENANT, ghost))


BARE = "e2e-bare"
TRAFFIC: dict[str, dict[str, Any]] = {
    "timeout": {"timeout": "5s"},
    "no-retries": {"retries": {"mode": "Disabled"}},
    "routes": {"routes": [{"name": "all"}]},
    "no-routes": {"routes": []},
    "hosts": {"hosts": ["web.e2e.test"], "gateways": [{"namespace": "e2e", "name": "public"}]},
    "subsets": {"subsets": [{"name": "stable", "labels": {"version": "stable"}}]},
    "balancer": {"loadBalancer": {"algorithm": "Random"}},
    "no-balancer": {"loadBalancer": {"mode": "Disabled"}},
    "pool": {"connectionPool": {"maxConnections": 3}},
    "no-pool": {"connectionPool": {"mode": "Disabled"}},
    "breaker": {"circuitBreaker": {"consecutiveErrors": 3}},
    "rate-limit": {"rateLimit": {"local": {"requests": 5}}},
    "no-rate-limit": {"rateLimit": {"mode": "Disabled"}},
    "concurrency": {"concurrency": {"max": 5}},
    "no-concurrency": {"concurrency": {"mode": "Disabled"}},
    "headers": {"responseHeaders": {}},
    "no-headers": {"responseHeaders": {"mode": "Disabled"}},
    "compression": {"compression": {}},
    "no-compression": {"compression": {"mode": "Disabled"}},
    "no-breaker": {"circuitBreaker": {"mode": "Disabled"}},
}
SECURITY: dict[str, dict[str, Any]] = {
    "strict": {"mtls": "Strict"},
    "permissive": {"mtls": "Permissive"},
    "plain": {"mtls": "Disabled"},
    "inherit": {"mtls": "Inherit"},
    "allow": {"allow": [{"from": {"namespaces": ["web"]}}]},
    "no-rules": {"allow": [], "deny": [], "defaultDeny": "Disabled"},
    "deny": {"deny": [{"to": {"ports": [1234]}}]},
    "default-deny": {"defaultDeny": "Enabled"},
}
NETWORK: dict[str, dict[str, Any]] = {"ingress": {"ingress": []}, "egress": {"egress": []}, "no-network": {"mode": "Disabled"}}
SCALING: dict[str, dict[str, Any]] = {
    "scaling": {"minReplicas": 1, "maxReplicas": 5, "target": {"cpu": "70%"}},
    "no-scaling": {"mode": "Disabled"},
}
BUDGET: dict[str, dict[str, Any]] = {"budget": {"maxUnavailable": "1"}, "no-budget": {"mode": "Disabled"}}
OBSERVABILITY: dict[str, dict[str, Any]] = {
    "tracing": {"tracing": {}},
    "access-logs": {"accessLogs": {}},
    "told-nothing": {"tracing": {"mode": "Disabled"}, "accessLogs": {"mode": "Disabled"}},
    "alerts": {"alerts": {"mode": "Disabled"}},
}
ASKED_BY_ONE_BLOCK: dict[str, dict[str, Any]] = {
    "poddisruptionbudgets": {"disruptionBudget": BUDGET["budget"]},
    "horizontalpodautoscalers": {"scaling": SCALING["scaling"]},
    "envoyfilters": {"traffic": TRAFFIC["compression"]},
}
"""Kinds that a block of the spec asks for and no other block does: one at least in each of the chart's admission policies."""


def specs(namespace: str) -> Iterator[dict[str, Any]]:
    """Policies that ask for every kind, for none, and for few, in every way there is."""

    def few(name: str, **spec: Any) -> dict[str, Any]:
        return bare("web", namespace, className=BARE, **spec) | {"asks": name}

    yield a_policy("web", namespace, className=BARE) | {"asks": "all"}
    yield a_policy("web", namespace, className=BARE, mode="Observe") | {"asks": "observe"}
    yield a_policy("web", namespace, className=BARE, suspend="All") | {"asks": "suspended"}
    yield few("nothing")
    yield from (few(name, traffic=traffic) for name, traffic in TRAFFIC.items())
    yield from (few(name, security=security) for name, security in SECURITY.items())
    yield from (few(name, network=network) for name, network in NETWORK.items())
    yield from (few(name, scaling=scaling) for name, scaling in SCALING.items())
    yield from (few(name, disruptionBudget=budget) for name, budget in BUDGET.items())
    yield from (few(name, observability=observability) for name, observability in OBSERVABILITY.items())
    scraped, closed = {"scrape": {"podMonitor": "Enabled"}}, {"mtls": "Strict", "defaultDeny": "Enabled"}
    monitored = few("pod-monitor", observability=scraped, security=closed)
    monitored["spec"]["service"] = {"metricsPort": 9090}
    yield monitored
    created = few("service")
    created["spec"]["service"] = {"port": 80}
    del created["spec"]["workload"]["serviceRef"]
    yield created


def rendered_kinds(policy: dict[str, Any], cls: PerformanceClass | None = None) -> set[str]:
    """Kinds the operator makes of a policy, by default under a class that adds nothing."""
    ports = [{"name": "http", "containerPort": 8080}, {"name": "http-metrics", "containerPort": 9090}]
    containers = [{"name": "app", "image": "localhost/backend:lab", "ports": ports, "resources": {"requests": {"cpu": "10m"}}}]
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": containers}}
    target = {"spec": {"selector": {"matchLabels": {"app": "web"}}, "template": template}}
    service = {"spec": {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}}
    facts = Facts({"istio-injection": "enabled"}, target, {"web": service})
    resolved = resolve(parse_policy(policy), cls or parse_class(a_class(BARE)), facts)
    made = {manifest["kind"] for manifest in render(resolved).manifests}
    return {kind.plural for kind in KINDS if kind.kind in made or (kind.stands_in_for and kind.stands_in_for.kind in made)}


def test_every_kind_a_spec_becomes_is_checked_and_no_other(admission: Cluster, home: str) -> None:
    # For every kind a user who may write all kinds but that one.
    use = rule("perfpolicy.io", ["performanceclasses"], ["use"])
    for kind in KINDS:
        others = [rights(other) for other in KINDS if other is not kind]
        admission.apply(*role(f"no-{kind.plural}", home, POLICIES, use, *others))
    full = a_policy("web", home, className=BARE)
    last = KINDS[-1].plural
    eventually(lambda: f"may not create {last}" in not_allowed(admission, f"no-{last}", full))
    wrong = {}
    for policy in specs(home):
        name = policy.pop("asks")
        refused = {kind.plural for kind in KINDS if f"may not create {kind.plural}" in not_allowed(admission, f"no-{kind.plural}", policy)}
        if refused != rendered_kinds(policy):
            wrong[name] = (refused, rendered_kinds(policy))
    assert wrong == {}


def not_allowed(cluster: Cluster, user: str, policy: dict[str, Any]) -> str:
    """Why the user has no right to create the policy; empty where they have."""
    code, message = api_of(cluster.lab.kubeconfig).create_dry(policy, user)
    assert code in (201, 403), message
    return message


def test_all_kinds_at_once_stay_within_the_cost_limit(admission: Cluster, home: str) -> None:
    # The dearest way: each right is denied, and then found to be delegated.
    delegated = [f"performanceclasses/{kind.plural}" for kind in KINDS]
    delegate = rule("perfpolicy.io", ["performanceclasses", *delegated], ["use"], DEFAULT)
    admission.apply(*role(DELEGATE, home, POLICIES, delegate))
    full = a_policy("web", home, className=DEFAULT)
    eventually(lambda: refusal(admission, DELEGATE, full) == "")
    as_user(admission, DELEGATE, "create", "-f", "-", stdin=json.dumps(full))
    assert refusal(admission, DELEGATE, a_policy("web", home, className=DEFAULT, replicas=5), "replace") == ""
    assert "may not" in refusal(admission, VISITOR, full), "nobody else"


def test_measuring_only_takes_no_right_but_on_policies(admission: Cluster, home: str) -> None:
    assert refusal(admission, VISITOR, a_policy("web", home, className=DEFAULT, mode="Observe")) == ""
    assert "may not create" in refusal(admission, VISITOR, targeting("web", home))


def test_what_a_class_adds_is_asked_of_nobody(admission: Cluster, home: str) -> None:
    # A decision, stated in docs/security.md: who may write policies in a namespace gives every workload in it what the class says.
    asked = bare("web", home)
    assert refusal(admission, VISITOR, asked) == ""
    (production,) = (cls for cls in builtin_classes() if cls.is_default)
    assert rendered_kinds(asked, production) - MEASURING == {"peerauthentications", "destinationrules", "virtualservices"}


def test_a_label_is_anybodys_and_the_spec_is_not(admission: Cluster, home: str) -> None:
    as_user(admission, OWNER, "create", "-f", "-", stdin=json.dumps(a_policy("web", home, className=DEFAULT)))
    as_user(admission, VISITOR, "label", "pp", "web", "-n", home, "team=visitors")
    patch = json.dumps({"spec": {"traffic": {"timeout": "11s"}}})
    with pytest.raises(CommandError, match="visitor may not update"):
        as_user(admission, VISITOR, "patch", "pp", "web", "-n", home, "--type=merge", "-p", patch)
    as_user(admission, OWNER, "patch", "pp", "web", "-n", home, "--type=merge", "-p", patch)


@pytest.mark.parametrize("kind", ["peerauthentications", "authorizationpolicies"])
def test_naming_a_metrics_port_opens_it_in_what_the_class_closes(admission: Cluster, home: str, kind: str) -> None:
    admission.apply(*role(f"no-{kind}", home, POLICIES, *(rights(other) for other in KINDS if other.plural != kind)))
    asked = bare("web", home)
    eventually(lambda: refusal(admission, f"no-{kind}", asked) == "")
    asked["spec"]["service"] = {"metricsPort": 9090}
    assert f"no-{kind} may not create {kind}" in refusal(admission, f"no-{kind}", asked)
    assert refusal(admission, OWNER, asked) == ""


def test_who_takes_protection_out_of_a_policy_needs_the_right_to_delete_it(admission: Cluster, home: str) -> None:
    as_user(admission, OWNER, "create", "-f", "-", stdin=json.dumps(a_policy("web", home, className=DEFAULT)))

    def patch(user: str, *, dry: bool = True, **spec: Any) -> str:
        arguments = ("patch", "pp", "web", "-n", home, "--type=merge", "-p", json.dumps({"spec": spec}))
        try:
            as_user(admission, user, *arguments, *(("--dry-run=server",) if dry else ()))
        except CommandError as error:
            return str(error)
        return ""

    existing = {"deployment": None, **targeting("web", home)["spec"]["workload"]}
    assert f"{VISITOR} may not " in patch(VISITOR, network=None), "which kind is said first is left to the API server"
    assert f"{TENANT} may not delete deployments.apps" in patch(TENANT, workload=existing, service=None)
    assert patch(OWNER, workload=existing, service=None, network=None, security=None) == ""
    every = [rights(kind) for kind in KINDS]
    for each in every:
        each["verbs"].remove("delete")
    admission.apply(*role("editor", home, POLICIES, *every))
    eventually(lambda: patch("editor", network={"ingress": []}) == "")
    assert "editor may not delete networkpolicies" in patch("editor", network=None)
    # By way of Observe, which deletes nothing: what is taken out there goes when somebody enforces again.
    assert patch(VISITOR, mode="Observe", dry=False) == ""
    assert f"{VISITOR} may not delete networkpolicies" in patch(VISITOR, network=None)


def test_a_policy_that_is_going_asks_for_nothing(admission: Cluster, home: str) -> None:
    going = targeting("web", home)
    going["metadata"]["finalizers"] = ["e2e.test/held"]
    as_user(admission, OWNER, "create", "-f", "-", stdin=json.dumps(going))
    as_user(admission, VISITOR, "delete", "pp", "web", "-n", home, "--wait=false")
    changed = json.dumps({"spec": {"traffic": {"timeout": "11s"}}})
    as_user(admission, VISITOR, "patch", "pp", "web", "-n", home, "--type=merge", "-p", changed)
    as_user(admission, OWNER, "patch", "pp", "web", "-n", home, "--type=merge", "-p", '{"metadata": {"finalizers": null}}')
    eventually(lambda: admission.get("pp", "web", home) is None)


def test_the_status_is_the_operators(admission: Cluster, home: str) -> None:
    as_user(admission, OWNER, "create", "-f", "-", stdin=json.dumps(a_policy("web", home, className=DEFAULT)))
    account = user_name("somebody")
    admission.apply(*role(account, home, rule("perfpolicy.io", ["performancepolicies/status"], ["get", "patch"]), name="operator"))
    patch = json.dumps({"status": {"observedGeneration": 1}})
    eventually(lambda: may(admission, account, "patch", "performancepolicies.perfpolicy.io/status", home))
    as_user(admission, account, "patch", "pp", "web", "-n", home, "--subresource=status", "--type=merge", "-p", patch)


def test_deletion_in_the_foreground_and_of_the_namespace_is_not_in_the_way(admission: Cluster, home: str) -> None:
    # The garbage collector updates what it deletes in the foreground, and may update every kind, but not use this class.
    may_use_private(admission, home)
    first, second = (a_policy(name, home, className=PRIVATE) for name in ("web", "second"))
    eventually(lambda: refusal(admission, OWNER, first) == "")
    for policy in (first, second):
        as_user(admission, OWNER, "create", "-f", "-", stdin=json.dumps(policy))
    uid = admission.kubectl("get", "pp", "web", "-n", home, "-o", "jsonpath={.metadata.uid}")
    owner = {"apiVersion": "perfpolicy.io/v1alpha1", "kind": "PerformancePolicy", "name": "web", "uid": uid, "blockOwnerDeletion": True}
    metadata = {"name": "child", "namespace": home, "ownerReferences": [owner]}
    admission.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})
    as_user(admission, VISITOR, "delete", "pp", "web", "-n", home, "--cascade=foreground", "--wait=false")
    eventually(lambda: admission.get("pp", "web", home) is None)
    admission.kubectl("delete", "namespace", home, "--wait=false")
    eventually(lambda: admission.kubectl("get", "namespace", home, "--ignore-not-found") == "", seconds=60)
