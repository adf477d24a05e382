"""Where the objects of a kind live in the API server's URL space, and how it writes times. Pure."""

from datetime import datetime
from typing import NamedTuple
from urllib.parse import quote


class Resource(NamedTuple):
    """One kind as the API server serves it. `group` is empty for the core group."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """As in a manifest: `apps/v1`, `v1`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """URL path of the collection (of one namespace or all), of one object, or of its subresource."""
        parts = ["apis", self.group, self.version] if self.group else ["api", self.version]
        if namespace is not None and self.namespaced:
            parts += ["namespaces", namespace]
        parts += [self.plural, *(part for part in (name, subresource) if part is not None)]
        return "/" + "/".join(quote(part, safe="") for part in parts)


def micro_time(at: datetime) -> str:
    """A time in UTC as the API server's MicroTime."""
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
