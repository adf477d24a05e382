"""Are a policy's children as they were when they were last found as wanted? Told by one digest, without rendering any of them. Pure.

Rendering and comparing is most of what a pass costs, and after a restart with thousands of policies nearly every pass finds nothing to
write. The digest is of all that children follow from (the model, the kinds served, what others claim and scale, this very program) and of
all that is known of them, so whatever would make a pass write makes it differ. It differs for less, too; then the children are looked at as
ever.
"""

import hashlib
from collections.abc import Collection, Iterable
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import NamedTuple

from perfpolicy.policy.model import Policy
from perfpolicy.reconcile.applier import Held
from perfpolicy.reconcile.children import ChildCache, Since
from perfpolicy.render.manifest import GroupKind


class Outside(NamedTuple):
    """What others than the policy and its children decide. `scaled`: an autoscaler says how many replicas there are; `complete`: all
    autoscalers are known.
    """

    served: frozenset[GroupKind]
    withheld: frozenset[GroupKind]
    scaled: bool
    complete: bool


def digest(policy: Policy, outside: Outside, held: Collection[Held], children: ChildCache, *, judged: bool) -> str | None:
    """Of a policy that holds these children and no others; None where they are not all there, ours and left alone since they were judged.

    `held`: in an order of their own. `judged`: this process must have judged them; else it is enough that nobody touched them since it
    knows them, for a digest that whoever judged them left behind.
    """
    if children.owned(policy.identity.uid) != {each.ref for each in held}:
        return None
    parts = [program(), repr(policy)]
    for kinds in (outside.served, outside.withheld):
        parts += [*sorted(map(str, kinds)), ""]
    parts.append(f"{outside.scaled} {outside.complete}")
    for each in held:
        child = children.get(each.ref)
        if child is None or child.deleting or child.uid != each.uid:
            return None
        if child.since is Since.TOUCHED or (judged and child.since is Since.UNJUDGED):
            return None
        parts += [str(each.ref), child.uid, child.applied, child.fields, child.applied_at]
        parts += [child.policy, child.scaler, child.replicas, child.router]
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
