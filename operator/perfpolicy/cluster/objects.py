"""Read, apply and delete single objects.

Server-side apply with our field manager, never POST (it would be recorded as an update and lose the field ownership that drift detection
lives on). Answers are asked for as metadata only: nothing here needs the rest of an object it has just sent.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from perfpolicy.cluster.client import APPLY, JSON, METADATA, METADATA_LIST, ApiClient
from perfpolicy.cluster.resource import Resource
from perfpolicy.errors import ApiRejected
from perfpolicy.render.manifest import GroupKind, Manifest
from perfpolicy.vocabulary import FIELD_MANAGER

PAGE = 500
"""Objects asked for at once: bounds the memory of a list at both ends."""


class Applied(NamedTuple):
    """Answer to an apply: the object's metadata now, and whether it was created."""

    metadata: dict[str, Any]
    created: bool


class Objects:
    """Objects of the kinds it is given."""

    def __init__(self, api: ApiClient, resources: Mapping[GroupKind, Resource]) -> None:
        self._api = api
        self._resources = resources

    async def apply(self, manifest: Manifest, *, force: bool, manager: str = FIELD_MANAGER) -> Applied:
        """Server-side apply. Unforced, a field somebody else set otherwise makes it an ApiRejected of status 409, with nothing written.

        A manifest that carries metadata.uid is refused with 409 where another object stands in its place.
        """
        resource = self._resource(manifest)
        params = {"fieldManager": manager, "fieldValidation": "Strict"} | ({"force": "true"} if force else {})
        path = resource.path(manifest["metadata"]["namespace"], manifest["metadata"]["name"])
        answer = await self._api.request("PATCH", path, params=params, body=manifest, content_type=APPLY, accept=METADATA)
        return Applied(answer.body["metadata"], answer.status == 201)

    async def delete(self, kind: GroupKind, namespace: str, name: str, uid: str) -> bool:
        """Delete the object with this UID in the background; False where it is gone or another one has taken its place."""
        body = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background", "preconditions": {"uid": uid}}
        try:
            await self._api.request("DELETE", self._resources[kind].path(namespace, name), body=body, content_type=JSON)
        except ApiRejected as error:
            if error.status in (404, 409):
                return False
            raise
        return True

    async def read(self, kind: GroupKind, namespace: str | None, name: str) -> Manifest | None:
        """The whole object, or None where there is none (or the kind is not served)."""
        return await self._get(self._resources[kind].path(namespace, name), JSON)

    async def read_metadata(self, kind: GroupKind, namespace: str, name: str) -> dict[str, Any] | None:
        """Only its metadata, or None where there is none."""
        found = await self._get(self._resources[kind].path(namespace, name), METADATA)
        return None if found is None else found["metadata"]

    async def list_whole(self, kind: GroupKind, namespace: str | None) -> list[Manifest]:
        """Every object of the kind in a namespace (None: everywhere)."""
        return await self._pages(kind, namespace, JSON)

    async def list_metadata(self, kind: GroupKind, namespace: str | None) -> list[dict[str, Any]]:
        """Only the metadata of every object."""
        return [item["metadata"] for item in await self._pages(kind, namespace, METADATA_LIST)]

    async def _pages(self, kind: GroupKind, namespace: str | None, accept: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        params = {"limit": str(PAGE)}
        while True:
            body = (await self._api.request("GET", self._resources[kind].path(namespace), params=params, accept=accept)).body
            found += body.get("items") or ()
            token = body.get("metadata", {}).get("continue")
            if not token:
                return found
            params = {"limit": str(PAGE), "continue": token}

    async def _get(self, path: str, accept: str) -> dict[str, Any] | None:
        try:
            return (await self._api.request("GET", path, accept=accept)).body
        except ApiRejected as error:
            if error.status == 404:
                return None
            raise

    def _resource(self, manifest: Manifest) -> Resource:
        group, _, _ = manifest["apiVersion"].rpartition("/")
        return self._resources[GroupKind(group, manifest["kind"])]
