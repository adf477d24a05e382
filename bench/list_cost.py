"""What reading everything there is of a kind costs the API server: in pages, at once, and as the stream a watch begins with.

A page is read from etcd and decoded, unless the kind was written to in the last minutes; what is not paged comes from the API server's
cache. So a quiet cluster is dearer to read than a busy one. Reads what a fake-node lab holds (fill it with `python -m bench.scale`, or any
operator), and writes nothing. `python -m bench.list_cost`; wait ten minutes after the last write to see a quiet cluster.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from functools import partial

import click
from rich.console import Console
from rich.table import Table

from bench.create_burst import Api, connect
from e2e.operator_process import cpu_seconds
from lab.lab import Lab
from perfpolicy.cluster.client import METADATA, METADATA_LIST, UNCOMPRESSED, lines

PATHS = (
    "/apis/monitoring.coreos.com/v1/prometheusrules",
    "/apis/perfpolicy.io/v1alpha1/performancepolicies",
    "/apis/networking.istio.io/v1/destinationrules",
    "/api/v1/services",
)
_STREAM = "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=60"


async def pages(api: Api, path: str, query: str) -> int:
    """How many objects were listed, with their metadata only."""
    count, token = 0, ""
    while True:
        url = f"{api.server}{path}?{query}" + (f"&continue={token}" if token else "")
        async with api.session.get(url, headers={"Accept": METADATA_LIST, **UNCOMPRESSED}, raise_for_status=True) as answer:
            page = json.loads(await answer.read())
        count += len(page["items"] or ())
        token = page["metadata"].get("continue", "")
        if not token:
            return count


async def stream(api: Api, path: str) -> int:
    """How many objects a watch showed before the bookmark that ends them, with their metadata only."""
    count = 0
    async with api.session.get(
        f"{api.server}{path}?{_STREAM}", headers={"Accept": METADATA, **UNCOMPRESSED}, raise_for_status=True
    ) as answer:
        async for line in lines(answer.content):
            event = json.loads(line)
            if event["type"] == "BOOKMARK":
                return count
            count += 1
    raise RuntimeError(f"{path}: the stream ended before its bookmark")


async def measure(lab: Lab) -> Table:
    """Seconds, and the API server's CPU, of each way to read each kind, in one run."""
    server = lab.supervisor.record("kube-apiserver")
    assert server is not None, f"lab {lab.name} is down"
    table = Table(title="reading the metadata of everything there is")
    for title in ("kind", "objects", "how", "seconds", "CPU of the API server, ms per object"):
        table.add_column(title, justify="left" if title in ("kind", "how") else "right")
    async with connect(lab) as api:
        for path in PATHS:
            ways: dict[str, Callable[[], Awaitable[int]]] = {
                "pages of 500": partial(pages, api, path, "limit=500"),
                "at once": partial(pages, api, path, ""),
                "stream": partial(stream, api, path),
            }
            for name, read in ways.items():
                used, start = cpu_seconds(server.pid), time.monotonic()
                count = await read()
                seconds = time.monotonic() - start
                each = (cpu_seconds(server.pid) - used) / max(1, count) * 1000
                table.add_row(path.rpartition("/")[2], f"{count:,}", name, f"{seconds:.1f}", f"{each:.3f}")
    return table


@click.command(help=__doc__)
@click.option("--lab", default="fake", show_default=True, help="A running lab of fake nodes.")
def main(lab: str) -> None:
    """Measure and print the table."""
    Console(width=120).print(asyncio.run(measure(Lab(lab, "fake"))))


if __name__ == "__main__":
    main()
