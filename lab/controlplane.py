"""The cluster's brain: etcd, API server, controller manager and scheduler as plain processes, no root needed.

May touch: the lab's state folder and its ports. Settings are written to files first; a daemon whose settings changed
is restarted by `Supervisor.start`.
"""

from __future__ import annotations

from pathlib import Path

import yaml

from lab.components import binary
from lab.errors import CommandError
from lab.lab import NODE_IP, Lab, Step, write_settings
from lab.pki import Authority, Pair, signing_key, token, write_private
from lab.processes import http_ok

SERVICE_RANGE = "10.214.0.0/16"
SERVICE_IP = "10.214.0.1"
_READY_SECONDS = 60.0


def steps(lab: Lab) -> list[Step]:
    """The steps that bring the control plane up."""
    return [
        Step("etcd", lambda: _etcd(lab)),
        Step("kube-apiserver", lambda: _apiserver(lab)),
        Step("kube-controller-manager", lambda: _controller_manager(lab)),
        Step("kube-scheduler", lambda: _scheduler(lab)),
    ]


def cluster_ca(lab: Lab) -> Authority:
    """The authority everything inside the cluster trusts."""
    return Authority(lab.pki, "ca")


def client_kubeconfig(lab: Lab, user: str, *, groups: tuple[str, ...] = ()) -> Path:
    """A kubeconfig whose client certificate names `user` in `groups`."""
    pair = cluster_ca(lab).issue(user.replace(":", "-"), user, organizations=groups)
    credentials = {"client-certificate": str(pair.certificate), "client-key": str(pair.key)}
    return _kubeconfig(lab, lab.pki / f"{user.replace(':', '-')}.kubeconfig", credentials)


def _kubeconfig(lab: Lab, path: Path, user: dict[str, str]) -> Path:
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "lab", "cluster": {"server": lab.server, "certificate-authority": str(cluster_ca(lab).pair.certificate)}}],
        "users": [{"name": "lab", "user": user}],
        "contexts": [{"name": f"perfpolicy-lab-{lab.name}", "context": {"cluster": "lab", "user": "lab"}}],
        "current-context": f"perfpolicy-lab-{lab.name}",
    }
    return write_private(path, yaml.safe_dump(content, sort_keys=False))


def api_ready(lab: Lab) -> bool:
    """Whether the API server answers /readyz with 200."""
    if lab.node == "external":
        try:
            return lab.kubectl("get", "--raw", "/readyz", "--request-timeout=5s").strip() == "ok"
        except CommandError:
            return False
    if not (lab.pki / "admin.token").exists():
        return False
    return http_ok(f"{lab.server}/readyz", ca=cluster_ca(lab).pair.certificate, token=token(lab.pki / "admin.token"))


def _etcd(lab: Lab) -> None:
    # TLS even on loopback: whoever reaches etcd owns the cluster, and other users of the machine reach loopback.
    pair = Authority(lab.pki, "etcd-ca").issue("etcd", "etcd", names=["IP:127.0.0.1", "DNS:localhost"])
    ca = Authority(lab.pki, "etcd-ca").pair.certificate
    client, peer = f"https://127.0.0.1:{lab.port('etcd')}", f"http://127.0.0.1:{lab.port('etcd-peer')}"
    command: list[str | Path] = [
        binary("etcd"),
        "--name=lab",
        f"--data-dir={lab.directory / 'etcd'}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=lab={peer}",
        f"--cert-file={pair.certificate}",
        f"--key-file={pair.key}",
        "--client-cert-auth",
        f"--trusted-ca-file={ca}",
        # A lab that loses power is rebuilt; waiting for the disk would slow every write.
        "--unsafe-no-fsync",
        "--auto-compaction-retention=1h",
        f"--quota-backend-bytes={4 << 30}",
        "--log-level=warn",
    ]
    lab.supervisor.start("etcd", command)
    ready = lambda: http_ok(f"{client}/readyz", ca=ca, client=(pair.certificate, pair.key))  # noqa: E731
    lab.supervisor.await_ready("etcd", ready, seconds=_READY_SECONDS)


def _apiserver(lab: Lab) -> None:
    ca = cluster_ca(lab)
    serving = ca.issue("apiserver", "kube-apiserver", names=_SERVING_NAMES)
    admin = token(lab.pki / "admin.token")
    tokens = write_private(lab.pki / "tokens.csv", f'{admin},admin,admin,"system:masters"\n')
    audit = write_settings(lab.directory / "audit-policy.yaml", yaml.safe_dump(_AUDIT_POLICY))
    lab.logs.mkdir(parents=True, exist_ok=True)
    command: list[str | Path] = [binary("kube-apiserver"), *_apiserver_flags(lab, serving, tokens, audit)]
    lab.supervisor.start("kube-apiserver", command, settings=[tokens, audit])
    _kubeconfig(lab, lab.kubeconfig, {"token": admin})
    lab.supervisor.await_ready("kube-apiserver", lambda: api_ready(lab), seconds=_READY_SECONDS)


# Metadata of everything: tests count writes per user, verb and object from it.
_AUDIT_POLICY = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"], "rules": [{"level": "Metadata"}]}


_SERVING_NAMES = [
    *(f"DNS:kubernetes{domain}" for domain in ("", ".default", ".default.svc", ".default.svc.cluster.local")),
    *(f"IP:{address}" for address in (SERVICE_IP, NODE_IP, "127.0.0.1")),
]


def _apiserver_flags(lab: Lab, serving: Pair, tokens: Path, audit: Path) -> list[str]:
    ca, etcd, front = cluster_ca(lab), Authority(lab.pki, "etcd-ca"), Authority(lab.pki, "front-proxy-ca")
    etcd_client = etcd.issue("etcd-client", "kube-apiserver")
    proxy = front.issue("front-proxy", "front-proxy-client")
    kubelet = ca.issue("apiserver-kubelet", "kube-apiserver-kubelet-client", organizations=["system:masters"])
    key = signing_key(lab.pki / "service-account.key")
    flags = [
        f"--bind-address={lab.host}",
        f"--secure-port={lab.port('apiserver')}",
        f"--advertise-address={NODE_IP}",
        f"--tls-cert-file={serving.certificate}",
        f"--tls-private-key-file={serving.key}",
        f"--client-ca-file={ca.pair.certificate}",
        f"--token-auth-file={tokens}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        f"--etcd-servers=https://127.0.0.1:{lab.port('etcd')}",
        f"--etcd-cafile={etcd.pair.certificate}",
        f"--etcd-certfile={etcd_client.certificate}",
        f"--etcd-keyfile={etcd_client.key}",
        f"--service-cluster-ip-range={SERVICE_RANGE}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={key}",
        f"--service-account-signing-key-file={key}",
        f"--kubelet-certificate-authority={ca.pair.certificate}",
        f"--kubelet-client-certificate={kubelet.certificate}",
        f"--kubelet-client-key={kubelet.key}",
        "--kubelet-preferred-address-types=InternalIP",
        f"--requestheader-client-ca-file={front.pair.certificate}",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-username-headers=X-Remote-User",
        f"--proxy-client-cert-file={proxy.certificate}",
        f"--proxy-client-key-file={proxy.key}",
        # Pods' addresses rather than ClusterIPs: works before kube-proxy does.
        "--enable-aggregator-routing=true",
        f"--audit-policy-file={audit}",
        f"--audit-log-path={lab.audit_log}",
        "--audit-log-maxsize=2000",
        "--audit-log-maxbackup=1",
        # Benches must meet the server's own speed, not its fairness towards other clients.
        "--max-requests-inflight=2000",
        "--max-mutating-requests-inflight=1000",
    ]
    if lab.node == "fake":
        # No pod reaches the API server, and the advertised address is not this machine's.
        flags.append("--endpoint-reconciler-type=none")
    return flags


def _controller_manager(lab: Lab) -> None:
    ca = cluster_ca(lab).pair
    config = client_kubeconfig(lab, "system:kube-controller-manager")
    flags = [
        "--use-service-account-credentials=true",
        f"--service-account-private-key-file={signing_key(lab.pki / 'service-account.key')}",
        f"--root-ca-file={ca.certificate}",
        f"--cluster-signing-cert-file={ca.certificate}",
        f"--cluster-signing-key-file={ca.key}",
        "--kube-api-qps=200",
        "--kube-api-burst=400",
        # 15 s by default: tests wait for it, and metrics-server's own 15 s stay.
        "--horizontal-pod-autoscaler-sync-period=5s",
    ]
    _delegating_daemon(lab, "controller-manager", config, flags)


def _scheduler(lab: Lab) -> None:
    _delegating_daemon(lab, "scheduler", client_kubeconfig(lab, "system:kube-scheduler"), ["--kube-api-qps=200", "--kube-api-burst=400"])


def _delegating_daemon(lab: Lab, short: str, config: Path, flags: list[str]) -> None:
    """Start kube-`short`, which leaves authentication of its own port to the API server."""
    name, port = f"kube-{short}", lab.port(short)
    serving = cluster_ca(lab).issue(f"{short}-serving", name, names=["IP:127.0.0.1"])
    common = [
        f"--kubeconfig={config}",
        f"--authentication-kubeconfig={config}",
        f"--authorization-kubeconfig={config}",
        "--leader-elect=false",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        f"--tls-cert-file={serving.certificate}",
        f"--tls-private-key-file={serving.key}",
    ]
    lab.supervisor.start(name, [binary(name), *common, *flags], settings=[config])
    url, ca = f"https://127.0.0.1:{port}/healthz", cluster_ca(lab).pair.certificate
    lab.supervisor.await_ready(name, lambda: http_ok(url, ca=ca), seconds=_READY_SECONDS)
