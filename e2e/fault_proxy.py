"""A proxy between an operator and the API server: records every write and makes things go wrong on purpose.

TLS at both ends, with the lab's own certificates; the operator's token and User-Agent are passed on, so the audit log shows the operator.
A write is *effective* when the object's resourceVersion is another one after it; that is looked up before each write. Events and Leases
are not counted. Each namespace has a fault of its own, asked at each request, each answer and each event of a watch from `arm` on.
"""

import asyncio
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
import yaml
from aiohttp import web
from multidict import CIMultiDict

from e2e.operator_process import free_port
from lab.controlplane import cluster_ca
from lab.lab import Lab
from lab.pki import token, write_private
from perfpolicy.cluster.client import METADATA, lines
from perfpolicy.cluster.resource import Target, target_of

_UNCOUNTED: Final = frozenset({"events", "leases"})
_NOT_PASSED_ON: Final = frozenset({"host", "content-length", "transfer-encoding", "connection", "accept-encoding"})


class Cut(Exception):
    """The connection is to be cut instead of answering."""


@dataclass(frozen=True)
class Asked:
    """One request of the operator's."""

    method: str
    path: str
    query: Mapping[str, str]

    @property
    def target(self) -> Target:
        """Verb and kind, as in RBAC."""
        return target_of(self.method, self.path, watch="watch" in self.query)

    @property
    def namespace(self) -> str:
        """The namespace it is about; empty for none."""
        parts = self.path.split("/")
        return parts[parts.index("namespaces") + 1] if "namespaces" in parts[:-1] else ""

    @property
    def is_write(self) -> bool:
        """It changes an object that counts."""
        return self.method != "GET" and self.target.kind.partition("/")[0] not in _UNCOUNTED


@dataclass(frozen=True)
class Write:
    """One answered write. `changed`: the object is another one since."""

    target: Target
    path: str
    status: int
    changed: bool

    @property
    def is_idle(self) -> bool:
        """Taken by the API server, and without any change."""
        return self.status < 300 and not self.changed


class Fault:
    """What goes wrong: nothing. Subclasses override what they need; `line` is set when the fault is armed."""

    line: "Line"
    idle_writes = 0
    """Writes without a change that the fault itself makes necessary: an answer that is lost must be asked for again."""

    async def before(self, asked: Asked) -> web.Response | None:
        """An answer in place of the API server's. Raises Cut."""
        return None

    async def after(self, write: Write) -> None:
        """A write was answered, and the operator does not know yet. Raises Cut."""

    def query(self, asked: Asked) -> Mapping[str, str]:
        """The query to send on."""
        return asked.query

    async def passes(self, asked: Asked, event: Mapping[str, Any]) -> bool:
        """Whether the operator is to hear of this event of a watch."""
        return True

    def silences(self, asked: Asked) -> bool:
        """Whether a watch that is open when the fault is armed is never heard of again."""
        return False


def failure(status: int, reason: str, message: str) -> web.Response:
    """An answer as the API server gives it."""
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "reason": reason, "code": status}
    headers = {"Retry-After": "1"} if status in (429, 503) else {}
    return web.json_response(body, status=status, headers=headers)


@dataclass
class Line:
    """What concerns one namespace: its fault, and what has happened since that was armed."""

    proxy: "FaultProxy"
    fault: Fault = field(default_factory=Fault)
    writes: list[Write] = field(default_factory=list)
    events: int = 0
    """Of watches, bookmarks apart."""
    epoch: int = 0

    @property
    def effective(self) -> int:
        """Effective writes."""
        return sum(write.changed for write in self.writes)

    def arm(self, fault: Fault) -> None:
        """From now on."""
        self.fault, fault.line = fault, self
        self.writes, self.events = [], 0
        self.epoch += 1


class FaultProxy:
    """The proxy in front of a lab's API server: `open` and `close` it; `kubeconfig` is for the operator."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab, self.kubeconfig = lab, folder / "proxy.kubeconfig"
        self._lines: dict[str, Line] = {}

    def line(self, namespace: str) -> Line:
        """The line of a namespace."""
        return self._lines.setdefault(namespace, Line(self))

    async def open(self) -> None:
        """Listen."""
        ca, serving = cluster_ca(self.lab), cluster_ca(self.lab).issue("apiserver", "kube-apiserver")
        upstream = ssl.create_default_context(cafile=str(ca.pair.certificate))
        own = {"Authorization": f"Bearer {token(self.lab.pki / 'admin.token')}", "Accept": METADATA}
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=upstream, limit=0),
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
        )
        self._own = own
        listening = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        listening.load_cert_chain(str(serving.certificate), str(serving.key))
        application = web.Application(client_max_size=64 << 20)
        application.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(application, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        port = free_port()
        await web.TCPSite(self._runner, "127.0.0.1", port, ssl_context=listening).start()
        config = yaml.safe_load(self.lab.kubeconfig.read_text())
        config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{port}"
        write_private(self.kubeconfig, yaml.safe_dump(config))

    async def close(self) -> None:
        """Listen no more."""
        await self._session.close()
        await self._runner.cleanup()

    async def delete(self, path: str) -> None:
        """Delete an object, as somebody else."""
        async with self._session.delete(f"{self.lab.server}{path}", headers=self._own) as answer:
            assert answer.status in (200, 202, 404), await answer.text()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        asked = Asked(request.method, request.path, dict(request.query))
        line = self.line(asked.namespace)
        try:
            return await line.fault.before(asked) or await self._forward(request, asked, line)
        except (Cut, ConnectionResetError):
            # The latter: the operator has hung up.
            assert request.transport is not None
            request.transport.abort()
            raise asyncio.CancelledError from None

    async def _forward(self, request: web.Request, asked: Asked, line: Line) -> web.StreamResponse:
        version = await self._version(asked) if asked.is_write else ""
        headers = CIMultiDict((name, value) for name, value in request.headers.items() if name.lower() not in _NOT_PASSED_ON)
        headers["Accept-Encoding"] = "identity"
        body = await request.read() if request.can_read_body else None
        url, query = f"{self.lab.server}{asked.path}", line.fault.query(asked)
        async with self._session.request(asked.method, url, params=query, headers=headers, data=body) as answer:
            if "watch" in asked.query and answer.status == 200:
                return await self._follow(request, asked, line, answer)
            content = await answer.read()
            if asked.is_write:
                write = Write(asked.target, asked.path, answer.status, answer.status < 300 and _version_in(content) != version)
                line.writes.append(write)
                await line.fault.after(write)
            passed = {name: value for name, value in answer.headers.items() if name.lower() not in _NOT_PASSED_ON}
            return web.Response(status=answer.status, body=content, headers=passed)

    async def _follow(self, request: web.Request, asked: Asked, line: Line, answer: aiohttp.ClientResponse) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": answer.headers["Content-Type"]})
        epoch = line.epoch

        def silenced() -> bool:
            return epoch != line.epoch and line.fault.silences(asked)

        await response.prepare(request)
        async for text in lines(answer.content):
            if silenced():
                break
            event = json.loads(text)
            if event["type"] != "BOOKMARK":
                line.events += 1
                if not await line.fault.passes(asked, event):
                    continue
            await response.write(text + b"\n")
        if silenced():
            await asyncio.Event().wait()  # until the operator hangs up
        return response

    async def _version(self, asked: Asked) -> str:
        path = asked.path.removesuffix("/status")
        async with self._session.get(f"{self.lab.server}{path}", headers=self._own) as answer:
            return _version_in(await answer.read()) if answer.status == 200 else ""


def _version_in(content: bytes) -> str:
    """resourceVersion of an object; empty for an answer without one (that of a deletion)."""
    return str(json.loads(content).get("metadata", {}).get("resourceVersion", ""))
