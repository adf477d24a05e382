"""The operator as it would be had somebody broken it, as a process of its own.

`python -m e2e.mutant without KIND[,KIND]` has not the render modules of these kinds; `python -m e2e.mutant altered JSON` makes something
else of some fields (JSON: a list of `Alteration`s).
"""

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Any

from perfpolicy import render
from perfpolicy.policy.model import Policy
from perfpolicy.render import Manifest, engine, registry
from perfpolicy.render.manifest import Child, ChildKind

CODE = "code"


@dataclass(frozen=True)
class Alteration:
    """Wherever `path` (keys joined by dots) is found in the object `kind` `name`, at any depth, there is `value` instead; None removes it.

    Of the kind "code" `name` is a module or module:class, and its function, method or property `path` answers `value`.
    """

    kind: str
    name: str
    path: str
    value: Any = None

    def __str__(self) -> str:
        told = "removed" if self.value is None and self.kind != CODE else f"= {json.dumps(self.value)}"
        return f"{self.name if self.kind == CODE else f'{self.kind} {self.name}'}: {self.path} {told}"

    def alter(self, manifest: Manifest) -> None:
        """Change the manifest, if it is the one."""
        if (manifest["kind"], manifest["metadata"]["name"]) != (self.kind, self.name):
            return
        *parents, last = self.path.split(".")
        for node in list(_mappings(manifest.get("spec"))):
            found: Any = node
            for key in parents:
                found = found.get(key) if isinstance(found, dict) else None
            if isinstance(found, dict) and last in found:
                if self.value is None:
                    del found[last]
                else:
                    found[last] = self.value


def _mappings(node: Any) -> Iterator[dict[str, Any]]:
    """Every mapping in a tree."""
    if isinstance(node, dict):
        yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _mappings(child)


def program(*alterations: Alteration) -> tuple[str, ...]:
    """What Python runs for an operator with these alterations."""
    return "-m", "e2e.mutant", "altered", json.dumps([asdict(each) for each in alterations])


def remove(names: frozenset[str]) -> None:
    """Take kinds out of the registry, before anything else of the operator reads it."""
    known = {kind.kind for kind in registry.KINDS}
    if not names <= known:
        raise SystemExit(f"unknown kinds {sorted(names - known)}; known: {sorted(known)}")
    kept = tuple(kind for kind in registry.KINDS if kind.kind not in names)
    for module in (registry, render):
        setattr(module, "KINDS", kept)  # noqa: B010 - it is Final, and this is the one place that breaks it
    registry.render.__defaults__ = (registry.EVERYTHING, kept)


def change(alterations: Iterable[Alteration]) -> None:
    """Let every rendered object, and the code named, be what the alterations say."""
    altered, right = tuple(alterations), engine.manifest

    def wrong(kind: ChildKind, policy: Policy, child: Child) -> Manifest:
        manifest = right(kind, policy, child)
        for each in altered:
            each.alter(manifest)
        return manifest

    setattr(engine, "manifest", wrong)  # noqa: B010 - as above
    for each in altered:
        if each.kind == CODE:
            module, _, owner = each.name.partition(":")
            found = getattr(import_module(module), owner) if owner else import_module(module)
            answer = lambda *_, value=each.value: value  # noqa: E731
            setattr(found, each.path, property(answer) if isinstance(getattr(found, each.path), property) else answer)


if __name__ == "__main__":
    how, what = sys.argv[1:]
    if how == "without":
        remove(frozenset(what.split(",")))
    else:
        change(Alteration(**each) for each in json.loads(what))
    from perfpolicy.cli import program as operator

    operator(["run"], prog_name="perfpolicy")
