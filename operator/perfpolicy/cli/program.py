"""The `perfpolicy` program and its commands."""

import sys
from pathlib import Path

import click

from perfpolicy import __version__

_FILES = click.option(
    "-f",
    "--filename",
    "filenames",
    multiple=True,
    required=True,
    type=click.Path(path_type=Path, allow_dash=True),
    help="A manifest, a folder of manifests, or - for standard input; may be given several times. Besides policies and classes, put the "
    "Deployments and Services that the policies target here: offline there is no cluster to read them from.",
)
_CLASS_FILES = click.option(
    "--class-file",
    "class_files",
    multiple=True,
    type=click.Path(path_type=Path, exists=True),
    help="PerformanceClasses to use instead of the four built-in ones. Classes in -f win over both.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="perfpolicy")
def program() -> None:
    """One PerformancePolicy per service: mesh routing, security, alert rules, and a status that can be trusted.

    Offline: `render` shows the objects a policy becomes, `lint` all that is wrong with it, `crd` the resource definitions.
    With a cluster: `run` is the operator, `status` shows what it has found.
    """


@program.command()
@_FILES
@_CLASS_FILES
@click.option(
    "--only",
    "kinds",
    multiple=True,
    help="Only children of this kind (for instance VirtualService), or `rules` for a plain Prometheus rule file.",
)
@click.option("--show-origin", is_flag=True, help="Instead of objects, list every resolved field with its value and where it came from.")
@click.option("-o", "--output", type=click.Choice(["yaml", "json"]), default="yaml", show_default=True, help="Output format.")
def render(filenames: tuple[Path, ...], class_files: tuple[Path, ...], kinds: tuple[str, ...], show_origin: bool, output: str) -> None:
    """Print the objects the policies become: the same code as the operator, without a cluster.

    \b
    perfpolicy render -f examples/ce-hub
    perfpolicy render -f policy.yaml --only VirtualService --only DestinationRule
    perfpolicy render -f policy.yaml --show-origin
    """
    from perfpolicy.cli import offline

    sys.exit(offline.render_command(filenames, class_files, kinds, show_origin, output))


@program.command()
@_FILES
@_CLASS_FILES
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Output format.")
def lint(filenames: tuple[Path, ...], class_files: tuple[Path, ...], output: str) -> None:
    """List every problem of the policies with its field path, and the anti-patterns found. Exit 1 when there is a problem.

    \b
    perfpolicy lint -f examples/ce-hub
    kubectl get pp checkout -o yaml | perfpolicy lint -f -
    """
    from perfpolicy.cli import offline

    sys.exit(offline.lint_command(filenames, class_files, output))


@program.command()
@click.option("--classes", is_flag=True, help="Print the four built-in PerformanceClasses instead.")
def crd(classes: bool) -> None:
    """Print the CustomResourceDefinitions, ready for `kubectl apply --server-side -f -`."""
    from perfpolicy.api import schema
    from perfpolicy.policy.builtin import builtin_classes_text

    if classes:
        click.echo(builtin_classes_text(), nl=False)
        return
    click.echo("---\n".join(text for _, text in schema.crds()), nl=False)


@program.command()
@click.argument("name", required=False)
@click.option("-n", "--namespace", help="Namespace; the kubeconfig's current one unless told.")
@click.option("-A", "--all-namespaces", is_flag=True, help="Policies of every namespace.")
@click.option(
    "--kubeconfig", type=click.Path(path_type=Path, dir_okay=False), help="Kubeconfig file; $KUBECONFIG or ~/.kube/config unless told."
)
@click.option("-w", "--watch", is_flag=True, help="Keep showing the status until interrupted.")
@click.option("-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table", show_default=True, help="Output format.")
def status(name: str | None, namespace: str | None, all_namespaces: bool, kubeconfig: Path | None, watch: bool, output: str) -> None:
    """Show what the operator found: a line per policy, or with NAME every condition, threshold, objective and child.

    \b
    perfpolicy status -A
    perfpolicy status operation-service -n ce-hub --watch
    """
    from perfpolicy.cli import live

    sys.exit(live.status_command(name, namespace, all_namespaces, kubeconfig, watch, output))


@program.command()
def run() -> None:
    """Run the operator until SIGTERM. Configured by PERFPOLICY_* environment variables, listed in docs/settings.md."""
    from perfpolicy.cli import live

    sys.exit(live.run_command())


@program.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a completion script: source <(perfpolicy completion bash)."""
    from click.shell_completion import get_completion_class

    complete = get_completion_class(shell)
    assert complete is not None  # noqa: S101 - the choices above are click's own
    click.echo(complete(program, {}, "perfpolicy", "_PERFPOLICY_COMPLETE").source())
