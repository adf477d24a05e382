"""`python -m e2e.mutate`: every kind's proofs hold with it, fail without it, and hold again. For the real lab; the output is a table.

For each kind the operator is started once with that render module removed (e2e/mutant.py); what had been written is deleted, and nobody
writes it again. Takes minutes, so it is run by hand and its output committed in docs/evidence/; the proofs run in CI (e2e/test_kinds.py).
"""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import click

from e2e.cluster import Cluster
from e2e.proofs import PROOFS, Proof, fails, holds
from e2e.waiting import eventually
from e2e.world import World, operator
from lab.lab import Lab
from perfpolicy.render import KINDS, ChildKind
from perfpolicy.vocabulary import MANAGED_BY, MANAGED_BY_LABEL

SECONDS = 60
STEADY = 3
"""A proof counts as failed when it fails this many times in a row: not for a moment, while proxies are told."""
ROOT = Path(__file__).resolve().parent.parent


@contextmanager
def running(world: World, log: Path, without: str = "") -> Iterator[None]:
    """An operator that renders everything, or everything but some kinds."""
    program = ("-m", "e2e.mutant", "without", without) if without else ("-m", "perfpolicy", "run")
    with operator(world.lab, log, world.namespace, program=program):
        yield


def fails_steadily(proof: Proof, world: World) -> tuple[float, str]:
    """Seconds until the proof fails for good, and why; AssertionError where it goes on holding."""
    began = time.monotonic()

    def check() -> tuple[float, str]:
        seconds = time.monotonic() - began
        reasons = [fails(proof, world) for _ in range(STEADY)]
        assert all(reasons), f"{proof.__name__} holds without its kind"
        return seconds, reasons[-1]

    return eventually(check, seconds=SECONDS)


def mutate(world: World, kind: ChildKind, log: Path) -> Iterator[str]:
    """One row of the table per proof of the kind; AssertionError where the kind makes no difference."""
    # Without PrometheusRule the ConfigMap steps in: that one is shown by taking it away as well.
    base = kind.stands_in_for.kind if kind.stands_in_for else ""
    with running(world, log, base):
        for proof in PROOFS[kind.kind]:
            eventually(lambda proof=proof: holds(proof, world), seconds=SECONDS)  # type: ignore[misc]
    with running(world, log, f"{base},{kind.kind}".strip(",")):
        resource = f"{kind.plural}.{kind.group}".rstrip(".")
        world.cluster.kubectl("delete", resource, "-n", world.namespace, "-l", f"{MANAGED_BY_LABEL}={MANAGED_BY}")
        found = [(proof, *fails_steadily(proof, world)) for proof in PROOFS[kind.kind]]
    with running(world, log, base):
        for proof, seconds, reason in found:
            eventually(lambda proof=proof: holds(proof, world), seconds=SECONDS)  # type: ignore[misc]
            yield f"| {kind.kind} | {proof.__name__} | yes | no, after {seconds:.0f} s | {reason[:140].replace('|', '/')} | yes |"


@click.command()
@click.argument("kinds", nargs=-1)
def main(kinds: tuple[str, ...]) -> None:
    """Show of each kind (or of the KINDS named) that its proofs fail when its render module is gone."""
    lab = Lab("real", "real")
    lab.apply("\n---\n".join(path.read_text() for path in sorted((ROOT / "crds").glob("*.yaml"))))
    click.echo(f"Every kind's proofs with and without its render module, on the real lab, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC.\n")
    click.echo("| kind | proof | holds with it | holds without it | because | holds again |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder, World.new(Cluster(lab)) as world:
        log = Path(folder) / "operator.log"
        with running(world, log):
            world.apply_policies()
        for kind in KINDS:
            if not kinds or kind.kind in kinds:
                for row in mutate(world, kind, log):
                    click.echo(row)


if __name__ == "__main__":
    main()
