"""The operator as users install it: by Helm, from the charts and the image, in pods of the lab's real node."""

import os
import re
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from e2e.cluster import Cluster
from e2e.waiting import eventually
from lab import audit
from lab.components import binary
from lab.images import ctr
from perfpolicy.render.registry import KINDS

ROOT = Path(__file__).resolve().parent.parent
NAMESPACE = "perfpolicy-system"
RELEASE, CRDS = "perfpolicy", "perfpolicy-crds"
ACCOUNT = f"system:serviceaccount:{NAMESPACE}:{RELEASE}"
_CHILDREN = {kind.plural for kind in KINDS}
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def readme_commands() -> list[str]:
    """The commands of the README's install section, in order: what follows `$ ` in its console blocks, continuation lines included."""
    text = (ROOT / "README.md").read_text()
    section = re.search(r"<!-- install:begin -->(.*?)<!-- install:end -->", text, re.DOTALL)
    assert section, "README.md has no install section"
    blocks = re.findall(r"^```console\n(.*?)^```", section[1], re.DOTALL | re.MULTILINE)
    return [command for block in blocks for command in re.findall(r"^\$ ((?:.*\\\n)*.*)$", block, re.MULTILINE)]


class Pod(NamedTuple):
    """One of the operator's pods."""

    uid: str
    restarts: int
    address: str
    ready: bool


@dataclass(frozen=True)
class Installation:
    """The operator's releases in one cluster."""

    cluster: Cluster

    def shell(self, command: str) -> str:
        """Run a command as a user does in the checkout, with the lab's kubectl and helm; its output."""
        done = subprocess.run(["bash", "-c", command], cwd=ROOT, env=self._environment(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"$ {command}\n{done.stdout}{done.stderr}"
        return done.stdout

    def helm(self, *arguments: str) -> str:
        """Run helm in the operator's namespace."""
        return self.cluster.lab.helm("--namespace", NAMESPACE, *arguments)

    def pods(self) -> dict[str, Pod]:
        """The operator's pods by name, those that are ending left out."""
        found = self.cluster.lab.get("pods", "-n", NAMESPACE, "-l", "app.kubernetes.io/name=perfpolicy")["items"]
        return {pod["metadata"]["name"]: _pod(pod) for pod in found if "deletionTimestamp" not in pod["metadata"]}

    def leader(self) -> str:
        """Name of the pod that holds the Lease."""
        holder = (self.cluster.get("lease", RELEASE, NAMESPACE) or {}).get("spec", {}).get("holderIdentity", "")
        return next((name for name in self.pods() if holder.startswith(name)), "")

    def settled(self) -> tuple[str, str]:
        """Names of the pod that leads and of the one that stands by, as soon as both are ready."""

        def both() -> tuple[str, str]:
            pods, leader = self.pods(), self.leader()
            assert len(pods) == 2, pods
            assert all(pod.ready for pod in pods.values()), pods
            assert leader in pods, "nobody leads"
            return leader, next(name for name in pods if name != leader)

        return eventually(both, seconds=60)

    def ask(self, pod: str, path: str) -> tuple[int, str]:
        """Status and body of the operator's answer; 0 where none came."""
        try:
            with _DIRECT.open(f"http://{self.pods()[pod].address}:8080{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def metric(self, pod: str, name: str, **labels: str) -> float:
        """The sum of a metric's samples that carry the labels."""
        found = 0.0
        for line in self.ask(pod, "/metrics")[1].splitlines():
            matched = re.fullmatch(rf"{name}(?:\{{(.*)\}})? (\S+)", line)
            if matched and all(f'{key}="{value}"' in (matched[1] or "") for key, value in labels.items()):
                found += float(matched[2])
        return found

    def signal(self, pod: str, number: signal.Signals) -> None:
        """Send a signal to the operator in a pod, past Kubernetes."""
        status = self.cluster.lab.get("pod", pod, "-n", NAMESPACE)["status"]["containerStatuses"][0]
        container = status["containerID"].removeprefix("containerd://")
        tasks = (line.split() for line in ctr(self.cluster.lab, "tasks", "list").splitlines())
        os.kill(next(int(words[1]) for words in tasks if words[0] == container), number)

    def requests(self, since: int) -> list[audit.Request]:
        """What the operator's ServiceAccount asked of the API server since a position of the audit log."""
        return [request for request in audit.requests(self.cluster.lab.audit_log, since, ACCOUNT) if request.user == ACCOUNT]

    def child_writes(self, since: int, namespace: str) -> list[audit.Request]:
        """What the operator wrote to children in a namespace since a position of the audit log."""
        written = (request for request in self.requests(since) if request.is_write)
        return [request for request in written if request.namespace == namespace and request.resource in _CHILDREN]

    def _environment(self) -> Mapping[str, str]:
        home = self.cluster.lab.directory / "helm"
        places = {f"HELM_{kind}_HOME": str(home / kind.lower()) for kind in ("CACHE", "CONFIG", "DATA")}
        folders = (str(binary(name).parent) for name in ("helm", "kubectl"))
        return {**self.cluster.lab.environment(), **places, "PATH": ":".join([*folders, os.environ["PATH"]])}


def _pod(pod: Mapping[str, Any]) -> Pod:
    status = pod["status"]
    ready = any(condition["type"] == "Ready" and condition["status"] == "True" for condition in status.get("conditions", ()))
    restarts = sum(container["restartCount"] for container in status.get("containerStatuses", ()))
    return Pod(pod["metadata"]["uid"], restarts, status.get("podIP", ""), ready)
