"""What a pod of spec.workload.deployment.template may not ask for: it is created with the operator's rights, not its author's.

The baseline Pod Security Standard, without privilege escalation, and with nothing that reaches past the namespace or around the sidecar:
whoever may only create policies must not become root on a node, another ServiceAccount, or a pod the mesh does not see. Fields of the pod
are listed, not forbidden one by one: one that a later Kubernetes adds is refused until somebody has looked at it. Pure.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

Report = Callable[[str, str], None]
"""Takes the path below the template and what is wrong there."""

_POD_FIELDS: Final = frozenset({
    "activeDeadlineSeconds", "affinity", "automountServiceAccountToken", "containers", "dnsConfig", "dnsPolicy", "enableServiceLinks",
    "hostAliases", "hostIPC", "hostNetwork", "hostPID", "hostUsers", "hostname", "imagePullSecrets", "initContainers", "nodeSelector", "os",
    "preemptionPolicy", "readinessGates", "resources", "restartPolicy", "securityContext", "serviceAccount", "serviceAccountName",
    "setHostnameAsFQDN", "shareProcessNamespace", "subdomain", "terminationGracePeriodSeconds", "tolerations", "topologySpreadConstraints",
    "volumes",
})  # fmt: skip
_VOLUMES: Final = ("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim", "projected", "secret")
_CAPABILITIES: Final = (
    "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "SETFCAP", "SETGID", "SETPCAP",
    "SETUID", "SYS_CHROOT",
)  # fmt: skip
_SYSCTLS: Final = (
    "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_local_reserved_ports", "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_syncookies",
)  # fmt: skip
_PROFILES: Final = ("RuntimeDefault", "Localhost")
_SELINUX: Final = ("container_t", "container_init_t", "container_kvm_t", "container_engine_t")
_PROXY_ID: Final = 1337
"""User and group of Istio's proxy, whose traffic is not redirected."""
_PROXY_CONTAINERS: Final = frozenset({"istio-init", "istio-proxy", "istio-validation"})
_PROBES: Final = (("livenessProbe",), ("readinessProbe",), ("startupProbe",), ("lifecycle", "postStart"), ("lifecycle", "preStop"))

INJECT_LABEL: Final = "sidecar.istio.io/inject"
EXCLUDED_PORTS: Final = "traffic.sidecar.istio.io/excludeInboundPorts"
_HARMLESS: Final = frozenset(
    {"prometheus.istio.io/merge-metrics", *(f"sidecar.istio.io/proxy{what}" for what in ("CPU", "CPULimit", "Memory", "MemoryLimit"))}
)
"""Istio annotations that say how large the proxy is and who serves the application's metrics, nothing about who gets in."""
_APPARMOR: Final = "container.apparmor.security.beta.kubernetes.io/"
_SECCOMP: Final = ("seccomp.security.alpha.kubernetes.io/", "container.seccomp.security.alpha.kubernetes.io/")


def check_pod(report: Report, spec: Mapping[str, Any], service_accounts: frozenset[str]) -> None:
    """Reports what the pod's `spec` may not have. `service_accounts`: those the class grants, besides `default`."""
    for key in sorted(key for key, value in spec.items() if value is not None and key not in _POD_FIELDS):
        report(f"spec.{key}", "not allowed in a pod that a policy creates: use targetRef with a workload of your own")
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        _only_false(report, f"spec.{key}", spec.get(key))
    for key in ("serviceAccountName", "serviceAccount"):
        name = spec.get(key)
        if name is not None and name not in ("", "default", *sorted(service_accounts)):
            there = ", ".join(["default", *sorted(service_accounts)])
            report(f"spec.{key}", f"the class does not grant ServiceAccount {name!r} (its spec.grants.serviceAccounts); allowed: {there}")
    _check_context(report, "spec.securityContext", _mapping(report, "spec", spec, "securityContext"))
    for path, volume in _objects(report, "spec", spec, "volumes"):
        for kind in sorted(key for key, value in volume.items() if value is not None and key not in ("name", *_VOLUMES)):
            report(f"{path}.{kind}", f"not allowed; volumes may be {', '.join(_VOLUMES)}")
    for part in ("initContainers", "containers"):
        for path, container in _objects(report, "spec", spec, part):
            _check_container(report, path, container)


def check_labels(report: Report, labels: Mapping[str, Any]) -> None:
    """Reports labels by which a pod would choose how the mesh treats or names it."""
    for key in sorted(key for key in labels if _istio(key) and key != INJECT_LABEL):
        report(f"metadata.labels.{key}", f"labels of Istio are not allowed here, besides {INJECT_LABEL}")


def check_annotations(report: Report, annotations: Mapping[str, Any], ports: frozenset[int]) -> None:
    """Reports annotations that change the sidecar, or take one of the policy's `ports` out of the mesh, or loosen a profile."""
    for key, value in sorted(annotations.items()):
        path = f"metadata.annotations.{key}"
        if key == EXCLUDED_PORTS:
            _check_excluded(report, path, value, ports)
        elif _istio(key) and key not in _HARMLESS:
            allowed = ", ".join(sorted({EXCLUDED_PORTS, *_HARMLESS}))
            report(path, f"annotations of Istio are not allowed here, besides {allowed}")
        elif key.startswith(_SECCOMP) or (key.startswith(_APPARMOR) and value != "runtime/default"):
            report(path, "not allowed: use securityContext")


def _check_excluded(report: Report, path: str, value: object, ports: frozenset[int]) -> None:
    for text in str(value).split(","):
        number = text.strip()
        if not (number.isascii() and number.isdigit()):
            report(path, f"{text!r} is not a port: every port outside the mesh is named, by its number")
        elif int(number) in ports:
            report(path, f"port {number} is the policy's own: what it asks of the mesh would not hold there")


def _check_container(report: Report, path: str, container: Mapping[str, Any]) -> None:
    if container.get("name") in _PROXY_CONTAINERS:
        report(f"{path}.name", f"{container['name']!r} is the sidecar's own: Istio would take it for a change of the proxy")
    context = _mapping(report, path, container, "securityContext")
    _check_context(report, f"{path}.securityContext", context)
    for key in ("privileged", "allowPrivilegeEscalation"):
        _only_false(report, f"{path}.securityContext.{key}", context.get(key))
    if context.get("procMount") not in (None, "Default"):
        report(f"{path}.securityContext.procMount", "only Default is allowed")
    added = _mapping(report, f"{path}.securityContext", context, "capabilities").get("add")
    if added is not None and not (isinstance(added, list) and all(name in _CAPABILITIES for name in added)):
        report(f"{path}.securityContext.capabilities.add", f"only {', '.join(_CAPABILITIES)} are allowed")
    for place, port in _objects(report, path, container, "ports"):
        if not isinstance(port.get("containerPort"), int):
            report(f"{place}.containerPort", "must be a number")
        for key in ("hostPort", "hostIP"):
            if port.get(key):
                report(f"{place}.{key}", "ports of the node are not allowed")
    for place, variable in _objects(report, path, container, "env"):
        if not isinstance(variable.get("name"), str):
            report(f"{place}.name", "must be text")
    for steps in _PROBES:
        _check_probe(report, path, container, steps)


def _check_probe(report: Report, path: str, container: Mapping[str, Any], steps: tuple[str, ...]) -> None:
    """The kubelet would ask from the node, past every network policy."""
    probe = container
    for step in steps:
        probe, path = _mapping(report, path, probe, step), f"{path}.{step}"
    for kind in ("httpGet", "tcpSocket"):
        if _mapping(report, path, probe, kind).get("host"):
            report(f"{path}.{kind}.host", "not allowed: the pod itself is asked")


def _check_context(report: Report, path: str, context: Mapping[str, Any]) -> None:
    for key in ("seccompProfile", "appArmorProfile"):
        kind = _mapping(report, path, context, key).get("type")
        if kind is not None and kind not in _PROFILES:
            report(f"{path}.{key}.type", f"only {' and '.join(_PROFILES)} are allowed")
    linux = _mapping(report, path, context, "seLinuxOptions")
    for key in ("user", "role"):
        if linux.get(key):
            report(f"{path}.seLinuxOptions.{key}", "not allowed")
    if linux.get("type") and linux["type"] not in _SELINUX:
        report(f"{path}.seLinuxOptions.type", f"only {', '.join(_SELINUX)} are allowed")
    _only_false(report, f"{path}.windowsOptions.hostProcess", _mapping(report, path, context, "windowsOptions").get("hostProcess"))
    for key in ("runAsUser", "runAsGroup", "fsGroup"):
        if context.get(key) == _PROXY_ID:
            report(f"{path}.{key}", f"{_PROXY_ID} is the sidecar's: traffic of the application would pass it by")
    groups = context.get("supplementalGroups")
    if groups is not None and not (isinstance(groups, list) and _PROXY_ID not in groups):
        report(f"{path}.supplementalGroups", f"must be a list without {_PROXY_ID}, which is the sidecar's")
    for place, sysctl in _objects(report, path, context, "sysctls"):
        if sysctl.get("name") not in _SYSCTLS:
            report(f"{place}.name", f"only {', '.join(_SYSCTLS)} are allowed")


def _only_false(report: Report, path: str, value: object) -> None:
    if value is not None and value is not False:
        report(path, "must be false or left out")


def _istio(key: str) -> bool:
    domain = key.partition("/")[0] if "/" in key else ""
    return domain == "istio.io" or domain.endswith(".istio.io")


def _mapping(report: Report, path: str, parent: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = parent.get(key)
    if isinstance(value, Mapping):
        return value
    if value is not None:
        report(f"{path}.{key}", "must be an object")
    return {}


def _objects(report: Report, path: str, parent: Mapping[str, Any], key: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The objects of a list, each with its path."""
    value = parent.get(key)
    if value is None:
        return
    if not isinstance(value, list):
        report(f"{path}.{key}", "must be a list")
        return
    for index, item in enumerate(value):
        if isinstance(item, Mapping):
            yield f"{path}.{key}[{index}]", item
        else:
            report(f"{path}.{key}[{index}]", "must be an object")
