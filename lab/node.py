"""The real node: a containerd of the lab's own, routed pod networking, kubelet and kube-proxy. Needs root.

Pods are joined by the `ptp` plugin, not by a bridge: every packet is routed by the host, so replies to a ClusterIP pass
the rules that rewrote the request, without the br_netfilter module. The node's address sits on an empty bridge, which
every kernel has, and nothing listens elsewhere. May touch: containers, mounts, interfaces, netfilter, kernel settings;
all of it is undone by teardown.py.
"""

from __future__ import annotations

import json
import socket
import subprocess
from pathlib import Path
from typing import Any

import yaml

from lab import host
from lab.components import binary, build_local
from lab.controlplane import SERVICE_RANGE, client_kubeconfig, cluster_ca
from lab.images import import_image, oci_image
from lab.lab import NODE_IP, Lab, Step, run, wait, write_settings
from lab.paths import SOURCE
from lab.processes import http_ok

NODE_NAME = "lab-node"
LINK = "perflab0"
POD_SUBNET = "10.213.0.0/22"
DNS_IP = "10.214.0.10"
_SANDBOX = "localhost/pause:lab"
_READY_SECONDS = 60.0


def steps(lab: Lab) -> list[Step]:
    """The steps that bring the node up."""
    return [
        Step("containerd", lambda: _containerd(lab)),
        Step("kubelet", lambda: _kubelet(lab)),
        Step("kube-proxy", lambda: _kube_proxy(lab)),
        Step("node Ready", lambda: _node_ready(lab)),
    ]


def link(lab: Lab) -> None:
    """Make the interface that carries the node's address; everything of the lab binds to it."""
    del lab
    if LINK not in (name for _, name in socket.if_nameindex()):
        run(["ip", "link", "add", LINK, "type", "bridge"])
    run(["ip", "address", "replace", f"{NODE_IP}/32", "dev", LINK])
    run(["ip", "link", "set", LINK, "up"])
    # Without a route of its own a machine with no default route cannot reach a ClusterIP: it is rewritten only after routing.
    run(["ip", "route", "replace", SERVICE_RANGE, "dev", LINK, "src", NODE_IP])


def _containerd(lab: Lab) -> None:
    lab.run_dir.mkdir(parents=True, exist_ok=True)
    lab.run_dir.chmod(0o711)
    network = lab.directory / "cni"
    write_settings(network / "10-lab.conflist", json.dumps(_network(lab), indent=1))
    config = write_settings(lab.directory / "containerd.toml", _containerd_config(lab, network))
    lab.supervisor.start("containerd", ["containerd", "--config", config], settings=[config])
    lab.supervisor.await_ready("containerd", lambda: _containerd_answers(lab), seconds=_READY_SECONDS)
    import_image(
        lab,
        oci_image("localhost/pause", "lab", {"/pause": build_local(SOURCE / "pause", "pause")}, entrypoint=["/pause"], user="65535:65535"),
    )


def _containerd_answers(lab: Lab) -> bool:
    if not lab.containerd_socket.exists():
        return False
    return subprocess.run(["ctr", "--address", lab.containerd_socket, "version"], capture_output=True, check=False).returncode == 0


def _network(lab: Lab) -> dict[str, Any]:
    ranges = [[{"subnet": POD_SUBNET}]]
    # No masquerading: pods speak to the node and to each other, and the lab leaves no iptables rule behind.
    pods = {
        "type": "ptp",
        "ipMasq": False,
        "ipam": {"type": "host-local", "ranges": ranges, "routes": [{"dst": "0.0.0.0/0"}], "dataDir": str(lab.run_dir / "ipam")},
    }
    return {
        "cniVersion": "0.4.0",
        "name": f"perfpolicy-lab-{lab.name}",
        "plugins": [pods, {"type": "portmap", "capabilities": {"portMappings": True}}],
    }


def _containerd_config(lab: Lab, network: Path) -> str:
    # restrict_oom_score_adj: without CAP_SYS_RESOURCE runc dies with "can't get final child's PID from pipe".
    return f"""\
version = 2
root = "{lab.directory / "containerd"}"
state = "{lab.run_dir / "containerd"}"
[grpc]
  address = "{lab.containerd_socket}"
[ttrpc]
  address = "{lab.containerd_socket}.ttrpc"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{_SANDBOX}"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  disable_tcp_service = true
  stream_server_address = "{NODE_IP}"
  stream_server_port = "{lab.port("kubelet-streaming")}"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{host.CNI_PLUGINS}"
    conf_dir = "{network}"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
"""


def _kubelet(lab: Lab) -> None:
    config = write_settings(lab.directory / "kubelet.yaml", yaml.safe_dump(_kubelet_config(lab)))
    write_settings(lab.directory / "resolv.conf", "# Pods that use the node's own DNS have none.\n")
    host.make_cgroups()
    kubeconfig = client_kubeconfig(lab, f"system:node:{NODE_NAME}", groups=("system:nodes",))
    command: list[str | Path] = [
        binary("kubelet"),
        f"--config={config}",
        f"--kubeconfig={kubeconfig}",
        f"--node-ip={NODE_IP}",
        f"--hostname-override={NODE_NAME}",
        f"--root-dir={lab.directory / 'kubelet'}",
        # The embedded cAdvisor labels containers with namespace, pod and container only if it finds containerd.
        f"--containerd={lab.containerd_socket}",
    ]
    lab.supervisor.start("kubelet", command, settings=[config, kubeconfig])
    lab.supervisor.await_ready(
        "kubelet", lambda: http_ok(f"http://127.0.0.1:{lab.port('kubelet-healthz')}/healthz"), seconds=_READY_SECONDS
    )


def _kubelet_config(lab: Lab) -> dict[str, Any]:
    ca = cluster_ca(lab)
    serving = ca.issue("kubelet-serving", NODE_NAME, names=[f"IP:{NODE_IP}", f"DNS:{NODE_NAME}"])
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": NODE_IP,
        "port": lab.port("kubelet"),
        "healthzBindAddress": "127.0.0.1",
        "healthzPort": lab.port("kubelet-healthz"),
        "readOnlyPort": 0,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(ca.pair.certificate)},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(serving.certificate),
        "tlsPrivateKeyFile": str(serving.key),
        "containerRuntimeEndpoint": f"unix://{lab.containerd_socket}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{host.CGROUP}",
        "failCgroupV1": False,
        "failSwapOn": False,
        # Nothing here needs kubelet's iptables chains, and none shall stay behind.
        "makeIPTablesUtilChains": False,
        "clusterDNS": [DNS_IP],
        "clusterDomain": "cluster.local",
        "resolvConf": str(lab.directory / "resolv.conf"),
        "maxPods": 250,
        "serializeImagePulls": False,
        # Images come from no registry: collecting one as garbage would lose it.
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        # A developer's nearly full disk is no reason to evict the lab.
        "evictionHard": {"memory.available": "100Mi"},
        # How soon a mounted ConfigMap shows a change; the default is a minute.
        "syncFrequency": "10s",
        # Sidecars' access logs at 1,000 requests/s are about 1 MB/s each.
        "containerLogMaxSize": "64Mi",
        "containerLogMaxFiles": 3,
        "kubeAPIQPS": 100,
        "kubeAPIBurst": 200,
        "volumePluginDir": str(lab.directory / "kubelet-plugins"),
        "podLogsDir": str(lab.directory / "pod-logs"),
    }


def _kube_proxy(lab: Lab) -> None:
    kubeconfig = client_kubeconfig(lab, "system:kube-proxy")
    settings = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clusterCIDR": POD_SUBNET,
        "hostnameOverride": NODE_NAME,
        "nodePortAddresses": [f"{NODE_IP}/32"],
        "bindAddress": NODE_IP,
        "healthzBindAddress": f"127.0.0.1:{lab.port('kube-proxy-healthz')}",
        "metricsBindAddress": f"127.0.0.1:{lab.port('kube-proxy-metrics')}",
        "clientConnection": {"kubeconfig": str(kubeconfig)},
        # 0 leaves the machine's connection tracking as it is.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "nftables": {"syncPeriod": "30s", "minSyncPeriod": "100ms"},
    }
    config = write_settings(lab.directory / "kube-proxy.yaml", yaml.safe_dump(settings))
    lab.supervisor.start("kube-proxy", [binary("kube-proxy"), f"--config={config}"], settings=[config, kubeconfig])
    lab.supervisor.await_ready(
        "kube-proxy", lambda: http_ok(f"http://127.0.0.1:{lab.port('kube-proxy-healthz')}/healthz"), seconds=_READY_SECONDS
    )


def _node_ready(lab: Lab) -> None:
    def ready() -> bool:
        nodes = lab.get("nodes")["items"]
        return any(
            condition["type"] == "Ready" and condition["status"] == "True"
            for node in nodes
            for condition in node["status"].get("conditions", [])
        )

    wait("the node's condition Ready=True", ready, seconds=_READY_SECONDS)
