"""Asks the API server without a kubectl process for each question: what the tests ask again and again while they wait, or of many objects.

What a user does (apply, label, patch, delete) is still done with kubectl, but for what seconds are counted from.
"""

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from kubernetes.client import ApiClient
from kubernetes.config import new_client_from_config
from urllib3.exceptions import HTTPError

from lab.errors import CommandError

_DISCOVERY = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
_SECONDS = 30


@dataclass(frozen=True)
class Resource:
    """Where the objects of a kind are served. `prefix`: /api/v1 or /apis/GROUP/VERSION."""

    prefix: str
    plural: str
    namespaced: bool

    def path(self, namespace: str, name: str = "") -> str:
        """Of one object, or without a name of all of a namespace (which counts for nothing where the kind has none)."""
        within = ("namespaces", namespace) if self.namespaced and namespace else ()
        return "/".join((self.prefix, *within, self.plural, *((name,) if name else ())))


class Api:
    """One cluster, as the user of a kubeconfig. Threads may share it."""

    def __init__(self, kubeconfig: Path) -> None:
        self._client: ApiClient = new_client_from_config(str(kubeconfig), persist_config=False)  # type: ignore[no-untyped-call]
        self._resources: dict[str, Resource] = {}
        self._lock = threading.Lock()

    def get(self, kind: str, name: str, namespace: str) -> dict[str, Any] | None:
        """One object; None where there is none, or its kind is not served (any more)."""
        return self._read(self.resource(kind).path(namespace, name))

    def list(self, kind: str, namespace: str, selector: str = "") -> list[dict[str, Any]]:
        """The objects of a kind; of all namespaces where none is named. CommandError where the kind is not served."""
        found = self._read(self.resource(kind).path(namespace), {"labelSelector": selector} if selector else {})
        if found is None:
            raise CommandError(f"{kind} is not served")
        return list(found["items"])

    def create_dry(self, manifest: Mapping[str, Any], user: str = "") -> tuple[int, str]:
        """Status code and message of the API server's answer to a new object, which is not kept; as another user, where one is named."""
        path = self.resource(manifest["kind"]).path(manifest["metadata"]["namespace"])
        impersonated = {"Impersonate-User": user, "Impersonate-Group": "system:authenticated"} if user else {}
        status, body = self._ask("POST", path, {"dryRun": "All", "fieldValidation": "Strict"}, impersonated, manifest)
        return status, "" if status == 201 else str(json.loads(body)["message"])

    def delete(self, kind: str, name: str, namespace: str) -> None:
        """Delete an object, if there is one, and do not wait for what follows."""
        path = self.resource(kind).path(namespace, name)
        status, body = self._ask("DELETE", path, {}, {})
        if status not in (200, 202, 404):
            raise CommandError(f"DELETE {path}: {status} {body.decode()}")

    def evict(self, pod: str, namespace: str, *, dry_run: bool = False) -> str:
        """Ask the eviction API for a pod, as a drain does; the refusal, empty where it goes."""
        options = {"deleteOptions": {"dryRun": ["All"]}} if dry_run else {}
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": namespace}, **options}
        status, body = self._ask("POST", f"{self.resource('pods').path(namespace, pod)}/eviction", {}, {}, eviction)
        return "" if status == 201 else str(json.loads(body)["message"])

    def resource(self, word: str) -> Resource:
        """What kubectl understands by a word (a kind, its plural, a short name, `plural.group`); CommandError where it knows none."""
        with self._lock:
            # A kind that is not known may have come meanwhile; the place of one that is known never changes.
            if word.lower() not in self._resources:
                self._resources = self._discover() | self._resources
            if word.lower() not in self._resources:
                raise CommandError(f'the server does not have a resource type "{word}"')
            return self._resources[word.lower()]

    def _discover(self) -> dict[str, Resource]:
        """By each of its words; where two kinds share one, the first is meant, as with kubectl."""
        found: dict[str, Resource] = {}
        for path in ("/api", "/apis"):
            for group in (self._read(path, accept=_DISCOVERY) or {"items": ()})["items"]:
                name = group["metadata"].get("name", "")
                for version in group["versions"]:
                    prefix = f"/apis/{name}/{version['version']}" if name else f"/api/{version['version']}"
                    for each in version.get("resources", ()):
                        made = Resource(prefix, each["resource"], each["scope"] == "Namespaced")
                        words = [each["resource"], each["singularResource"], each["responseKind"]["kind"], *each.get("shortNames", ())]
                        for word in (*words, *(f"{word}.{name}" for word in words[:3])):
                            found.setdefault(word.lower(), made)
        return found

    def _read(self, path: str, query: Mapping[str, str] | None = None, accept: str = "application/json") -> dict[str, Any] | None:
        """The answer; None where there is nothing (404)."""
        status, body = self._ask("GET", path, query or {}, {"Accept": accept})
        if status == 404:
            return None
        if status != 200:
            raise CommandError(f"GET {path}: {status} {body.decode()}")
        found: dict[str, Any] = json.loads(body)
        return found

    def _ask(self, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str], body: Any = None) -> tuple[int, bytes]:
        """Status code and body of the answer, whatever it is; CommandError where none comes."""
        sent = {"Content-Type": "application/json", **headers}
        request = self._client.param_serialize(
            method, path, query_params=list(query.items()), header_params=sent, body=body, auth_settings=["BearerToken"]
        )
        try:
            answer = self._client.call_api(*request, _request_timeout=_SECONDS)
        except HTTPError as error:
            raise CommandError(f"{method} {path}: {error}") from error
        return answer.status, answer.response.data


@cache
def api_of(kubeconfig: Path) -> Api:
    """One for all who ask with that kubeconfig, so that connections and discovery are kept."""
    return Api(kubeconfig)
