"""`status` and `run`: the commands that need a cluster."""

import asyncio
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from rich.console import Console, RenderableType
from rich.live import Live

from perfpolicy import yaml_text
from perfpolicy.cli import status_view
from perfpolicy.cluster.client import ApiClient
from perfpolicy.cluster.kubeconfig import current_namespace
from perfpolicy.cluster.resource import Resource
from perfpolicy.errors import PerfPolicyError, SettingsError
from perfpolicy.settings import load_settings
from perfpolicy.vocabulary import GROUP, POLICY_KIND, POLICY_PLURAL, VERSION

_POLICIES = Resource(GROUP, VERSION, POLICY_KIND, POLICY_PLURAL)
_REFRESH_SECONDS = 2.0


def status_command(name: str | None, namespace: str | None, everywhere: bool, kubeconfig: Path | None, watch: bool, output: str) -> int:
    """Exit code of `perfpolicy status`."""
    if name and everywhere:
        raise click.UsageError("--all-namespaces shows every policy: leave NAME out, or name one namespace with -n")
    if watch and output != "table":
        raise click.UsageError("--watch shows a table: leave out -o, or use kubectl get pp -w")
    try:
        place = None if everywhere else namespace or current_namespace(kubeconfig)
        return asyncio.run(_show(place, name, kubeconfig, watch, output))
    except PerfPolicyError as error:
        click.echo(f"perfpolicy status: {error}", err=True)
        return 2 if isinstance(error, SettingsError) else 1
    except KeyboardInterrupt:
        return 0


async def _show(namespace: str | None, name: str | None, kubeconfig: Path | None, watch: bool, output: str) -> int:
    settings = load_settings()
    client = await ApiClient.connect(settings.model_copy(update={"kubeconfig": kubeconfig}) if kubeconfig else settings)
    try:
        if not watch:
            return _print(await _read(client, namespace, name), namespace, name, output)
        with Live(console=Console(), auto_refresh=False) as live:
            while True:
                live.update(_table(await _read(client, namespace, name), name), refresh=True)
                await asyncio.sleep(_REFRESH_SECONDS)
    finally:
        await client.close()


async def _read(client: ApiClient, namespace: str | None, name: str | None) -> list[Mapping[str, Any]]:
    answer = await client.request("GET", _POLICIES.path(namespace, name))
    return [answer.body] if name else answer.body["items"]


def _print(policies: list[Mapping[str, Any]], namespace: str | None, name: str | None, output: str) -> int:
    data: Any = policies[0] if name else {"apiVersion": "v1", "kind": "List", "items": policies}
    if output == "json":
        click.echo(json.dumps(data, indent=2))
    elif output == "yaml":
        click.echo(yaml_text.dump(data), nl=False)
    elif policies:
        # A pipe has no width: do not fold what a program or a log is to read.
        Console(width=None if sys.stdout.isatty() else 240).print(_table(policies, name))
    else:
        click.echo(f"no PerformancePolicy in {f'namespace {namespace}' if namespace else 'any namespace'}", err=True)
    return 0


def _table(policies: list[Mapping[str, Any]], name: str | None) -> RenderableType:
    return status_view.details(policies[0]) if name else status_view.overview(policies)


def run_command() -> int:
    """Exit code of `perfpolicy run`: 2 for settings that are wrong."""
    from perfpolicy.handlers.operator import run

    try:
        run(load_settings())
    except PerfPolicyError as error:
        click.echo(f"perfpolicy run: {error}", err=True)
        return 2
    return 0
