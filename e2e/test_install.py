"""The operator installed as its README says, on an empty cluster with restricted Pod Security, and what then happens to an installation.

The tests are one story and run in order. They take the project's CRDs out of the shared lab and put them back, so nothing else of this
project may run on it meanwhile: `make test` runs them as a suite of their own.
"""

import json
import re
import secrets
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.cluster import OPERATOR_AGENT, Cluster
from e2e.installation import ACCOUNT, CRDS, NAMESPACE, RELEASE, ROOT, Installation, readme_commands
from e2e.installed import Installed, web_policy
from e2e.policies import API_VERSION
from e2e.prometheus_stub import Mode, PrometheusStub
from e2e.proofs import evict
from e2e.waiting import eventually, throughout
from lab import audit, images, operator_image, prometheus, workloads
from lab.errors import CommandError
from lab.lab import Lab

# On a machine without a cache the first fixture builds the image.
pytestmark = pytest.mark.timeout(600)
OUR_CRDS = ("performancepolicies.perfpolicy.io", "performanceclasses.perfpolicy.io")
DEVELOPMENT = {"perfpolicy.io/environment": "development"}
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
Say = Callable[[str], None]


@pytest.fixture(scope="module")
def say(request: pytest.FixtureRequest) -> Say:
    """Shows a measured figure beside the tests' names, also when nothing failed."""
    plugins = request.config.pluginmanager
    reporter, captured = plugins.get_plugin("terminalreporter"), plugins.get_plugin("capturemanager")
    assert reporter
    assert captured

    def write(text: str) -> None:
        with captured.global_and_fixture_disabled():
            reporter.write_line(f"    {text}")

    return write


@pytest.fixture(scope="module")
def lab() -> Lab:
    """The lab with a real node, with the image of this checkout."""
    found = Lab("real", "real")
    assert found.kubeconfig.exists(), "the real lab is not up: bring it up with `python -m lab up`"
    operator_image.ensure(found)
    return found


@pytest.fixture(scope="module")
def empty(lab: Lab) -> Iterator[Installation]:
    """A cluster that knows nothing of perfpolicy, and afterwards again what the other suites expect: the CRDs, and nothing else of ours."""
    installation = Installation(Cluster(lab))
    served = "performancepolicies" in lab.kubectl("api-resources", "--api-group=perfpolicy.io", "-o", "name")
    if served:
        # Their namespaces are still going when a suite has just ended. Nobody else's may be taken away.
        eventually(lambda: _nobodys_policies(lab), seconds=60)
    _remove(lab)
    lab.apply([workloads.namespace(NAMESPACE, injected=False, labels=RESTRICTED)])
    yield installation
    _remove(lab)
    if served:
        lab.apply("\n---\n".join(path.read_text() for path in sorted((ROOT / "crds").glob("*.yaml"))))


def _nobodys_policies(lab: Lab) -> bool:
    """There are no policies; the assertion names them otherwise."""
    found = lab.kubectl(
        "get", "pp", "-A", "--no-headers", "--ignore-not-found", "-o", "custom-columns=:.metadata.namespace,:.metadata.name"
    )
    assert not found.strip(), f"these policies would be lost, delete them first (or `make lab-down` after `make demo KEEP=1`):\n{found}"
    return True


def _remove(lab: Lab) -> None:
    for release in (RELEASE, CRDS):
        lab.helm("uninstall", release, "--namespace", NAMESPACE, "--ignore-not-found", "--wait")
    lab.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=60s")
    lab.kubectl("delete", "crd", *OUR_CRDS, "--ignore-not-found", "--timeout=60s")


@pytest.fixture(scope="module")
def installed(empty: Installation, say: Say) -> Iterator[Installed]:
    """The README's install section, and a policy in a namespace of ours."""
    namespace = f"install-{secrets.token_hex(3)}"
    commands = readme_commands()
    assert any("helm install" in command for command in commands), commands
    since, began = audit.position(empty.cluster.lab.audit_log), time.monotonic()
    for command in commands:
        started = time.monotonic()
        empty.shell(command)
        say(f"$ {' '.join(command.split())}  ({time.monotonic() - started:.1f} s)")
    labels = {**RESTRICTED, **DEVELOPMENT}
    empty.cluster.apply(workloads.namespace(namespace, injected=False, labels=labels), web_policy(namespace))
    made = Installed(empty, namespace, 0, since)
    try:
        eventually(made.ready, seconds=90)
        yield Installed(empty, namespace, time.monotonic() - began, since)
    finally:
        for pod in empty.pods():
            print(f"--- log of {pod}\n{empty.cluster.kubectl('logs', '-n', NAMESPACE, pod, '--tail=100')}")
        empty.cluster.kubectl("delete", "namespace", namespace, "--wait=false")


def test_the_readme_leads_from_an_empty_cluster_to_a_ready_policy_within_a_minute(installed: Installed, say: Say) -> None:
    say(f"install → first Ready: {installed.seconds:.1f} s")
    assert installed.seconds <= 60
    kinds = {child.split()[0] for child in installed.footprint()} - {"pod"}
    without_sidecar = {
        "NetworkPolicy",
        "PeerAuthentication",
        "Service",
        "DestinationRule",
        "VirtualService",
        "Deployment",
        "PrometheusRule",
    }
    assert kinds == without_sidecar


TOOLS = ("pip", "pip3", "gcc", "g++", "cc", "c++", "clang", "rustc", "go", "as", "ld", "make", "buildah", "cyclonedx-py")
LOOK = (
    f"""
PROGRAMS = {TOOLS}
"""
    + """
import importlib.metadata, importlib.util, json, os, shutil
try:
    open("/opt/perfpolicy/x", "w")
    writable = True
except OSError as error:
    writable = error.strerror
print(json.dumps({
    "ids": [os.getuid(), os.getgid()],
    "writable": writable,
    "modules": [name for name in ("pip", "ensurepip", "hatchling", "cyclonedx_py") if importlib.util.find_spec(name)],
    "programs": [name for name in PROGRAMS if shutil.which(name)],
    "packages": sorted(f"{d.name}=={d.version}".lower().replace("_", "-") for d in importlib.metadata.distributions()),
    "sbom": json.load(open("/opt/perfpolicy/sbom.cdx.json")),
}))
"""
)


def test_the_image_holds_the_locked_packages_and_its_bill_of_materials_and_no_tools(installed: Installed) -> None:
    found = json.loads(installed.cluster.kubectl("exec", "-n", NAMESPACE, f"deployment/{RELEASE}", "--", "python3", "-c", LOOK))
    locked = re.findall(r"^([^ #]+==[^ ]+)", (ROOT / "requirements/runtime.txt").read_text(), re.MULTILINE)
    version = operator_image.version()
    assert found["ids"] == [65532, 65532]
    assert found["writable"] == "Read-only file system"
    assert (found["modules"], found["programs"]) == ([], [])
    assert set(found["packages"]) == {*locked, f"perfpolicy=={version}"}
    listed = {f"{item['name']}=={item['version']}".lower().replace("_", "-") for item in found["sbom"]["components"]}
    assert listed == set(locked)
    assert found["sbom"]["metadata"]["component"]["version"] == version
    said = images.archive_config(operator_image.build())
    labels = {key.removeprefix("org.opencontainers.image."): value for key, value in said["Labels"].items()}
    assert (said["User"], labels["title"], labels["version"], labels["licenses"]) == ("65532:65532", "perfpolicy", version, "Apache-2.0")
    assert labels["description"]
    assert re.fullmatch("[0-9a-f]{40}|unknown", labels["revision"])


def test_two_operators_run_and_one_leads(installed: Installed) -> None:
    pods = installed.it.pods()
    assert len(pods) == 2
    assert all(pod.ready for pod in pods.values()), "a warm standby is ready too"
    leading = {name for name in pods if installed.it.metric(name, "perfpolicy_leader") == 1}
    assert leading == {installed.it.leader()}
    # As docs/install.md asks, by way of the Service the ServiceMonitor reads.
    asked = re.findall(r"^\$ (kubectl get --raw .*readyz.*)$", (ROOT / "docs/install.md").read_text(), re.MULTILINE)
    assert [json.loads(installed.it.shell(command))["ready"] for command in asked] == [True]


def test_helm_test_passes(installed: Installed, say: Say) -> None:
    began = time.monotonic()
    installed.it.helm("test", RELEASE, "--timeout", "60s")
    say(f"helm test: {time.monotonic() - began:.1f} s")


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ("replicas=two", "/replicas"),
        ("replcas=2", "replcas"),
        ("scope.namespaces={Upper}", "/scope/namespaces/0"),
        ("prometheus.address=prometheus:9090", "/prometheus/address"),
        ("settings.workres=3", "workres"),
        ("classes.production.spec.grants.workloadCreation=Allowed", "/classes/production/spec/grants"),
    ],
)
def test_a_wrong_value_is_refused_with_its_path(empty: Installation, value: str, path: str) -> None:
    with pytest.raises(CommandError) as refused:
        empty.helm("install", "wrong", str(ROOT / "charts" / RELEASE), "--set", value)
    assert path in str(refused.value)
    assert "wrong" not in empty.helm("list", "--short").split()


GROUPS = ["", "networking.k8s.io", "networking.istio.io", "security.istio.io", "monitoring.coreos.com"]
TARGETED = {"targetRef": {"group": "apps", "kind": "Deployment", "name": "theirs"}}


@dataclass(frozen=True)
class Tenant:
    """A user who may do everything in one namespace, except where told."""

    name: str
    cluster: Cluster

    def apply(self, *objects: dict[str, Any]) -> None:
        """`kubectl apply` as this user."""
        listed = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.cluster.kubectl("apply", "--as", self.name, "-f", "-", input=json.dumps(listed))


@pytest.fixture(scope="module")
def tenants(installed: Installed) -> Iterator[tuple[Tenant, Tenant]]:
    """One who may do everything in its namespace, and one who may not create Deployments in its own; namespaces are called like them."""
    token, lab = secrets.token_hex(3), installed.cluster.lab
    may, may_not = (Tenant(f"{name}-{token}", installed.cluster) for name in ("builder", "tuner"))
    reserved = f"reserved-{token}"
    rules = [
        *({"apiGroups": [group], "resources": ["*"], "verbs": ["*"]} for group in GROUPS),
        {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": ["perfpolicy.io"], "resources": ["performancepolicies"], "verbs": ["*"]},
        {"apiGroups": ["perfpolicy.io"], "resources": ["performanceclasses"], "resourceNames": [reserved], "verbs": ["use"]},
    ]
    for tenant in (may, may_not):
        builds = [{"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["*"]}] if tenant is may else []
        metadata = {"name": "tenant", "namespace": tenant.name}
        lab.apply(
            [
                workloads.namespace(tenant.name, injected=False, labels=DEVELOPMENT),
                {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": metadata, "rules": [*rules, *builds]},
                _binding("tenant", "Role", "tenant", tenant.name),
                # As an administrator lets somebody use a class, see docs/security.md.
                _binding("development", "ClusterRole", f"{RELEASE}-use-development", tenant.name),
                workloads.backend("theirs", tenant.name, merge_metrics=False),
                workloads.service("theirs", tenant.name),
            ]
        )
    spec = {"allowedNamespaces": {"names": [may.name]}}
    lab.apply([{"apiVersion": API_VERSION, "kind": "PerformanceClass", "metadata": {"name": reserved}, "spec": spec}])
    yield may, may_not
    lab.kubectl("delete", "namespace", may.name, may_not.name, "--wait=false")
    lab.kubectl("delete", "performanceclass", reserved, "--ignore-not-found")


def _binding(name: str, kind: str, role: str, tenant: str) -> dict[str, Any]:
    """Binds a role to the user called like its namespace, there."""
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": name, "namespace": tenant},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": tenant}],
    }


def test_who_may_create_deployments_may_through_a_policy_and_who_may_not_may_not(
    installed: Installed, tenants: tuple[Tenant, Tenant]
) -> None:
    may, may_not = tenants
    may.apply(web_policy(may.name))
    with pytest.raises(CommandError, match="cannot create resource"):
        installed.cluster.kubectl("create", "deployment", "web", "--image=x", "-n", may_not.name, "--as", may_not.name)
    with pytest.raises(CommandError, match=r"(?i)denied request: .*deployment"):
        may_not.apply(web_policy(may_not.name))
    # What it may create itself it may through a policy; and that door does not lead on to a Deployment.
    may_not.apply(web_policy(may_not.name, "theirs", workload={**TARGETED, "serviceRef": {"name": "theirs"}}, service={}))
    with pytest.raises(CommandError, match=r"(?i)denied request: .*deployment"):
        may_not.apply(web_policy(may_not.name, "theirs"))
    eventually(lambda: installed.cluster.condition("web", may.name, "Ready")[0] == "True", seconds=60)
    eventually(lambda: installed.cluster.condition("theirs", may_not.name, "Ready")[0] == "True", seconds=60)
    assert installed.cluster.names("deployment", may_not.name) == {"theirs"}


def test_a_class_that_is_not_meant_for_a_namespace_is_of_no_use_there(installed: Installed, tenants: tuple[Tenant, Tenant]) -> None:
    may, may_not = tenants
    reserved = f"reserved-{may.name.rpartition('-')[2]}"
    targeted = {"workload": {**TARGETED, "serviceRef": {"name": "theirs"}}, "service": {}, "className": reserved}
    installed.cluster.kubectl("delete", "pp", "--all", "-n", may_not.name)
    with pytest.raises(CommandError, match="may not use PerformanceClass staging"):
        may_not.apply(web_policy(may_not.name, "theirs", **{**targeted, "className": "staging"}))
    for tenant in tenants:
        tenant.apply(web_policy(tenant.name, "reserved", **targeted))
    eventually(lambda: installed.cluster.condition("reserved", may_not.name, "Accepted") == ("False", "ClassNotPermitted"))
    eventually(lambda: installed.cluster.condition("reserved", may.name, "Accepted") == ("True", "Valid"))
    assert installed.cluster.get("networkpolicy", "reserved", may_not.name) is None


def test_the_operator_asks_as_its_service_account_and_is_refused_nothing(installed: Installed) -> None:
    log = installed.cluster.lab.audit_log
    assert {one.user for one in audit.requests(log, installed.since, OPERATOR_AGENT) if one.agent.startswith(OPERATOR_AGENT)} == {ACCOUNT}
    asked = installed.it.requests(installed.since)
    assert {("patch", "deployments"), ("patch", "performancepolicies/status"), ("update", "leases")} <= {
        (one.verb, one.resource) for one in asked
    }
    assert [one for one in asked if one.unauthorized] == []


def test_a_killed_leader_is_replaced_within_twenty_seconds(installed: Installed, say: Say) -> None:
    leader, other = installed.it.settled()
    since, began = audit.position(installed.cluster.lab.audit_log), datetime.now(UTC)
    installed.it.signal(leader, signal.SIGKILL)
    # Else kubelet starts it again in the same pod, which may go on with its own lease.
    installed.cluster.kubectl("delete", "pod", leader, "-n", NAMESPACE, "--force", "--grace-period=0", "--wait=false")
    seconds = installed.seconds_to_a_write_of(installed.it.pods()[other].address, since, began, limit=25)
    say(f"leader killed → next write by the other: {seconds:.1f} s")
    assert seconds <= 20


def test_a_terminated_leader_is_replaced_within_three_seconds(installed: Installed, say: Say) -> None:
    leader, other = installed.it.settled()
    address = installed.it.pods()[other].address
    since, began = audit.position(installed.cluster.lab.audit_log), datetime.now(UTC)
    # As a drain does, which the disruption budget does not let take both.
    assert evict(installed.cluster, NAMESPACE, leader) == ""
    assert "disruption budget" in evict(installed.cluster, NAMESPACE, other, dry_run=True)
    seconds = installed.seconds_to_a_write_of(address, since, began, limit=10)
    say(f"leader terminated → next write by the other: {seconds:.1f} s")
    assert seconds <= 3


def test_upgrade_rollback_uninstall_and_reinstall_disturb_no_child_and_no_pod(installed: Installed, say: Say, tmp_path: Path) -> None:
    it, cluster, chart = installed.it, installed.cluster, tmp_path / CRDS
    it.settled()
    eventually(installed.ready)
    before, operators, since = installed.footprint(), it.pods(), audit.position(cluster.lab.audit_log)
    assert any(name.startswith("pod ") for name in before)

    shutil.copytree(ROOT / "charts" / CRDS, chart)
    _add_a_field(chart)
    it.helm("upgrade", CRDS, str(chart))
    eventually(lambda: "nextVersion" in cluster.kubectl("explain", "pp.spec"))
    it.helm("rollback", CRDS)
    eventually(lambda: "nextVersion" not in cluster.kubectl("explain", "pp.spec"))
    assert it.pods() == operators, "a CRD's upgrade is no reason to restart the operator"

    with PrometheusStub(prometheus.url(cluster.lab), Mode.PASS, host=cluster.lab.host) as mimir:
        cluster.kubectl("create", "secret", "generic", "prometheus-token", "-n", NAMESPACE, "--from-literal=token=e2e")
        began = time.monotonic()
        # As docs/install.md says, with all options on: nothing but a real API server judges a ServiceMonitor.
        options = ",".join(f"{name}.enabled=true" for name in ("serviceMonitor", "alerts", "dashboard"))
        asked = f"prometheus.address={mimir.url},prometheus.tenant=team-a,prometheus.auth.secretName=prometheus-token"
        dropped = [{"sourceLabels": ["__name__"], "regex": "perfpolicy_threshold_.*", "action": "drop"}]
        relabelled = ("--set-json", f"serviceMonitor.metricRelabelings={json.dumps(dropped)}")
        changes = ("--set", f"log.level=debug,{options},{asked}", *relabelled)
        it.helm("upgrade", RELEASE, str(ROOT / "charts" / RELEASE), "--reset-then-reuse-values", *changes, "--wait", "--timeout", "60s")
        installed_options = cluster.kubectl("get", f"servicemonitor/{RELEASE}", f"prometheusrule/{RELEASE}", "-n", NAMESPACE, "-o", "name")
        assert len(installed_options.split()) == 2
        say(f"upgrade of the operator: {time.monotonic() - began:.1f} s")
        eventually(lambda: "PerfPolicyNoLeader" in _alerts_loaded(cluster.lab))
        eventually(lambda: {"walked", "asked the API server"} <= _logged_at_debug(it))
        eventually(lambda: bool(mimir.asked_as))
        assert mimir.asked_as == {("team-a", "Bearer e2e")}
        began = time.monotonic()
        it.helm("rollback", RELEASE, "--wait", "--timeout", "60s")
        say(f"rollback of the operator: {time.monotonic() - began:.1f} s")

    began = time.monotonic()
    it.helm("uninstall", RELEASE, "--wait", "--timeout", "60s")
    it.helm("uninstall", CRDS, "--wait", "--timeout", "60s")
    eventually(lambda: cluster.kubectl("get", "pods", "-n", NAMESPACE, "-o", "name") == "", seconds=60)
    say(f"uninstall with live policies: {time.monotonic() - began:.1f} s")
    assert time.monotonic() - began <= 60
    assert _terminating(cluster, installed.namespace) == []
    assert cluster.get("pp", "web", installed.namespace), "policies outlive the operator"
    # Nor does anything hang that is deleted while no operator is there.
    cluster.apply(web_policy(installed.namespace, "orphan"))
    cluster.kubectl("delete", "pp", "orphan", "-n", installed.namespace, "--timeout=10s")

    for command in readme_commands():
        it.shell(command)
    it.settled()
    eventually(installed.ready)
    settled = audit.position(cluster.lab.audit_log)
    throughout(lambda: it.child_writes(settled, installed.namespace) == [], seconds=3)
    assert it.child_writes(since, installed.namespace) == []
    assert installed.footprint() == before


def _add_a_field(chart: Path) -> None:
    """Give the policy's schema in a copy of the chart one field more."""
    for path in chart.rglob("*.yaml"):
        if "kind: PerformancePolicy\n" in path.read_text():
            crd = yaml.safe_load(path.read_text())
            schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
            schema["properties"]["spec"]["properties"]["nextVersion"] = {"type": "string", "description": "a field of the next version"}
            path.write_text(yaml.safe_dump(crd))
            return
    pytest.fail(f"{chart} has no CRD of PerformancePolicy")


def _logged_at_debug(it: Installation) -> set[str]:
    """Events in the leader's log, which is JSON lines, of that level."""
    lines = map(json.loads, it.cluster.kubectl("logs", "-n", NAMESPACE, it.leader()).splitlines())
    return {line["event"] for line in lines if line["level"] == "debug"}


def _alerts_loaded(lab: Lab) -> set[str]:
    """Names of the rules the lab's Prometheus evaluates without an error."""
    return {rule["name"] for group in prometheus.rule_groups(lab) for rule in group["rules"] if rule["health"] == "ok"}


def _terminating(cluster: Cluster, namespace: str) -> list[str]:
    """What of ours is being deleted and not gone."""
    kinds = "pp,all,networkpolicy,virtualservice,destinationrule,peerauthentication,authorizationpolicy,prometheusrule,configmap"
    found = [*cluster.lab.get(kinds, "-n", namespace)["items"], *cluster.lab.get("all,lease", "-n", NAMESPACE)["items"]]
    found += cluster.lab.get("crd", *OUR_CRDS)["items"]
    found += [item for item in cluster.lab.get("namespaces")["items"] if item["metadata"]["name"] in (namespace, NAMESPACE)]
    return [f"{item['kind']} {item['metadata']['name']}" for item in found if "deletionTimestamp" in item["metadata"]]


def test_the_operator_stays_up_and_says_what_is_missing_and_recovers_by_itself(installed: Installed, say: Say) -> None:
    it, cluster = installed.it, installed.cluster
    leader, _ = it.settled()
    pods = it.pods()
    crd, role = "peerauthentications.security.istio.io", _role_for(cluster, "destinationrules")
    definition = json.loads(cluster.kubectl("get", "crd", crd, "-o", "json"))
    definition["metadata"] = {"name": crd, "labels": definition["metadata"].get("labels", {})}
    definition.pop("status")
    _prometheus_reachable(cluster, installed.namespace, reachable=False)
    _blind_class(cluster, installed.namespace)
    cluster.kubectl("patch", "pp", "web", "-n", installed.namespace, "--type=merge", "-p", '{"spec":{"className":"install-blind"}}')
    cluster.kubectl("delete", "crd", crd)
    try:
        eventually(lambda: "PeerAuthentication" in _said(installed, "Programmed", "DependencyMissing"))
        eventually(lambda: it.metric(leader, "perfpolicy_policies", condition="Programmed", status="False") >= 1)
        eventually(lambda: 'perfpolicy_watch_age_seconds{kind="peerauthentications"}' not in it.ask(leader, "/metrics")[1])
        eventually(lambda: _said(installed, "MetricsAvailable", "SourceUnreachable"), seconds=60)
        cluster.lab.apply([_without(role, "destinationrules")])
        cluster.delete("destinationrule", "web", installed.namespace)
        eventually(lambda: "DestinationRule" in _said(installed, "Programmed", "ApplyFailed"), seconds=60)
        status, report = it.ask(leader, "/readyz?verbose")
        assert status == 200, "none of this is a reason to take the operator out of service"
        told = json.loads(report)
        assert "peerauthentications.security.istio.io" in told["absentKinds"]
        assert any(name.endswith(" destinationrules") and "forbidden" in why for name, why in told["problems"].items()), told
        assert any(name.startswith("metrics http://prometheus.") for name in told["problems"]), told
        assert it.metric(leader, "perfpolicy_prometheus_queries_total", result="error") >= 1
        assert it.metric(leader, "perfpolicy_api_requests_total", code="403") >= 1
    finally:
        began = time.monotonic()
        cluster.lab.apply([role])
        cluster.kubectl("create", "-f", "-", input=json.dumps(definition))
        _prometheus_reachable(cluster, installed.namespace, reachable=True)
    eventually(installed.ready, seconds=60)
    eventually(lambda: installed.conditions()["MetricsAvailable"][1] != "SourceUnreachable", seconds=60)
    say(f"all repaired → Ready and measured again: {time.monotonic() - began:.1f} s")
    eventually(lambda: it.metric(leader, "perfpolicy_policies", condition="Programmed", status="False") == 0)
    report = json.loads(it.ask(leader, "/readyz?verbose")[1])
    assert "peerauthentications.security.istio.io" not in report["absentKinds"]
    # What was refused is told for a while: nobody tells an operator of a right it was given.
    assert [name for name in report["problems"] if name.startswith(("metrics ", "watch "))] == []
    assert it.pods() == pods, "no operator restarted"


def test_an_installation_for_some_namespaces_needs_nothing_cluster_wide_and_waits_for_the_crds(installed: Installed, say: Say) -> None:
    it, cluster = installed.it, installed.cluster
    it.helm("uninstall", RELEASE, "--wait", "--timeout", "60s")
    # As docs/install.md takes every policy away.
    it.helm("uninstall", CRDS, "--wait", "--timeout", "60s")
    cluster.kubectl("delete", "crd", *OUR_CRDS, "--timeout=60s")
    eventually(lambda: cluster.names("deployment,networkpolicy,virtualservice", installed.namespace) == set(), seconds=60)
    # Its rights go before its pods do, so the leader cannot release it, and the next one would wait for its end.
    cluster.kubectl("delete", "lease", RELEASE, "-n", NAMESPACE, "--ignore-not-found")
    began = time.monotonic()
    # With Roles only there is no class in the release, so Helm does not miss the CRDs: the operator does.
    changes = ("--set", f"scope.namespaces={{{installed.namespace}}},settings.discovery=1")
    it.helm("install", RELEASE, str(ROOT / "charts" / RELEASE), *changes, "--wait", "--timeout", "60s")
    leader, _ = it.settled()
    pods = it.pods()
    assert "performancepolicies.perfpolicy.io" in json.loads(it.ask(leader, "/readyz?verbose")[1])["absentKinds"]
    it.helm("install", CRDS, str(ROOT / "charts" / CRDS), "--wait")
    cluster.apply(web_policy(installed.namespace))
    eventually(installed.ready, seconds=60)
    say(f"installation for one namespace, before the CRDs → Ready there: {time.monotonic() - began:.1f} s")
    assert it.pods() == pods, "no operator restarted"
    report = json.loads(it.ask(leader, "/readyz?verbose")[1])
    assert report["problems"] == {}
    assert "performancepolicies.perfpolicy.io" not in report["absentKinds"]
    kinds = "clusterrole,clusterrolebinding,performanceclass,validatingadmissionpolicy,validatingadmissionpolicybinding"
    assert cluster.kubectl("get", kinds, "-l", f"app.kubernetes.io/instance={RELEASE}", "-o", "name") == ""
    it.helm("test", RELEASE, "--timeout", "60s")


def _said(installed: Installed, condition: str, reason: str) -> str:
    """The message of a False condition with that reason; fails while it says anything else."""
    found = installed.conditions().get(condition, ("", "", ""))
    assert found[:2] == ("False", reason), found
    return found[2]


def _role_for(cluster: Cluster, resource: str) -> dict[str, Any]:
    """The operator's ClusterRole that lets it write a kind."""
    for role in cluster.lab.get("clusterroles", "-l", f"app.kubernetes.io/instance={RELEASE}")["items"]:
        if any(resource in rule.get("resources", ()) and "patch" in rule["verbs"] for rule in role["rules"]):
            metadata = {key: role["metadata"][key] for key in ("name", "labels", "annotations") if key in role["metadata"]}
            return {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": metadata, "rules": role["rules"]}
    pytest.fail(f"no ClusterRole of the release lets the operator write {resource}")


def _without(role: dict[str, Any], resource: str) -> dict[str, Any]:
    """The role, without the resource."""
    rules = [{**rule, "resources": [each for each in rule.get("resources", ()) if each != resource]} for rule in role["rules"]]
    return {**role, "rules": [rule for rule in rules if rule["resources"]]}


def _blind_class(cluster: Cluster, namespace: str) -> None:
    """A class like `development` whose Prometheus is behind a Service of ours."""
    found = json.loads(cluster.kubectl("get", "performanceclass", "development", "-o", "json"))
    spec = {**found["spec"], "metrics": {**found["spec"].get("metrics", {}), "address": f"http://prometheus.{namespace}.svc:9090"}}
    cluster.lab.apply([{"apiVersion": API_VERSION, "kind": "PerformanceClass", "metadata": {"name": "install-blind"}, "spec": spec}])


def _prometheus_reachable(cluster: Cluster, namespace: str, *, reachable: bool) -> None:
    """A Service in front of the lab's Prometheus, with or without an address behind it."""
    metadata, port = {"name": "prometheus", "namespace": namespace}, cluster.lab.port("prometheus")
    labelled = {**metadata, "labels": {"kubernetes.io/service-name": "prometheus"}}
    ports = [{"name": "http", "port": 9090, "targetPort": port}]
    addresses = [{"addresses": [cluster.lab.host], "conditions": {"ready": True}}] if reachable else []
    endpoints = {"addressType": "IPv4", "ports": [{"name": "http", "port": port}], "endpoints": addresses}
    cluster.lab.apply(
        [
            {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": ports}},
            {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": labelled, **endpoints},
        ]
    )
