"""Connections to the API server, speaking plain JSON: a pool for requests, and one for each watch.

Why not the generated methods of the official client: its configuration, token refresh and aiohttp session are used as they are, but model
classes and the dynamic client's wrappers cost more per request than the request itself when hundreds of children are applied. Every error
leaves here as one of ours: ApiUnavailable (try again) or ApiRejected (the same request will fail again).

Every write goes through here, so this is also where it is held against the Lease, in the moment its first byte is sent: a request may have
waited for a connection, or the process may have been stopped meanwhile. Some microseconds are left between that look and the system call,
in which a stopped process could still be wrong; no client can close them, as the API server does not know of the Lease.
"""

import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio import client, config

from perfpolicy import __version__, json_text
from perfpolicy.cluster.pace import Pace
from perfpolicy.cluster.resource import Target, target_of
from perfpolicy.errors import ApiRejected, ApiUnavailable, NotLeading, SettingsError
from perfpolicy.settings import Settings
from perfpolicy.telemetry import API_REQUESTS

_log = logging.getLogger(__name__)
JSON = "application/json"
APPLY = "application/apply-patch+yaml"
METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
UNCOMPRESSED = {"Accept-Encoding": "identity"}
"""The API server is near: to compress long lists there and to unpack them here takes longer than to send them, and 30 MiB."""

_CONNECT_SECONDS = 10.0
_REFUSAL_SECONDS = 90.0
"""How long a refusal is told: what is refused is tried again every minute."""
_PROXIES = frozenset({"http_proxy", "https_proxy", "all_proxy"})
_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})


class Answer(NamedTuple):
    """A successful answer. `body` is empty where there was none (304)."""

    status: int
    body: dict[str, Any]
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Credentials:
    """How to reach the API server, for the one other client in this process (kopf). Paths are files; empty means not used."""

    server: str
    verify: bool
    ca_file: str
    certificate_file: str
    key_file: str
    token: str


class ApiClient:
    """Requests to one API server. Create with `connect`, close with `close`."""

    def __init__(
        self,
        configuration: Any,
        timeout: float,
        *,
        identity: str = "",
        may_write: Callable[[], bool] = lambda: True,
        pace: Pace | None = None,
    ) -> None:
        """`configuration`: a kubernetes.aio client Configuration; `timeout`: seconds for a whole request, watches excepted.

        `identity`: this replica's name, shown in the audit log; `may_write`: asked when a write is sent; if not, it fails with NotLeading;
        `pace`: of writes.
        """
        self._pace = pace
        self._configuration = configuration
        self._agent = f"perfpolicy/{__version__}" + (f" ({identity})" if identity else "")
        session = getattr(configuration, "client_session_kwargs", None) or {}
        configuration.client_session_kwargs = {**session, "request_class": _held_against(may_write)}
        self._answered_at = -float("inf")
        self._refused: dict[Target, tuple[float, str]] = {}
        self._rest: Any = client.ApiClient(configuration).rest_client
        # A watch keeps its connection: in one pool a watch per kind and namespace would leave none for requests.
        most, configuration.connection_pool_maxsize = configuration.connection_pool_maxsize, 0
        self._streams: Any = client.ApiClient(configuration).rest_client
        configuration.connection_pool_maxsize = most
        self._timeout = aiohttp.ClientTimeout(total=timeout, sock_connect=_CONNECT_SECONDS)

    @classmethod
    async def connect(cls, settings: Settings, identity: str = "", may_write: Callable[[], bool] = lambda: True) -> "ApiClient":
        """Load the configuration the settings name; sends nothing yet. Raises SettingsError where there is none."""
        pace = Pace(settings.writes_per_second)
        return cls(await load_configuration(settings), settings.request_timeout, identity=identity, may_write=may_write, pace=pace)

    async def close(self) -> None:
        """Close every connection."""
        await self._rest.close()
        await self._streams.close()

    async def credentials(self) -> Credentials:
        """Current credentials, refreshed where they expire."""
        authorization = await self._configuration.get_api_key_with_prefix("BearerToken", alias="authorization") or ""
        return Credentials(
            server=self._configuration.host,
            verify=bool(self._configuration.verify_ssl),
            ca_file=self._configuration.ssl_ca_cert or "",
            certificate_file=self._configuration.cert_file or "",
            key_file=self._configuration.key_file or "",
            token=authorization.split(" ")[-1],
        )

    @property
    def answered(self) -> float:
        """Seconds since the API server last answered anything."""
        return time.monotonic() - self._answered_at

    def problems(self) -> dict[str, str]:
        """What was refused with 403 just now, by verb and kind: a missing right, a quota, a rule of the cluster."""
        since = time.monotonic() - _REFUSAL_SECONDS
        return {f"{target.verb} {target.kind}": message for target, (at, message) in self._refused.items() if at > since}

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = JSON,
        accept: str = JSON,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send one request. Raises ApiUnavailable (no answer, 408, 429, 5xx; with the wait the server asked for), ApiRejected (4xx) or
        NotLeading.
        """
        what, target = f"{method} {path}", target_of(method, path)
        if self._pace is not None and method != "GET":
            await self._pace.turn()
        sent = await self._headers(accept, headers)
        sent["Content-Type"] = content_type
        try:
            answer = await self._rest.request(method, self._url(path, params), headers=sent, body=body, _request_timeout=self._timeout)
            response: aiohttp.ClientResponse = answer.response
            async with response:
                content = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self._heard_nothing(what, target)
            raise ApiUnavailable(f"{what}: {_describe(error)}") from error
        except RecursionError as error:
            raise ApiRejected(f"{what}: not sent, the body is nested too deeply", 400) from error
        self._heard(what, target, response.status)
        if response.status >= 400:
            raise self._refusal(what, target, response, content)
        try:
            return Answer(response.status, json_text.load(content) if content else {}, response.headers)
        except (ValueError, RecursionError) as error:
            raise _unreadable(what, error) from error

    async def stream(
        self, path: str, *, params: Mapping[str, str], silence: float, accept: str = JSON, on_open: Callable[[], None] = lambda: None
    ) -> AsyncIterator[dict[str, Any]]:
        """Lines of a watch until the server ends it, or has been silent for `silence` seconds; `on_open` is called when it has begun.

        Raises as `request` does; a stream that breaks off midway raises ApiUnavailable.
        """
        what, target, opened = f"watch {path}", target_of("GET", path, watch=True), False
        sent = await self._headers(accept, None)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=silence)
        try:
            answer = await self._streams.request("GET", self._url(path, params), headers=sent, _request_timeout=timeout)
            response: aiohttp.ClientResponse = answer.response
            async with response:
                content = await response.read() if response.status >= 400 else b""
                self._heard(what, target, response.status)
                if response.status >= 400:
                    raise self._refusal(what, target, response, content)
                opened = True
                on_open()
                async for line in lines(response.content):
                    yield json_text.load(line)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            if opened and isinstance(error, aiohttp.SocketTimeoutError):
                # The server is slow to end it, or the connection is dead: no problem unless the next request finds one.
                return
            if not opened:
                self._heard_nothing(what, target)
            raise ApiUnavailable(f"{what}: {_describe(error)}") from error
        except (ValueError, RecursionError) as error:
            raise _unreadable(what, error) from error

    def _heard(self, what: str, target: Target, status: int) -> None:
        _log.debug("asked the API server", extra={"request": what, "code": status})
        API_REQUESTS.labels(target.verb, target.kind, str(status)).inc()
        self._answered_at = time.monotonic()

    def _refusal(self, what: str, target: Target, response: aiohttp.ClientResponse, content: bytes) -> ApiUnavailable | ApiRejected:
        status, fields = response.status, _fields(content)
        message = fields.get("message") or content[:200].decode(errors="replace").strip() or "no message"
        if status == 403:
            self._refused[target] = (time.monotonic(), message)
        message = f"{what}: {status} {message}"
        if status in _AGAIN:
            return ApiUnavailable(message, _seconds(response.headers.get("Retry-After")))
        if status == 401:
            return ApiUnavailable(f"{message} (credentials expired or revoked)")
        return ApiRejected(message, status, str(fields.get("reason") or ""))

    def _heard_nothing(self, what: str, target: Target) -> None:
        _log.debug("asked the API server", extra={"request": what, "code": "error"})
        API_REQUESTS.labels(target.verb, target.kind, "error").inc()

    async def _headers(self, accept: str, extra: Mapping[str, str] | None) -> dict[str, str]:
        headers = {"Accept": accept, **UNCOMPRESSED, "User-Agent": self._agent, **(extra or {})}
        authorization = await self._configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
        if authorization:
            headers["Authorization"] = authorization
        return headers

    def _url(self, path: str, params: Mapping[str, str] | None) -> str:
        query = f"?{urlencode(params)}" if params else ""
        return f"{self._configuration.host}{path}{query}"


async def load_configuration(settings: Settings) -> Any:
    """The official client's configuration: the named kubeconfig, else the pod's service account, else the user's kubeconfig."""
    configuration = client.Configuration()
    try:
        if settings.kubeconfig is not None:
            await config.load_kube_config(config_file=str(settings.kubeconfig), client_configuration=configuration)  # type: ignore[no-untyped-call]
        elif "KUBERNETES_SERVICE_HOST" in os.environ:
            config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        else:
            await config.load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    except (config.ConfigException, OSError) as error:
        raise SettingsError(f"no way to reach a Kubernetes API server: {error}; set PERFPOLICY_KUBECONFIG or run in a pod") from error
    configuration.connection_pool_maxsize = settings.api_connections
    configuration.retries = None
    # With trust_env aiohttp looks for a .netrc and for proxies in a thread, twice for every request: only where a proxy is set at all.
    configuration.client_session_kwargs = {"trust_env": any(name.lower() in _PROXIES for name in os.environ)}
    return configuration


def _held_against(may_write: Callable[[], bool]) -> type[aiohttp.ClientRequest]:
    class Request(aiohttp.ClientRequest):
        def held(self) -> None:
            if self.method != "GET" and not may_write():
                raise NotLeading(f"{self.method} {self.url.path}: not sent, this replica does not lead")

        async def send(self, conn: Any) -> aiohttp.ClientResponse:
            self.held()
            return await super().send(conn)

        async def write_bytes(self, writer: Any, conn: Any, content_length: int | None = None) -> None:
            # What has a body is sent here, head and all, and before Python 3.12 only in a later turn of the event loop than `send`.
            try:
                self.held()
            except NotLeading as error:
                conn.protocol.set_exception(error)
                return
            await super().write_bytes(writer, conn, content_length)

    return Request


async def lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Lines of any length (aiohttp's own line reader gives up above its buffer limit)."""
    rest = b""
    async for chunk in content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line:
                yield line


def _fields(content: bytes) -> dict[str, Any]:
    try:
        answer = json_text.load(content)
    except (ValueError, RecursionError):
        answer = {}
    return answer if isinstance(answer, dict) else {}


def _unreadable(what: str, error: ValueError | RecursionError) -> ApiUnavailable:
    why = "is nested too deeply" if isinstance(error, RecursionError) else "is not JSON"
    return ApiUnavailable(f"{what}: the answer {why}")


def _seconds(text: str | None) -> float | None:
    return float(text) if text is not None and text.isdecimal() else None


def _describe(error: BaseException) -> str:
    return str(error) or type(error).__name__
