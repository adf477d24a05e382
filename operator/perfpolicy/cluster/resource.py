"""Where the objects of a kind live in the API server's URL space, and how it names verbs and times. Pure."""

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


class Target(NamedTuple):
    """What a request does to what, in the words of RBAC rules: `kind` is the plural, with its subresource as in `pods/status`."""

    verb: str
    kind: str


_VERBS = {"PATCH": "patch", "PUT": "update", "POST": "create", "DELETE": "delete"}


def target_of(method: str, path: str, *, watch: bool = False) -> Target:
    """The target of a request to a path that `Resource.path` made; a path of no kind (discovery) is its own kind."""
    parts = path.strip("/").split("/")
    rest = parts[2 if parts[0] == "api" else 3 :]
    if not rest:
        return Target("get", path)
    if rest[0] == "namespaces" and len(rest) > 2:
        rest = rest[2:]
    read = "watch" if watch else "get" if len(rest) > 1 else "list"
    return Target(_VERBS.get(method, read), "/".join((rest[0], *rest[2:])))


def micro_time(at: datetime) -> str:
    """A time in UTC as the API server's MicroTime."""
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
