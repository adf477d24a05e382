"""List and watch of one kind of object, for the lab's host processes (exporter, rule loader).

They need the current set of some objects within a second and nothing else, so this is the standard library over one
kubeconfig: no client package, no caches beyond one dict. May touch: the API server, read-only.
"""

from __future__ import annotations

import base64
import http.client
import json
import logging
import os
import signal
import ssl
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import yaml

log = logging.getLogger(__name__)

Object = dict[str, Any]
# One watch request lasts this long; the socket's own deadline is a little more, so that a dead connection is noticed.
_WATCH_SECONDS = 240
_RETRY_SECONDS = 1.0


class WatchFailedError(Exception):
    """A list or watch was refused or ended in an error; the reflector lists again."""


class Api:
    """Read access to the API server of `kubeconfig`'s current context (token or client certificate)."""

    def __init__(self, kubeconfig: Path) -> None:
        document = yaml.safe_load(kubeconfig.read_text())
        context = _named(document["contexts"], document["current-context"])["context"]
        cluster = _named(document["clusters"], context["cluster"])["cluster"]
        user = _named(document["users"], context["user"])["user"]
        address = urlsplit(cluster["server"])
        self._host = address.hostname or "127.0.0.1"
        self._port = address.port or 443
        self._tls = ssl.create_default_context(cadata=_text(cluster, "certificate-authority", kubeconfig))
        self._headers = {"Accept": "application/json"}
        if "token" in user:
            self._headers["Authorization"] = f"Bearer {user['token']}"
        if "client-certificate" in user or "client-certificate-data" in user:
            with tempfile.NamedTemporaryFile("w") as both:
                both.write(_text(user, "client-certificate", kubeconfig) + _text(user, "client-key", kubeconfig))
                both.flush()
                self._tls.load_cert_chain(both.name)

    def get(self, path: str) -> Object:
        """The JSON document at `path`; raises WatchFailedError with the status the server gave."""
        connection = self._connect(timeout=60)
        try:
            answer = self._ask(connection, path)
            document: Object = json.load(answer)
            return document
        finally:
            connection.close()

    def stream(self, path: str) -> Iterator[Object]:
        """The JSON lines at `path` as they come, until the server ends the answer."""
        connection = self._connect(timeout=_WATCH_SECONDS + 15)
        try:
            for line in self._ask(connection, path):
                yield json.loads(line)
        finally:
            connection.close()

    def _connect(self, timeout: float) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(self._host, self._port, context=self._tls, timeout=timeout)

    def _ask(self, connection: http.client.HTTPSConnection, path: str) -> http.client.HTTPResponse:
        connection.request("GET", path, headers=self._headers)
        answer = connection.getresponse()
        if answer.status != 200:
            raise WatchFailedError(f"GET {path} was answered {answer.status}: {answer.read(300)!r}")
        return answer


def _named(entries: list[Object], name: str) -> Object:
    return next(entry for entry in entries if entry["name"] == name)


def _text(holder: Mapping[str, Any], key: str, kubeconfig: Path) -> str:
    """A PEM text given inline (`key`-data, base64) or as a file relative to the kubeconfig."""
    if f"{key}-data" in holder:
        return base64.b64decode(holder[f"{key}-data"]).decode()
    return (kubeconfig.parent / str(holder[key])).read_text()


def end_with_any_thread() -> None:
    """From now on a thread that dies takes its process with it, and SIGTERM ends it in order.

    Half a daemon would pass its silence off as "nothing happened"; a dead one shows in `lab status`, and `up` starts it anew.
    """

    def end(arguments: threading.ExceptHookArgs) -> None:
        log.critical("thread %s died", arguments.thread and arguments.thread.name, exc_info=arguments.exc_value)
        os._exit(1)

    threading.excepthook = end
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))


class Source(Protocol):
    """Where a reflector reads: Api, or a script in tests."""

    def get(self, path: str) -> Object:
        """The JSON document at `path`."""

    def stream(self, path: str) -> Iterator[Object]:
        """The JSON lines at `path`."""


class Reflector:
    """Keeps `objects` (uid → what `keep` made of the object) equal to the server's, in a daemon thread.

    `changed` is called, in that thread, after every list and every event. `synced` is set after the first list. A refused
    or broken request is logged and repeated after a second: a kind whose CRD does not exist yet appears by itself.
    """

    def __init__(self, api: Source, path: str, keep: Callable[[Object], Any], changed: Callable[[], None]) -> None:
        self.objects: dict[str, Any] = {}
        self.synced = threading.Event()
        self._api = api
        self._path = path
        self._keep = keep
        self._changed = changed
        self._complaint = ""

    def start(self) -> None:
        """Begin; returns at once."""
        threading.Thread(target=self._run, name=f"watch {self._path}", daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                version = self._list()
                while version:
                    version = self._watch(version)
            except (WatchFailedError, OSError, http.client.HTTPException, json.JSONDecodeError) as problem:
                self._complain(str(problem))
                threading.Event().wait(_RETRY_SECONDS)

    def _complain(self, problem: str) -> None:
        # A CRD that is missing for minutes is one line in the log, not hundreds.
        if problem != self._complaint:
            log.warning("watch of %s: %s; trying again every %g s", self._path, problem, _RETRY_SECONDS)
            self._complaint = problem

    def _list(self) -> str:
        listed = self._api.get(self._path)
        self.objects = {item["metadata"]["uid"]: self._keep(item) for item in listed["items"]}
        self._complaint = ""
        self.synced.set()
        self._changed()
        return str(listed["metadata"]["resourceVersion"])

    def _watch(self, version: str) -> str:
        """Follow events from `version`; returns where to go on, or "" when a new list is needed."""
        joiner = "&" if "?" in self._path else "?"
        options = f"watch=1&allowWatchBookmarks=true&timeoutSeconds={_WATCH_SECONDS}&resourceVersion={version}"
        for event in self._api.stream(f"{self._path}{joiner}{options}"):
            if event["type"] == "ERROR":
                return ""
            found = event["object"]
            version = str(found["metadata"]["resourceVersion"])
            if event["type"] == "BOOKMARK":
                continue
            if event["type"] == "DELETED":
                self.objects.pop(found["metadata"]["uid"], None)
            else:
                self.objects[found["metadata"]["uid"]] = self._keep(found)
            self._changed()
        return version
