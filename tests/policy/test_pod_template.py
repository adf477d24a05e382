"""The author's pod template: too deep or odd ones are refused, and so is what would reach past the namespace or the mesh."""

from typing import Any

import pytest

from perfpolicy.api.performance_class import parse_class
from perfpolicy.api.policy import PolicySettings, parse_policy
from perfpolicy.policy.classes import Granted
from perfpolicy.policy.facts import Facts
from perfpolicy.policy.layers import merge
from perfpolicy.policy.pod_template import checked_template
from perfpolicy.policy.resolution import Resolution
from tests.api.objects import a_class_object, a_policy_object
from tests.policy.support import problems, resolved

PATH = "spec.workload.deployment.template"


def refused(template: dict[str, Any]) -> list[str]:
    """The paths below the template that are refused."""
    return [p.path.removeprefix(f"{PATH}.") for p in problems({"workload.deployment.template": template})]


def a_pod(**spec: Any) -> dict[str, Any]:
    return {"spec": spec}


def a_container(**container: Any) -> dict[str, Any]:
    return a_pod(containers=[{"name": "app", **container}])


def checked(template: dict[str, Any]) -> list[tuple[str, str]]:
    """What is wrong with a template that is not copied on its way, as deep copies recurse."""
    policy, cls = parse_policy(a_policy_object()), parse_class(a_class_object())
    context = Resolution(policy, cls, Facts(), PolicySettings(), merge(policy, cls), Granted(()))
    assert checked_template(context, template) == {}
    return [(problem.path, problem.message) for problem in context.problems]


@pytest.mark.parametrize("levels", [40, 50_000])
def test_a_template_too_deep_to_walk_through_is_refused(levels: int) -> None:
    deep: dict[str, Any] = {}
    for _ in range(levels):
        deep = {"a": [deep]}
    assert checked(a_pod(affinity=deep)) == [(PATH, "too deep: a template may have 32 levels")]


def test_a_template_too_large_is_refused() -> None:
    large = {"annotations": {f"note-{n}": "x" * 100 for n in range(1000)}}
    assert checked({"metadata": large}) == [(PATH, "too large: a template may have 65536 characters")]


@pytest.mark.parametrize(
    ("template", "path"),
    [
        (a_pod(hostNetwork=True), "spec.hostNetwork"),
        (a_pod(hostPID=True), "spec.hostPID"),
        (a_pod(hostIPC="true"), "spec.hostIPC"),
        (a_pod(nodeName="n1"), "spec.nodeName"),
        (a_pod(priorityClassName="system-node-critical"), "spec.priorityClassName"),
        (a_pod(priority=2_000_000_000), "spec.priority"),
        (a_pod(ofTomorrow=1), "spec.ofTomorrow"),
        (a_pod(serviceAccountName="admin"), "spec.serviceAccountName"),
        (a_pod(serviceAccount="admin"), "spec.serviceAccount"),
        (a_pod(volumes=[{"name": "h", "hostPath": {"path": "/"}}]), "spec.volumes[0].hostPath"),
        (a_pod(volumes=[{"name": "h", "nfs": {"path": "/"}}]), "spec.volumes[0].nfs"),
        (a_pod(volumes={"name": "h"}), "spec.volumes"),
        (a_pod(securityContext=[]), "spec.securityContext"),
        (a_pod(securityContext={"sysctls": [{"name": "kernel.msgmax"}]}), "spec.securityContext.sysctls[0].name"),
        (a_pod(securityContext={"seccompProfile": {"type": "Unconfined"}}), "spec.securityContext.seccompProfile.type"),
        (a_pod(securityContext={"appArmorProfile": {"type": "Unconfined"}}), "spec.securityContext.appArmorProfile.type"),
        (a_pod(securityContext={"windowsOptions": {"hostProcess": True}}), "spec.securityContext.windowsOptions.hostProcess"),
        (a_pod(securityContext={"seLinuxOptions": {"type": "spc_t"}}), "spec.securityContext.seLinuxOptions.type"),
        (a_pod(securityContext={"seLinuxOptions": {"user": "root"}}), "spec.securityContext.seLinuxOptions.user"),
        (a_pod(securityContext={"runAsUser": 1337}), "spec.securityContext.runAsUser"),
        (a_pod(securityContext={"supplementalGroups": [1337]}), "spec.securityContext.supplementalGroups"),
        (
            a_pod(initContainers=[{"name": "i", "securityContext": {"privileged": True}}]),
            "spec.initContainers[0].securityContext.privileged",
        ),
        (a_pod(initContainers=[{"name": "istio-init"}]), "spec.initContainers[0].name"),
        (a_pod(containers=[{"name": "istio-proxy", "image": "mine"}]), "spec.containers[0].name"),
        (a_container(securityContext={"privileged": True}), "spec.containers[0].securityContext.privileged"),
        (
            a_container(securityContext={"allowPrivilegeEscalation": True}),
            "spec.containers[0].securityContext.allowPrivilegeEscalation",
        ),
        (a_container(securityContext={"procMount": "Unmasked"}), "spec.containers[0].securityContext.procMount"),
        (a_container(securityContext={"capabilities": {"add": ["SYS_ADMIN"]}}), "spec.containers[0].securityContext.capabilities.add"),
        (a_container(ports=[{"containerPort": 1, "hostPort": 1}]), "spec.containers[0].ports[0].hostPort"),
        (a_container(livenessProbe={"httpGet": {"host": "10.0.0.1"}}), "spec.containers[0].livenessProbe.httpGet.host"),
        (a_container(lifecycle={"preStop": {"tcpSocket": {"host": "x"}}}), "spec.containers[0].lifecycle.preStop.tcpSocket.host"),
        (a_container(env=["x"]), "spec.containers[0].env[0]"),
        (a_container(env=[{"name": {}}]), "spec.containers[0].env[0].name"),
        (a_container(env={"a": 1}), "spec.containers[0].env"),
        (a_container(ports=["x"]), "spec.containers[0].ports[0]"),
        (a_container(ports=[{"containerPort": {}}]), "spec.containers[0].ports[0].containerPort"),
    ],
)
def test_what_reaches_past_the_namespace_is_refused(template: dict[str, Any], path: str) -> None:
    assert refused(template) == [path]


@pytest.mark.parametrize(
    ("metadata", "path"),
    [
        ({"annotations": {"sidecar.istio.io/proxyImage": "mine"}}, "metadata.annotations.sidecar.istio.io/proxyImage"),
        ({"annotations": {"inject.istio.io/templates": "mine"}}, "metadata.annotations.inject.istio.io/templates"),
        ({"annotations": {"proxy.istio.io/config": "{}"}}, "metadata.annotations.proxy.istio.io/config"),
        (
            {"annotations": {"traffic.sidecar.istio.io/includeInboundPorts": ""}},
            "metadata.annotations.traffic.sidecar.istio.io/includeInboundPorts",
        ),
        ({"labels": {"istio.io/dataplane-mode": "none"}}, "metadata.labels.istio.io/dataplane-mode"),
        ({"labels": {"security.istio.io/tlsMode": "disabled"}}, "metadata.labels.security.istio.io/tlsMode"),
        (
            {"annotations": {"container.apparmor.security.beta.kubernetes.io/app": "unconfined"}},
            "metadata.annotations.container.apparmor.security.beta.kubernetes.io/app",
        ),
    ],
)
def test_what_changes_the_sidecar_is_refused(metadata: dict[str, Any], path: str) -> None:
    assert refused({"metadata": metadata}) == [path]


@pytest.mark.parametrize(("ports", "count"), [("8081", 0), ("8081, 8082", 0), ("8080", 1), ("8081,9090", 1), ("*", 1), ("", 1)])
def test_only_ports_that_are_not_the_policys_may_leave_the_mesh(ports: str, count: int) -> None:
    template = {"metadata": {"annotations": {"traffic.sidecar.istio.io/excludeInboundPorts": ports}}}
    found = problems({"workload.deployment.template": template, "service": {"metricsPort": 9090}})
    assert [p.path for p in found] == [f"{PATH}.metadata.annotations.traffic.sidecar.istio.io/excludeInboundPorts"] * count


def test_a_service_account_needs_a_grant() -> None:
    changes = {"workload.deployment.template": a_pod(serviceAccountName="reader")}
    (problem,) = problems(changes)
    assert "allowed: default" in problem.message
    granting = {"grants": [{"name": "all", "workloadCreation": "Allowed", "serviceAccounts": ["reader"]}]}
    assert problems(changes, granting) == []
    assert problems({"workload.deployment.template": a_pod(serviceAccountName="default")}) == []


def test_an_ordinary_template_is_kept() -> None:
    template = {
        "metadata": {
            "labels": {"tier": "back"},
            "annotations": {"sidecar.istio.io/proxyCPU": "100m", "prometheus.istio.io/merge-metrics": "false", "note": "x"},
        },
        "spec": {
            "hostNetwork": False,
            "tolerations": [{"operator": "Exists"}],
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "volumes": [{"name": "tmp", "emptyDir": {}}, {"name": "conf", "configMap": {"name": "c"}}],
            "containers": [
                {
                    "name": "app",
                    "ports": [{"containerPort": 8081}],
                    "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
                    "securityContext": {"capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}},
                    "livenessProbe": {"httpGet": {"path": "/", "port": 8080}},
                }
            ],
        },
    }
    owned = resolved({"workload.deployment.template": template}).workload.owned
    assert owned is not None
    assert owned.template == template
