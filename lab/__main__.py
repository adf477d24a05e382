"""`python -m lab`: brings the project's own cluster up and down, and says how to use it."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from lab import components, mesh, operator_image, paths, teardown
from lab.controlplane import api_ready
from lab.errors import LabError
from lab.fake import CANNOT_PROVE
from lab.lab import Lab, NodeKind
from lab.progress import console
from lab.up import exclusive, up


def _lab(name: str | None, kind: NodeKind, external: Path | None = None) -> Lab:
    return Lab(name=name or kind, node=kind, external=external)


def find(name: str | None) -> Lab | None:
    """The lab of that name, or without a name the one that is there (real before fake before external); None when none is."""
    for candidate in [name] if name else ["real", "fake", "external"]:
        record = paths.STATE / candidate / "lab.json"
        if record.exists():
            known = json.loads(record.read_text())
            return Lab(name=candidate, node=known["node"], external=Path(known["kubeconfig"]) if known["node"] == "external" else None)
    return None


def _found(name: str | None) -> Lab:
    lab = find(name)
    if lab is None:
        named = sorted(record.parent.name for record in paths.STATE.glob("*/lab.json"))
        remedy = f"name one with --name: {', '.join(named)}" if named else "`python -m lab up`"
        raise LabError(f"no lab {name!r} is up" if name else f"no lab is up: {remedy}")
    return lab


_name = click.option("--name", help="Which lab, where several run side by side [default: real or fake, by the kind of node].")


@click.group(help=__doc__)
def main() -> None:
    """The group of commands."""


@main.command("up")
@click.option(
    "--node", "kind", type=click.Choice(["real", "fake"]), default="real", show_default=True, help="A real node (root), or fake ones."
)
@click.option("--kubeconfig", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Use this cluster of yours instead.")
@click.option("--mesh/--no-mesh", "with_mesh", default=True, show_default=True, help="Istio and Prometheus too, or only the bare cluster.")
@_name
def up_command(kind: NodeKind, kubeconfig: Path | None, name: str | None, with_mesh: bool) -> None:
    """Build what is not built, start what does not run; repeating it repairs."""
    lab = _lab(name, "external", kubeconfig.resolve()) if kubeconfig else _lab(name, kind)
    taken = up(lab, with_mesh=with_mesh)
    _print_times(taken)
    if lab.node == "fake":
        console.print(f"Note: {CANNOT_PROVE}.", markup=False)
    console.print(f'Use it with: eval "$(python -m lab env --name {lab.name})"', markup=False)


@main.command("build")
def build_command() -> None:
    """Build every component into the cache, and start nothing."""
    components.build_all(list(components.TOOLS))


@main.command("image")
def image_command() -> None:
    """Build the operator's image of this checkout into the cache."""
    console.print(f"{operator_image.build()}", markup=False)


@main.command("down")
@_name
def down_command(name: str | None) -> None:
    """Stop the lab and remove all it did to the machine; exits with 1 when something is left."""
    lab = find(name)
    if lab is None:
        console.print("no lab is up")
        return
    with exclusive(lab):
        left = teardown.down(lab)
    for line in left:
        console.print(f"left over: {line}", markup=False)
    if left:
        sys.exit(1)
    console.print(f"lab {lab.name}: no process, mount, interface, namespace, table or changed setting is left", markup=False)


@main.command("status")
@_name
@click.option("-o", "output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def status_command(name: str | None, output: str) -> None:
    """What runs. Exits with 1 when something that should run does not."""
    lab = _found(name)
    state = status(lab)
    if output == "json":
        click.echo(json.dumps(state, indent=1))
    else:
        for key, value in state["daemons"].items():
            click.echo(f"{key:28} {value}")
        click.echo(f"{'API server':28} {'ready' if state['ready'] else 'not ready'}")
    if not state["ready"] or "ended" in state["daemons"].values():
        sys.exit(1)


def status(lab: Lab) -> dict[str, Any]:
    """The lab's state as plain data: its name, kind, kubeconfig, whether the API answers, and each daemon."""
    daemons = {each: "running" if lab.supervisor.running(each) else "ended" for each in lab.supervisor.names()}
    ready = api_ready(lab)
    places = {"kubeconfig": str(lab.kubeconfig), "logs": str(lab.logs)}
    return {"name": lab.name, "node": lab.node, **places, "ready": ready, "daemons": daemons}


@main.command("env")
@_name
def env_command(name: str | None) -> None:
    """Print shell lines that point KUBECONFIG and PATH at the lab: eval "$(python -m lab env)"."""
    click.echo(env_lines(_found(name)))


def env_lines(lab: Lab) -> str:
    """The `export` lines of `env`, quoted for a POSIX shell."""
    values = {"KUBECONFIG": str(lab.kubeconfig), "PERFPOLICY_LAB": lab.name}
    if lab.node == "real":
        values |= mesh.environment(lab)
    outputs = [components.TOOLS[tool].output for tool in ("kubernetes", "helm", "istio", "prometheus", "k6")]
    folders = [str(output) for output in outputs if output.exists()]
    lines = [f"export {key}={shlex.quote(value)}" for key, value in values.items()]
    return "\n".join([*lines, f'export PATH={shlex.quote(":".join(folders))}:"$PATH"'])


def _print_times(taken: dict[str, float]) -> None:
    table = Table("step", "seconds", title="this start")
    for name, seconds in taken.items():
        table.add_row(name, f"{seconds:.1f}")
    table.add_row("together", f"{sum(taken.values()):.1f}", style="bold")
    builds = Table("component", "seconds", title="builds, when the cache was filled")
    for name, seconds in components.build_seconds().items():
        builds.add_row(name, f"{seconds:.0f}")
    console.print(table, builds)


if __name__ == "__main__":
    try:
        main()
    except LabError as error:
        console.print(f"error: {error}", markup=False, style="red")
        sys.exit(1)
