"""One metrics backend through prometheus-api-client: one instant query in, its series out, or MetricsUnavailable.

What can go wrong there is one error here: no answer, a slow one, another status than 200, something that is not the API's JSON, and an
answer that says of itself that it is partial (Thanos, Mimir): a missing row of a partial answer would read as "no data".

The client library drops the answer's `warnings`, so a response hook reads the answer before it does. Retries are left to the caller's
next cycle. Importing the library costs 0.2 s and 15 MiB, so that happens with the first query.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from perfpolicy.errors import MetricsUnavailable
from perfpolicy.metrics.answer import read
from perfpolicy.policy.model import Provider

TENANT_HEADER = "X-Scope-OrgID"
"""Mimir, Cortex, Loki; Thanos is told to use the same name (--receive.tenant-header, --query.tenant-header)."""
_SHOWN = 300
_LONG = 4000
"""Characters of a query above which it travels in the body: proxies in front of a backend refuse long addresses (nginx: above 8 KiB)."""


class Backend(Protocol):
    """Answers instant queries; blocking. The only thing a source needs of a metrics backend."""

    def query(self, text: str) -> Sequence[Any]:
        """The `result` list of an instant query. Raises MetricsUnavailable."""


class PrometheusBackend:
    """A Prometheus-compatible backend at a provider's address. Not safe for two threads at once."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._client: Any = None

    def query(self, text: str) -> Sequence[Any]:
        """The `result` list of an instant query. Raises MetricsUnavailable."""
        import requests
        from prometheus_api_client.exceptions import PrometheusApiClientException

        address = self._provider.address
        try:
            client = self._connected()
            # Read anew each time: mounted tokens are rotated.
            client.headers = self._headers()
            result = client.custom_query(query=text, timeout=self._provider.timeout.total_seconds())
        except PrometheusApiClientException as error:
            raise MetricsUnavailable(f"{address}: {str(error)[:_SHOWN]}") from error
        except (requests.JSONDecodeError, KeyError, TypeError, RecursionError) as error:
            raise MetricsUnavailable(
                f"{address}: the answer is not a query result: {type(error).__name__}: {str(error)[:_SHOWN]}"
            ) from error
        except requests.RequestException as error:
            raise MetricsUnavailable(f"{address}: {type(error).__name__}: {str(error)[:_SHOWN]}") from error
        if not isinstance(result, list):
            raise MetricsUnavailable(f"{address}: the answer is not a query result: a {type(result).__name__} for a list")
        return result

    def _connected(self) -> Any:
        if self._client is None:
            from prometheus_api_client import PrometheusConnect
            from urllib3.util.retry import Retry

            session = _session()
            session.hooks["response"].append(self._read)
            self._client = PrometheusConnect(url=self._provider.address.rstrip("/"), session=session, retry=Retry(total=0))
        return self._client

    def _headers(self) -> dict[str, str]:
        headers: dict[str, str] = {}
        if self._provider.tenant:
            headers[TENANT_HEADER] = self._provider.tenant
        if self._provider.auth_file:
            try:
                token = Path(self._provider.auth_file).read_text(encoding="ascii").strip()
            except (OSError, ValueError) as error:
                raise MetricsUnavailable(f"{self._provider.address}: token file {self._provider.auth_file}: {error}") from error
            headers["Authorization"] = f"Bearer {token}"
        return headers

    def _read(self, response: Any, *_args: Any, **_kwargs: Any) -> None:
        """Give the client library the answer ready. Raise MetricsUnavailable for a 200 that carries warnings."""
        if response.status_code != 200:
            return
        try:
            answer = read(response.content)
        except (ValueError, RecursionError):
            return  # not JSON at all: the client says so
        warnings = answer.get("warnings") if isinstance(answer, dict) else None
        if warnings:
            raise MetricsUnavailable(f"{self._provider.address}: the answer is partial: {str(warnings)[:_SHOWN]}")
        response.json = lambda: answer


def _session() -> Any:
    """A session that sends long queries as forms, as the API allows; the client library puts them into the address, POST or not."""
    import requests

    class Session(requests.Session):
        def request(self, method: str, url: str, params: Any = None, **more: Any) -> requests.Response:  # type: ignore[override]
            if params and len(params.get("query", "")) > _LONG:
                return super().request("POST", url, data=params, **more)
            return super().request(method, url, params=params, **more)

    return Session()
