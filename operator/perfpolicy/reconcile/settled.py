"""Are a policy's children as they were when they were last found as wanted? Told by one digest, without rendering any of them. Pure.

Rendering and comparing is most of what a pass costs, and after a restart with thousands of policies nearly every pass finds nothing to
write. The digest is of all that children follow from (the model, the kinds served, this very program) and of all that is known of them, so
whatever would make a pass write makes it differ. It differs for less, too; then the children are looked at as ever.
"""

import hashlib
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

from perfpolicy.policy.model import Policy
from perfpolicy.reconcile.children import ChildCache, ChildRef, Since
from perfpolicy.render.manifest import GroupKind


def digest(policy: Policy, served: Iterable[GroupKind], held: Iterable[ChildRef], children: ChildCache) -> str:
    """Of a policy that holds these children and no others; empty where they are not all there, ours and left alone since they were judged.

    `held`: in an order of their own. The children must have been found as wanted before, by whoever compares with this.
    """
    uid, refs = policy.identity.uid, tuple(held)
    if children.owned(uid) != frozenset(refs):
        return ""
    parts = [program(), repr(policy), *sorted(map(str, served))]
    for ref in refs:
        child = children.get(ref)
        if child is None or child.deleting or child.since is Since.TOUCHED:
            return ""
        parts += [
            str(ref), child.uid, child.applied, child.fields, child.applied_at, child.policy, child.scaler, child.replicas, child.router
        ]  # fmt: skip
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=12).hexdigest()


@cache
def program() -> str:
    """Digest of the code and templates that run: another program may render other children of the same policy."""
    seen = hashlib.blake2b(digest_size=12)
    for name, content in _sources(files("perfpolicy"), ""):
        seen.update(f"{name}\0{len(content)}\0".encode() + content)
    return seen.hexdigest()


def _sources(folder: Traversable, path: str) -> Iterable[tuple[str, bytes]]:
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            if entry.name != "__pycache__":
                yield from _sources(entry, f"{path}{entry.name}/")
        else:
            yield f"{path}{entry.name}", entry.read_bytes()
