"""An operator behind a fault proxy, namespaces of its own, and what is to be seen of them: the stage of the fault tests.

States are compared between namespaces, so names of namespaces, UIDs, versions and times are taken out of them.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import signal
import ssl
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import aiohttp

from e2e.cluster import OPERATOR_AGENT
from e2e.fault_proxy import Fault, FaultProxy, Line
from e2e.operator_process import PROGRAM, OperatorProcess, free_port
from e2e.test_rendered_objects import said
from lab import audit
from lab.controlplane import cluster_ca
from lab.lab import Lab
from lab.pki import token
from perfpolicy.api.performance_class import parse_class
from perfpolicy.api.policy import parse_policy
from perfpolicy.cluster.resource import Resource
from perfpolicy.cluster.status import POLICIES
from perfpolicy.policy.facts import Facts, in_mesh
from perfpolicy.policy.resolve import resolve
from perfpolicy.render import KINDS, render
from perfpolicy.runtime import CLASSES
from perfpolicy.vocabulary import APPLIED_ANNOTATION, POLICY_LABEL

CLOCKS: Final = {
    "poll_min": "1", "poll_max": "2", "retry_min": "0.2", "retry_max": "2", "sweep": "1", "discovery": "0.5", "resync": "2", "relist": "1",
    "watch_timeout": "10",
}  # fmt: skip
"""Settings under which what is found by a net (resync, relist, sweep) is found within seconds."""
QUIET: Final = 3.0
"""Seconds without a write after which a state is the end: longer than any of the clocks but a watch's."""
SERVICE: Final = Resource("", "v1", "Service", "services")
DEPLOYMENT: Final = Resource("apps", "v1", "Deployment", "deployments")
_KINDS: Final = (POLICIES, *(Resource(kind.group, kind.version, kind.kind, kind.plural) for kind in KINDS))
_PASSING: Final = frozenset({"lastTransitionTime", "since", "sampleTime", "clusterIP", "clusterIPs", "uid", "lastEvaluated", "settled"})
"""What is of one run: times, and what is made of UIDs and times."""
_NOT_KEPT: Final = frozenset({APPLIED_ANNOTATION, "deployment.kubernetes.io/revision", "kubectl.kubernetes.io/last-applied-configuration"})

State = dict[str, Any]
"""Objects by kind and name."""


class Api:
    """The administrator's requests to a lab's API server."""

    def __init__(self, lab: Lab) -> None:
        context = ssl.create_default_context(cafile=str(cluster_ca(lab).pair.certificate))
        headers = {"Authorization": f"Bearer {token(lab.pki / 'admin.token')}"}
        self._session = aiohttp.ClientSession(lab.server, connector=aiohttp.TCPConnector(ssl=context), headers=headers)

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()

    async def get(self, path: str) -> dict[str, Any]:
        """An object or list; empty where there is none."""
        async with self._session.get(path) as answer:
            found: dict[str, Any] = await answer.json() if answer.status == 200 else {}
        return found

    async def apply(self, manifest: Mapping[str, Any], path: str) -> tuple[int, dict[str, Any]]:
        """Server-side apply by a user; status and answer."""
        headers = {"Content-Type": "application/apply-patch+yaml"}
        query = {"fieldManager": "e2e", "force": "true"}
        async with self._session.patch(path, data=json.dumps(manifest), headers=headers, params=query) as answer:
            return answer.status, await answer.json()

    async def delete(self, path: str) -> None:
        """Delete an object; what follows is not waited for."""
        async with self._session.delete(path) as answer:
            assert answer.status in (200, 202, 404), await answer.text()

    async def state(self, namespace: str) -> State:
        """Policies and all kinds of children in a namespace."""
        lists = await asyncio.gather(*(self.get(resource.path(namespace)) for resource in _KINDS))
        uids = {item["metadata"]["uid"]: f"UID of {item['metadata']['name']}" for found in lists for item in found.get("items", ())}
        found = {
            f"{resource.kind}/{item['metadata']['name']}": _plain(item, ours=resource == POLICIES)
            for resource, items in zip(_KINDS, lists, strict=True)
            for item in items.get("items", ())
            if item["metadata"]["name"] != "kube-root-ca.crt"
        }
        text = json.dumps(found).replace(namespace, "the-namespace")
        for uid, name in uids.items():
            text = text.replace(uid, name)
        stated: State = json.loads(re.sub(r"vector\([0-9]+\)", "vector(revision)", text))
        return stated


def _plain(item: Mapping[str, Any], *, ours: bool) -> dict[str, Any]:
    metadata = item["metadata"]
    kept = {name: metadata[name] for name in ("name", "namespace", "labels", "ownerReferences") if name in metadata}
    kept["annotations"] = {key: value for key, value in metadata.get("annotations", {}).items() if key not in _NOT_KEPT}
    body = {key: value for key, value in item.items() if key not in ("metadata", "apiVersion", "kind") and (ours or key != "status")}
    found: dict[str, Any] = _lasting({"metadata": kept, **body}) | ({"gone": True} if "deletionTimestamp" in metadata else {})
    return found


def _lasting(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _lasting(item) for key, item in value.items() if key not in _PASSING}
    return [_lasting(item) for item in value] if isinstance(value, list) else value


def ours(state: State) -> set[str]:
    """Children of policies, or what names itself one."""
    return {key for key, item in state.items() if POLICY_LABEL in item["metadata"].get("labels", {})}


async def inconsistent(api: Api, namespace: str, name: str) -> list[str]:
    """Where the children in a namespace are not what its only policy's spec renders to, no more and no fewer."""
    policy = await api.get(POLICIES.path(namespace, name))
    labels = (await api.get(f"/api/v1/namespaces/{namespace}"))["metadata"]["labels"]
    services = {each["metadata"]["name"]: each for each in (await api.get(SERVICE.path(namespace)))["items"]}
    owns = "deployment" in policy["spec"]["workload"]
    target = None if owns else await api.get(DEPLOYMENT.path(namespace, policy["spec"]["workload"]["targetRef"]["name"]))
    cls = parse_class(await api.get(CLASSES.path(None, policy["spec"]["className"])))
    manifests = render(resolve(parse_policy(policy), cls, Facts(labels, target, services, in_mesh(labels)))).manifests
    paths = {resource.kind: resource for resource in _KINDS}
    stored = [await api.get(paths[each["kind"]].path(namespace, each["metadata"]["name"])) for each in manifests]
    wrong = [f"{each['kind']}{line}" for each, found in zip(manifests, stored, strict=True) for line in said(each, found)]
    wanted = {f"{each['kind']}/{each['metadata']['name']}" for each in manifests}
    if policy["spec"].get("mode") == "Observe":
        return wrong  # What was written before stays.
    return wrong + [f"there is {key}" for key in ours(await api.state(namespace)) - wanted]


async def until(check: Callable[[], Awaitable[str]], seconds: float) -> None:
    """Wait until `check` has nothing to complain about; raises AssertionError with its last complaint."""
    deadline = time.monotonic() + seconds
    while complaint := await check():
        assert time.monotonic() < deadline, complaint
        await asyncio.sleep(0.2)


def differences(wanted: Any, found: Any, path: str = "") -> list[str]:
    """Where two states differ."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        return [line for key in wanted | found for line in differences(wanted.get(key), found.get(key), f"{path}.{key}")]
    if isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        return [line for index, pair in enumerate(zip(wanted, found, strict=True)) for line in differences(*pair, f"{path}[{index}]")]
    return [] if wanted == found else [f"{path}: {str(wanted)[:200]} became {str(found)[:200]}"]


class House:
    """An operator behind a proxy, kept running as a kubelet does, and its namespaces. Use as an asynchronous context manager."""

    def __init__(self, lab: Lab, api: Api, folder: Path, rooms: int = 1, clocks: Mapping[str, str] = CLOCKS) -> None:
        """`rooms`: how many namespaces; `clocks`: settings of the operator."""
        self.lab, self.api, self._folder, self._clocks = lab, api, folder, clocks
        name = f"faults-{secrets.token_hex(3)}"
        self.sites = [Site(self, f"{name}-{number}") for number in range(rooms)]

    async def __aenter__(self) -> Self:
        self._folder.mkdir(parents=True)
        self._closing = False
        self.ends: list[int] = []
        self.since = audit.position(self.lab.audit_log)
        for site in self.sites:
            metadata = {"name": site.namespace, "labels": {"istio-injection": "enabled"}}
            path = f"/api/v1/namespaces/{site.namespace}"
            status, answer = await self.api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}, path)
            assert status == 201, answer
        self.proxy = FaultProxy(self.lab, self._folder)
        await self.proxy.open()
        namespaces = ",".join(site.namespace for site in self.sites)
        settings = {**self._clocks, "namespaces": namespaces, "kubeconfig": str(self.proxy.kubeconfig)}
        self.process = OperatorProcess(self.lab, self._folder / "operator.log", free_port(), PROGRAM, **settings)
        self._kubelet = asyncio.create_task(self._keep_running())
        try:
            await until(self.unready, 300)
        except BaseException:
            await self._close()
            raise
        return self

    async def restart(self) -> None:
        """SIGKILL; returns when the next one is ready."""
        before = len(self.ends)
        self.process.send(signal.SIGKILL)

        async def still() -> str:
            return "it still runs" if len(self.ends) == before else ""

        await until(still, 60)
        await until(self.unready, 300)

    async def unready(self) -> str:
        """Why it is not ready; empty where it is."""
        with suppress(AssertionError, OSError):
            if not self.process.running:
                return "it does not run"
            await asyncio.to_thread(self.process.readiness)
            return ""
        return "it is not ready"

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        ends = list(self.ends)
        await self._close()
        assert error or set(ends) <= {-signal.SIGKILL}, f"the operator ended by itself: {ends}\n{self.process.log.read_text()[-1500:]}"

    async def _close(self) -> None:
        # Not cancelled: a start under way goes on in its thread, and its operator would be left behind.
        self._closing = True
        while not self._kubelet.done():
            if self.process.running:
                await asyncio.to_thread(self.process.kill)
            await asyncio.wait((self._kubelet,), timeout=0.2)
        await self.proxy.close()
        for site in self.sites:
            await self.api.delete(f"/api/v1/namespaces/{site.namespace}")
            # Where it has a class of its own, that has its name.
            await self.api.delete(CLASSES.path(None, site.namespace))

    async def _keep_running(self) -> None:
        while not self._closing:
            if not self.process.running:
                with suppress(AssertionError):
                    self.ends.append(self.process.ended(seconds=1))
                # Killed before it was ready: started again, as anything else that ended.
                with suppress(AssertionError):
                    await asyncio.to_thread(self.process.start)
            await asyncio.sleep(0.05)


@dataclass(frozen=True)
class Site:
    """One namespace of a house."""

    house: House
    namespace: str

    @property
    def line(self) -> Line:
        """What the proxy does there."""
        return self.house.proxy.line(self.namespace)

    def arm(self, fault: Fault) -> None:
        """From now on, there and in what is not of a namespace."""
        for namespace in (self.namespace, ""):
            self.house.proxy.line(namespace).arm(fault)

    async def quiet(self, seconds: float = 300.0) -> None:
        """Wait until an operator that is ready has written nothing there for QUIET seconds."""
        seen, since = (-1, -1), time.monotonic()
        deadline = since + seconds
        while time.monotonic() - since < QUIET:
            assert time.monotonic() < deadline, f"it does not stop writing: {self.line.writes[-10:]}"
            now = (len(self.line.writes), len(self.house.ends))
            if now != seen or await self.house.unready():
                seen, since = now, time.monotonic()
            await asyncio.sleep(0.2)

    def counted(self) -> Counter[tuple[str, str, str]]:
        """Objects the operator has created and deleted there, by the API server's own audit log."""
        found: Counter[tuple[str, str, str]] = Counter()
        for request in audit.requests(self.house.lab.audit_log, self.house.since, self.namespace):
            if request.namespace != self.namespace or not request.agent.startswith(OPERATOR_AGENT) or request.resource == "events":
                continue
            if request.code == 201 or (request.verb == "delete" and request.code == 200):
                found["deleted" if request.verb == "delete" else "created", request.resource, request.name] += 1
        return found
