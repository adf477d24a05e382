"""What reconciling needs from outside, declared by the one who needs it. cluster/ has the real ones, tests an in-memory API server."""

from collections.abc import Mapping
from typing import Any, Protocol

from perfpolicy.policy.model import PolicyKey
from perfpolicy.render.manifest import GroupKind, Manifest
from perfpolicy.vocabulary import FIELD_MANAGER


class AppliedObject(Protocol):
    """Answer to an apply."""

    @property
    def metadata(self) -> dict[str, Any]:
        """The object's metadata now."""

    @property
    def created(self) -> bool:
        """The object did not exist before."""


class ObjectStore(Protocol):
    """Objects in the cluster. Every method may raise ApiUnavailable or ApiRejected."""

    async def apply(self, manifest: Manifest, *, force: bool, manager: str = FIELD_MANAGER) -> AppliedObject:
        """Server-side apply; unforced, a field somebody else set otherwise is refused with 409 and nothing is written."""

    async def delete(self, kind: GroupKind, namespace: str, name: str, uid: str) -> bool:
        """Delete the object with this UID; False where it is gone."""

    async def read(self, kind: GroupKind, namespace: str | None, name: str) -> Manifest | None:
        """The whole object, or None."""


class Finder(Protocol):
    """Metadata of single objects."""

    async def find(self, kind: GroupKind, namespace: str, name: str, since: float) -> dict[str, Any] | None:
        """Metadata of the object as it was at some moment after `since` (time.monotonic), or None."""


class StatusStore(Protocol):
    """Statuses of policies."""

    async def write(self, key: PolicyKey, uid: str, status: Mapping[str, Any]) -> bool:
        """Replace the status of the policy with this UID; False where that policy is gone."""
