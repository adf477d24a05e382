"""How long a burst of new policies takes until all are Programmed, beside a bare asyncio program that sends the same requests.

Both run against the same API server in the same run, by turns, each round in a fresh namespace: a machine's speed cancels out of the ratio.
The bare program knows every manifest beforehand and sends, with the best of several concurrencies, the writes and reads that the audit log
says the operator sent. Needs a lab of fake nodes: `python -m lab up --node fake`, then `python -m bench.create_burst`.
"""

import asyncio
import json
import os
import ssl
import statistics
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Iterable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import click
from rich.console import Console
from rich.table import Table

from e2e.cluster import Cluster
from e2e.operator_process import OperatorProcess
from e2e.policies import a_class, a_policy
from lab.audit import Request
from lab.lab import Lab
from perfpolicy.api.performance_class import parse_class
from perfpolicy.api.policy import parse_policy
from perfpolicy.cluster.client import APPLY, METADATA, METADATA_LIST, ApiClient, lines
from perfpolicy.cluster.events import Notice, event_object
from perfpolicy.policy.facts import Facts
from perfpolicy.policy.model import PolicyKey
from perfpolicy.policy.resolve import resolve
from perfpolicy.reconcile.fieldset import with_digest
from perfpolicy.render.registry import KINDS, render
from perfpolicy.settings import Settings

CONCURRENCY = (8, 16, 32)
Children = list[dict[str, Any]]
"""The manifests of one policy."""
PATHS = {(kind.api_version, kind.kind): kind.plural for kind in KINDS}


@dataclass(frozen=True)
class Api:
    """A bare session to the API server."""

    session: aiohttp.ClientSession
    server: str

    async def send(self, method: str, path: str, body: Any = None, content_type: str = "application/json", accept: str = METADATA) -> Any:
        """One request; any error ends the benchmark."""
        data = None if body is None else json.dumps(body)
        headers = {"Content-Type": content_type, "Accept": accept}
        async with self.session.request(method, self.server + path, data=data, headers=headers) as answer:
            if answer.status >= 400 and not (method == "GET" and answer.status == 404):
                raise RuntimeError(f"{method} {path}: {answer.status} {await answer.text()}")
            return await answer.json()


@asynccontextmanager
async def connect(lab: Lab) -> AsyncIterator[Api]:
    """A bare session with the lab's administrator's credentials."""
    client = await ApiClient.connect(Settings(kubeconfig=lab.kubeconfig))
    found = await client.credentials()
    await client.close()
    context = ssl.create_default_context(cafile=found.ca_file)
    if found.certificate_file:
        context.load_cert_chain(found.certificate_file, found.key_file)
    headers = {"Authorization": f"Bearer {found.token}"} if found.token else {}
    connector = aiohttp.TCPConnector(ssl=context, limit=64)
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
        yield Api(session, found.server)


async def in_parallel(limit: int, jobs: Iterable[Callable[[], Awaitable[Any]]]) -> list[Any]:
    """Run jobs, at most `limit` at a time; their answers in order."""
    gate = asyncio.Semaphore(limit)

    async def one(job: Callable[[], Awaitable[Any]]) -> Any:
        async with gate:
            return await job()

    return await asyncio.gather(*(one(job) for job in jobs))


def policies_path(namespace: str) -> str:
    """Where policies of a namespace are (empty: of all)."""
    place = f"namespaces/{namespace}/" if namespace else ""
    return f"/apis/perfpolicy.io/v1alpha1/{place}performancepolicies"


def policies_in(namespace: str, count: int) -> list[dict[str, Any]]:
    """So many policies called p0, p1 ..."""
    return [a_policy(f"p{number}", namespace, replicas=0) for number in range(count)]


async def create(api: Api, policies: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Create the policies, sixteen at a time; as they are now."""
    paths = [(policies_path(policy["metadata"]["namespace"]), policy) for policy in policies]
    return await in_parallel(16, [partial(api.send, "POST", path, policy, accept="application/json") for path, policy in paths])


async def watched(api: Api, path: str, version: str = "") -> AsyncGenerator[dict[str, Any], None]:
    """Objects as a watch shows them, for ever, from that resourceVersion on; without one those that are there come first."""
    # The API server ends a watch whose reader falls behind.
    while True:
        url = f"{api.server}{path}?watch=true&resourceVersion={version}"
        async with api.session.get(url, timeout=aiohttp.ClientTimeout(total=None), raise_for_status=True) as answer:
            async for line in lines(answer.content):
                shown = json.loads(line)["object"]
                version = shown["metadata"]["resourceVersion"]
                yield shown


async def until_programmed(api: Api, policies: Collection[dict[str, Any]], version: str, seconds: float) -> None:
    """Follow the policies from that resourceVersion on until all are Programmed."""
    waiting = {(policy["metadata"]["namespace"], policy["metadata"]["name"]) for policy in policies}
    namespaces = {namespace for namespace, _ in waiting}
    path = policies_path(*namespaces if len(namespaces) == 1 else ("",))
    try:
        async with asyncio.timeout(seconds), aclosing(watched(api, path, version)) as shown:
            async for policy in shown:
                said = {c["type"]: c["status"] for c in policy.get("status", {}).get("conditions", ())}
                if said.get("Programmed") == "True":
                    waiting.discard((policy["metadata"]["namespace"], policy["metadata"]["name"]))
                if not waiting:
                    return
    except TimeoutError:
        late = f"{len(waiting)} of {len(policies)} policies were not programmed within {seconds:g} s, {min(waiting)} for one"
        raise RuntimeError(late) from None


@dataclass(frozen=True)
class Round:
    """`seconds` from the first creation until all are Programmed, and how many cores of the machine were busy meanwhile."""

    seconds: float
    busy: float


async def timed(api: Api, policies: Collection[dict[str, Any]], work: Awaitable[Any], patience: float = 300) -> Round:
    """Do the work, and follow the policies until all are Programmed: both programs are looked at by the same watch."""
    version = (await api.send("GET", f"{policies_path('')}?limit=1", accept="application/json"))["metadata"]["resourceVersion"]
    start, before = time.monotonic(), _busy_seconds()
    following = asyncio.create_task(until_programmed(api, policies, version, patience))
    await work
    await following
    seconds = time.monotonic() - start
    return Round(seconds, (_busy_seconds() - before) / seconds)


def _busy_seconds() -> float:
    """CPU time of everything on this machine so far, all cores together."""
    user, nice, system, _, _, irq, softirq, *_ = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def manifests_of(policies: Iterable[dict[str, Any]]) -> list[Children]:
    """The children of created policies, as the operator applies them."""
    cls = parse_class({**a_class(), "metadata": {"name": "e2e", "generation": 1}})
    facts = Facts(namespace_labels={"istio-injection": "enabled"})
    return [[with_digest(m) for m in render(resolve(parse_policy(policy), cls, facts)).manifests] for policy in policies]


async def send_all(api: Api, policies: list[dict[str, Any]], limit: int, sent: "Requests", children: list[Children], status: Any) -> None:
    """The same requests as were `sent`: creations, metadata lists, every child, statuses and Events."""
    created = await create(api, policies)
    listings = [f"/api/v1/namespaces/{namespace}/configmaps?limit=500" for namespace in sorted({_namespace(each) for each in created})]
    await in_parallel(
        limit, [partial(api.send, "GET", listings[number % len(listings)], accept=METADATA_LIST) for number in range(sent.reads)]
    )
    await in_parallel(limit, [partial(_event, api, created[number % len(created)], number) for number in range(sent.events)])

    async def one(policy: dict[str, Any], children: Children, statuses: int) -> None:
        namespace, name = _namespace(policy), policy["metadata"]["name"]
        for child in children:
            for owner in child["metadata"]["ownerReferences"]:
                owner["uid"] = policy["metadata"]["uid"]
            group = "apis" if "/" in child["apiVersion"] else "api"
            plural = PATHS[child["apiVersion"], child["kind"]]
            path = f"/{group}/{child['apiVersion']}/namespaces/{namespace}/{plural}/{child['metadata']['name']}"
            await api.send("PATCH", f"{path}?fieldManager=perfpolicy&fieldValidation=Strict", child, APPLY)
        for number in range(statuses):
            body = {"apiVersion": policy["apiVersion"], "kind": policy["kind"], "metadata": {"name": name}, "status": status}
            body["status"] = {**status, "observedGeneration": number + 1}
            path = f"{policies_path(namespace)}/{name}/status?fieldManager=perfpolicy-status&force=true"
            await api.send("PATCH", path, body, APPLY)

    twice = sent.statuses - len(created)
    each = zip(created, children, strict=True)
    await in_parallel(limit, [partial(one, p, c, 1 + (number < twice)) for number, (p, c) in enumerate(each)])


def _namespace(policy: dict[str, Any]) -> str:
    return str(policy["metadata"]["namespace"])


async def _event(api: Api, policy: dict[str, Any], number: int) -> None:
    key = PolicyKey(_namespace(policy), policy["metadata"]["name"])
    notice = Notice(key, "uid", "Programmed", "8 objects applied", warning=False)
    now = datetime.now(UTC)
    name = f"{key.name}.bare{number}"
    body = event_object(notice, name, "bench", now, now, 1)
    path = f"/apis/events.k8s.io/v1/namespaces/{key.namespace}/events/{name}?fieldManager=perfpolicy&force=true"
    await api.send("PATCH", path, body, APPLY)


def stamped(policies: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Policies as the API server would show them."""
    return [{**policy, "metadata": {**policy["metadata"], "uid": str(uuid.uuid4())}} for policy in policies]


@dataclass(frozen=True)
class Requests:
    """What the operator sent in one round."""

    writes: int
    statuses: int
    events: int
    reads: int


def requests_since(cluster: Cluster, since: int | datetime, namespace: str | None) -> Requests:
    """Counted from the audit log, of one namespace or of all."""
    found = Counter(_sort_of(request) for request in cluster.asked(since, namespace))
    return Requests(found["write"], found["status"], found["event"], found["read"])


def _sort_of(request: Request) -> str:
    if request.verb in ("get", "list"):
        return "read"
    if request.resource == "events":
        return "event"
    if request.resource.endswith("/status"):
        return "status"
    return "write" if request.verb == "patch" else ""


@asynccontextmanager
async def fresh_namespace(cluster: Cluster) -> AsyncIterator[str]:
    """A namespace for one round."""
    name = f"burst-{uuid.uuid4().hex[:6]}"
    cluster.kubectl("create", "namespace", name)
    cluster.kubectl("label", "namespace", name, "istio-injection=enabled")
    try:
        yield name
    finally:
        # Waited for: its collection would weigh on the next round.
        cluster.kubectl("delete", "namespace", name, "--timeout=300s")


async def measure(cluster: Cluster, count: int, rounds: int, console: Console) -> dict[str, Any]:
    """All rounds; the report as data."""
    operator: list[Round] = []
    bare: dict[int, list[Round]] = {limit: [] for limit in CONCURRENCY}
    seen: list[Requests] = []
    cpu: list[float] = []
    cluster.apply(a_class())
    async with connect(cluster.lab) as api:
        with tempfile.TemporaryDirectory() as folder:
            for number in range(rounds):
                console.print(f"round {number + 1} of {rounds}: operator")
                with OperatorProcess(cluster.lab, Path(folder) / "operator.log") as process:
                    async with fresh_namespace(cluster) as namespace:
                        since, before = datetime.now(UTC), process.cpu_seconds
                        policies = policies_in(namespace, count)
                        operator.append(await timed(api, policies, create(api, policies)))
                        cpu.append(process.cpu_seconds - before)
                        seen.append(requests_since(cluster, since, namespace))
                        example = await api.send("GET", f"{policies_path(namespace)}/p0", accept="application/json")
                    assert process.running
                for limit in CONCURRENCY:
                    console.print(f"round {number + 1} of {rounds}: bare asyncio, {limit} at a time")
                    async with fresh_namespace(cluster) as namespace:
                        policies = policies_in(namespace, count)
                        work = send_all(api, policies, limit, seen[-1], manifests_of(stamped(policies)), example["status"])
                        bare[limit].append(await timed(api, policies, work))
    best = min(bare, key=lambda limit: _median(bare[limit]))
    return {
        "policies": count,
        "rounds": rounds,
        "operator_seconds": [round(one.seconds, 3) for one in operator],
        "bare_seconds": {str(limit): [round(one.seconds, 3) for one in rounds] for limit, rounds in bare.items()},
        "bare_concurrency": best,
        "ratio": round(_median(operator) / _median(bare[best]), 3),
        "ratios_by_round": [round(o.seconds / b.seconds, 3) for o, b in zip(operator, bare[best], strict=True)],
        "busy_cores": {"operator": round(_busy(operator), 2), "bare": round(_busy(bare[best]), 2), "of": os.cpu_count()},
        "operator_cpu_ms_per_policy": round(statistics.median(cpu) / count * 1000, 1),
        "policies_per_second": round(count / _median(operator), 1),
        "requests_per_policy": {
            name: round(statistics.median(getattr(r, name) for r in seen) / count, 2) for name in ("writes", "statuses", "events", "reads")
        },
    }


def _median(rounds: Iterable[Round]) -> float:
    return statistics.median(one.seconds for one in rounds)


def _busy(rounds: Iterable[Round]) -> float:
    return statistics.median(one.busy for one in rounds)


def show(report: dict[str, Any], console: Console) -> None:
    """The report for people."""
    table = Table(title=f"{report['policies']} policies created at once, {report['rounds']} rounds")
    table.add_column("")
    table.add_column("", justify="right")
    table.add_row("operator, until all Programmed", " ".join(f"{s:.2f} s" for s in report["operator_seconds"]))
    for limit, values in report["bare_seconds"].items():
        table.add_row(f"bare asyncio, {limit} at a time", " ".join(f"{s:.2f} s" for s in values))
    table.add_row("ratio of the medians (goal: at most 1.25)", f"{report['ratio']:.2f}", style="bold")
    ratios = " ".join(f"{ratio:.2f}" for ratio in report["ratios_by_round"])
    table.add_row(f"ratio by round, {report['bare_concurrency']} at a time", ratios)
    busy = report["busy_cores"]
    table.add_row(f"cores busy of {busy['of']}, operator's rounds / bare ones", f"{busy['operator']:.2f} / {busy['bare']:.2f}")
    table.add_row("policies per second", f"{report['policies_per_second']:.1f}")
    table.add_row("operator's CPU per policy", f"{report['operator_cpu_ms_per_policy']:.1f} ms")
    for name, value in report["requests_per_policy"].items():
        table.add_row(f"{name} per policy", f"{value:.2f}")
    console.print(table)


@click.command()
@click.option("--lab", default="fake", show_default=True, help="Name of a lab of fake nodes that is up.")
@click.option("--policies", default=100, show_default=True)
@click.option("--rounds", default=3, show_default=True)
@click.option("--json", "output", type=click.Path(path_type=Path), help="Write the report there too.")
def main(lab: str, policies: int, rounds: int, output: Path | None) -> None:
    """Measure a burst of new policies against a bare asyncio program."""
    console = Console(soft_wrap=True)
    cluster = Cluster(Lab(lab, "fake"))
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(Path(__file__).parent.parent / "crds"))
    report = asyncio.run(measure(cluster, policies, rounds, console))
    show(report, console)
    if output is not None:
        output.write_text(json.dumps(report, indent=2) + "\n")
    sys.exit(0)


if __name__ == "__main__":
    main()
