"""`python -m e2e.mutant KIND[,KIND]`: the operator as it would be had somebody removed the render modules of these kinds."""

import sys

from perfpolicy import render
from perfpolicy.render import registry


def remove(names: frozenset[str]) -> None:
    """Take kinds out of the registry, before anything else of the operator reads it."""
    known = {kind.kind for kind in registry.KINDS}
    if not names <= known:
        raise SystemExit(f"unknown kinds {sorted(names - known)}; known: {sorted(known)}")
    kept = tuple(kind for kind in registry.KINDS if kind.kind not in names)
    for module in (registry, render):
        setattr(module, "KINDS", kept)  # noqa: B010 - it is Final, and this is the one place that breaks it
    registry.render.__defaults__ = (registry.EVERYTHING, kept)


if __name__ == "__main__":
    remove(frozenset(sys.argv[1].split(",")))
    from perfpolicy.cli import program

    program(["run"], prog_name="perfpolicy")
