"""What every part of the lab is told: which lab this is, where its files are, and how to speak to its cluster.

May touch: the cluster, through kubectl and helm. It starts nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from lab import components, paths
from lab.errors import CommandError, NotReadyError
from lab.processes import Supervisor

NodeKind = Literal["real", "fake", "external"]
FIELD_MANAGER = "perfpolicy-lab"

# Offsets into a lab's own block of a hundred ports, far from the usual ones and below the ephemeral range.
_PORTS = {
    "etcd": 1,
    "etcd-peer": 2,
    "apiserver": 3,
    "controller-manager": 4,
    "scheduler": 5,
    "kubelet": 6,
    "kubelet-healthz": 7,
    "kube-proxy-healthz": 8,
    "kube-proxy-metrics": 9,
    "kwok": 10,
    "kubelet-streaming": 11,
    "prometheus": 20,
    "exporter": 21,
    "operator": 30,
}
_FIXED_BLOCKS = {"real": 16400, "fake": 16500}


@dataclass(frozen=True)
class Step:
    """One named step of `up`. `run` must be safe to run again at any time, also after a crash in its middle."""

    name: str
    run: Callable[[], None]


@dataclass(frozen=True)
class Lab:
    """One lab. `external` is the kubeconfig of a cluster of the user's (node "external")."""

    name: str
    node: NodeKind
    external: Path | None = field(default=None)

    @property
    def directory(self) -> Path:
        """The folder with all of this lab's state; `down` removes it except for logs/."""
        return paths.STATE / self.name

    @property
    def logs(self) -> Path:
        """The folder with one log per daemon, and audit.log."""
        return self.directory / "logs"

    @property
    def pki(self) -> Path:
        """The folder with certificates, keys and the token file."""
        return self.directory / "pki"

    @property
    def run_dir(self) -> Path:
        """The folder for sockets and network namespaces: short, because a socket's path has at most 107 characters."""
        return paths.RUN / self.name

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig (group system:masters)."""
        return self.external if self.external is not None else self.directory / "kubeconfig"

    @property
    def audit_log(self) -> Path:
        """The API server's audit log: one JSON object per request, level Metadata."""
        return self.logs / "audit.log"

    @property
    def supervisor(self) -> Supervisor:
        """Starts and stops this lab's daemons."""
        return Supervisor(self.directory / "pids", self.logs)

    @property
    def host(self) -> str:
        """The address the control plane listens on: the node's own for pods to reach, else loopback."""
        return NODE_IP if self.node == "real" else "127.0.0.1"

    @property
    def server(self) -> str:
        """URL of the lab's API server."""
        return f"https://{self.host}:{self.port('apiserver')}"

    @property
    def containerd_socket(self) -> Path:
        """The socket of the lab's own containerd."""
        return self.run_dir / "containerd.sock"

    def port(self, service: str) -> int:
        """The port of one of the lab's own services; labs of other names get other ports."""
        block = _FIXED_BLOCKS.get(self.name)
        if block is None:
            block = 17000 + 100 * (zlib.crc32(self.name.encode()) % 120)
        return block + _PORTS[service]

    def environment(self) -> dict[str, str]:
        """This process's environment with KUBECONFIG set to the lab's."""
        return {**os.environ, "KUBECONFIG": str(self.kubeconfig)}

    def kubectl(self, *arguments: str, input: str | None = None) -> str:
        """Run kubectl against the lab and return its stdout; raises CommandError with its stderr.

        Against a cluster of the user's it is the user's own kubectl where there is one: nothing needs to be built then.
        """
        own = shutil.which("kubectl") if self.node == "external" else None
        return run([own or components.binary("kubectl"), *arguments], input=input, env=self.environment())

    def apply(self, objects: Iterable[Mapping[str, Any]] | str) -> str:
        """Server-side apply objects (or YAML text) as field manager perfpolicy-lab, taking over conflicting fields."""
        text = objects if isinstance(objects, str) else yaml.safe_dump_all([dict(each) for each in objects])
        return self.kubectl("apply", "--server-side", "--force-conflicts", f"--field-manager={FIELD_MANAGER}", "-f", "-", input=text)

    def get(self, *arguments: str) -> dict[str, Any]:
        """`kubectl get … -o json`, parsed."""
        found: dict[str, Any] = json.loads(self.kubectl("get", *arguments, "-o", "json"))
        return found

    def helm(self, *arguments: str, input: str | None = None) -> str:
        """Run helm against the lab, with its own cache and configuration folders; returns stdout, raises CommandError."""
        home = self.directory / "helm"
        places = {f"HELM_{kind}_HOME": str(home / kind.lower()) for kind in ("CACHE", "CONFIG", "DATA")}
        return run([components.binary("helm"), *arguments], input=input, env={**self.environment(), **places})

    def wait_available(self, namespace: str, deployment: str, *, seconds: float = 120) -> None:
        """Wait until a Deployment is Available; raises NotReadyError with its pods' states."""
        try:
            self.kubectl("-n", namespace, "rollout", "status", f"deployment/{deployment}", f"--timeout={seconds:.0f}s")
        except CommandError as error:
            pods = self.kubectl("-n", namespace, "get", "pods", "-o", "wide")
            events = self.kubectl("-n", namespace, "get", "events", "--sort-by=.lastTimestamp").splitlines()[-12:]
            raise NotReadyError(
                f"{namespace}/{deployment} is not Available after {seconds:.0f} s: {error}\n{pods}\n" + "\n".join(events)
            ) from error


# The node's address lives on an interface of the lab's own, so that a change of the machine's network breaks nothing
# and nothing of the lab listens on an address other machines can reach.
NODE_IP = "10.213.255.1"


def run(command: Sequence[str | Path], *, input: str | None = None, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> str:
    """Run a command to its end and return its stdout; raises CommandError with its last output."""
    done = subprocess.run([str(word) for word in command], input=input, env=env, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        shown = " ".join(str(word) for word in command)
        raise CommandError(f"`{shown[:300]}` ended with {done.returncode}: {(done.stderr or done.stdout)[-3000:].strip()}")
    return done.stdout


def write_settings(path: Path, text: str) -> Path:
    """Write a settings file only when its content changes: some daemons restart or end when theirs is touched."""
    if not path.exists() or path.read_text() != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        partial.write_text(text)
        partial.rename(path)
    return path


def wait(what: str, check: Callable[[], bool], *, seconds: float) -> None:
    """Poll `check` five times a second until it is true; raises NotReadyError naming `what` at the deadline."""
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() > deadline:
            raise NotReadyError(f"{what} was not so after {seconds:.0f} s")
        time.sleep(0.2)


def wait_established(kubectl: Callable[..., str], names: Collection[str], *, seconds: float = 60) -> None:
    """Wait until the API server serves these CRDs and kubectl finds them, which is a moment later.

    `kubectl wait` ends with an error on a CRD so new that its status has no conditions.
    """

    def established() -> bool:
        found: dict[str, Any] = json.loads(kubectl("get", "customresourcedefinitions", *names, "--ignore-not-found", "-o", "json") or "{}")
        crds: list[dict[str, Any]] = found.get("items", [found])
        ready = {
            crd["metadata"]["name"]
            for crd in crds
            for condition in crd.get("status", {}).get("conditions") or ()
            if (condition["type"], condition["status"]) == ("Established", "True")
        }
        return ready >= set(names)

    def found() -> bool:
        try:
            kubectl("get", ",".join(sorted(names)), "--all-namespaces", "--output=name", "--chunk-size=1")
        except CommandError:
            return False
        return True

    wait(f"CRDs {', '.join(sorted(names))} Established", established, seconds=seconds)
    wait(f"CRDs {', '.join(sorted(names))} found by kubectl", found, seconds=seconds)
