"""Do alerts fire and resolve that read series of a rule group with another interval than their own: in a real Prometheus, by the clock.

`promtool test rules` evaluates all groups at one interval. Here a Prometheus scrapes requests that all fail, and then are drowned in good
ones, evaluates a policy's own two groups, one ten times as often as the other, and is restarted. `--step 30` (35 minutes) is what
policies have; tests/promql plays it with steps of a third of a second, and whatever belongs to an interval shortened alike. Needs the lab's
`prometheus`, or one on PATH; no cluster. `python -m bench.alert_chains`.
"""

import math
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Final

import click
import yaml
from rich.console import Console
from rich.table import Table

from bench.backfill import Prometheus, serve
from bench.rule_truth import programs
from e2e.waiting import eventually
from perfpolicy.policy import model
from perfpolicy.policy.sources import ISTIO_BOUNDS_MS
from perfpolicy.promql import istio, names
from perfpolicy.promql.expr import duration
from perfpolicy.promql.rule import BLOCK_STEPS, Rule, RuleGroup
from perfpolicy.promql.rules import rule_groups
from perfpolicy.vocabulary import AlertName
from tests import builders as a

BAD_RATE, GOOD_RATE = 1e5, 1e9
"""Requests/s. A burn rate weighs by requests, so a flood of good ones ends in a step what windows of days remember."""
_SLOW_MS: Final = 1000.0
_IDENTITY: Final = ("objective", "short", "long", "severity")
_LABELS: Final = {
    "reporter": "destination",
    "destination_workload": "operation-service",
    "destination_workload_namespace": "ce-hub",
    "namespace": "ce-hub",
    "pod": "operation-service-7d9f8c6b5-x2x4z",
    "response_flags": "-",
    "request_protocol": "http",
    "grpc_response_status": "",
}


def policy_with(step: timedelta) -> model.Policy:
    """A policy of one availability and one latency objective, with burn alerts only."""
    provider = a.a_provider(scrape_interval=step / 2, rule_interval=step)
    slow = a.an_objective(name="fast", target=Decimal("0.99"), threshold=timedelta(milliseconds=500))
    wanted = model.Alerts(labels={}, runbook=None, disabled=tuple(sorted(set(AlertName) - {AlertName.ERROR_BUDGET_BURN})))
    return a.a_policy(
        objectives=(a.an_objective(), slow),
        metrics=a.a_metrics_source(provider=provider),
        observability=a.observability(alerts=wanted),
    )


def crossing(groups: tuple[RuleGroup, ...]) -> dict[int, list[Rule]]:
    """The alerts that read, in however many turns, what another group records; by the index of their own group."""
    recorded = [(index, rule) for index, group in enumerate(groups) for rule in group.rules if not rule.alert]

    def read_by(rule: Rule) -> set[int]:
        found, texts, known = set(), [str(rule.expr)], []
        while texts:
            text = texts.pop()
            for index, each in recorded:
                window = each.labels.get(names.WINDOW)
                if each not in known and f"{each.name}{{" in text and (window is None or f'{names.WINDOW}="{window}"' in text):
                    known.append(each)
                    found.add(index)
                    texts.append(str(each.expr))
        return found

    every = {index: [rule for rule in group.rules if rule.alert and read_by(rule) - {index}] for index, group in enumerate(groups)}
    return {index: rules for index, rules in every.items() if rules}


@dataclass
class Proxy:
    """Counters of one proxy, which go on by themselves: requests that are good, or that fail slowly."""

    good: float = 0
    bad: float = 0
    _broken: bool = True
    _since: float = field(default_factory=time.monotonic)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def text(self) -> str:
        """The counters as of now, in Prometheus' text format."""
        with self._lock:
            self._go_on()
            good, bad = int(self.good), int(self.bad)
        lines = [_line(istio.REQUESTS, good, response_code="200"), _line(istio.REQUESTS, bad, response_code="503")]
        for bound in ISTIO_BOUNDS_MS:
            lines.append(_line(istio.DURATION_BUCKET, good + (bad if bound >= _SLOW_MS else 0), le=f"{bound:f}", response_code="200"))
        lines.append(_line(istio.DURATION_BUCKET, good + bad, le="+Inf", response_code="200"))
        lines.append(_line(istio.DURATION_SUM, int(good + bad * _SLOW_MS), response_code="200"))
        return "".join(lines)

    def repair(self) -> None:
        """From now on all requests are good, and many."""
        with self._lock:
            self._go_on()
            self._broken = False

    def _go_on(self) -> None:
        now = time.monotonic()
        passed, self._since = now - self._since, now
        if self._broken:
            self.bad += passed * BAD_RATE
        else:
            self.good += passed * GOOD_RATE


def _line(name: str, value: int, **labels: str) -> str:
    return name + "{" + ",".join(f'{key}="{text}"' for key, text in {**_LABELS, **labels}.items()) + f"}} {value}\n"


@contextmanager
def _served(proxy: Proxy) -> Iterator[str]:
    """The address at which a proxy's counters are scraped."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = proxy.text().encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            """A scrape that was given up is Prometheus' to tell."""

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


@dataclass(frozen=True)
class Chain:
    """What one alert did. `fired`, `resolved`: Unix times of evaluations; `silent`: evaluations between that did not see it fire."""

    rule: Rule
    every: timedelta
    """Its group's interval."""
    fired: float
    held: int
    """Evaluations at which it fired."""
    silent: int
    resolved: float
    burning: Mapping[str, float]
    """Burn rates after all, by window: recorded, and below 1."""


@dataclass(frozen=True)
class Block:
    """Requests of a recorded block, and of the steps it stands for: its own and, where blocks are `missing` before it, of one more."""

    requests: float
    steps: float
    missing: int


@dataclass(frozen=True)
class Story:
    """Unix times, the chains, and the blocks but for the first."""

    begun: float
    repaired: float
    chains: tuple[Chain, ...]
    blocks: tuple[Block, ...]

    def problems(self) -> list[str]:
        """Alerts that were silent in between, and blocks that lost or doubled a step."""
        silent = [
            f"{labels['objective']} {labels['short']} & {labels['long']}: silent at {chain.silent} of {chain.held} evaluations"
            for chain in self.chains
            if chain.silent and (labels := chain.rule.labels)
        ]
        return silent + [
            f"a block of {block.requests:,.0f} requests, but its steps have {block.steps:,.0f}"
            for block in self.blocks
            if not math.isclose(block.requests, block.steps, rel_tol=1e-6)
        ]


def play(folder: Path, program: Path, step: timedelta, groups: tuple[RuleGroup, ...] | None = None) -> Story:
    """Everything fails until each alert that crosses groups has fired at two evaluations, then nothing until each is resolved; then
    Prometheus is restarted so that a block is missed.

    Raises AssertionError where that takes more than six blocks each. `groups`: instead of the policy's own.
    """
    groups = rule_groups(policy_with(step)) if groups is None else groups
    found = [(groups[index], rule) for index, rules in crossing(groups).items() for rule in rules]
    (folder / "rules.yaml").write_text(yaml.safe_dump({"groups": [group.to_dict() for group in groups]}))
    proxy, block = Proxy(), groups[1].interval.total_seconds()
    patience, margin, begun = block * 6 + 60, step.total_seconds() / 2, time.time()

    def held(asked: Prometheus) -> None:
        evaluations = asked.instant(f'count_over_time(ALERTS{{alertstate="firing"}}[{_since(begun)}])')
        missing = {_identity(rule.labels) for _, rule in found} - {_identity(labels) for labels, count in evaluations if count > 1}
        assert not missing, f"not firing at two evaluations: {sorted(missing)}"

    def newest(asked: Prometheus) -> float:
        return asked.row(f"{names.JUDGED_BLOCK}[{_since(begun)}]")[-1][0]

    with _served(proxy) as address:
        # Prometheus' own lookback is as long as a block, too.
        settings = folder, program, _config(address, step), f"--query.lookback-delta={duration(groups[1].interval)}"
        with serve(*settings) as (asked, _):
            eventually(lambda: held(asked), patience)
            repaired = time.time()
            proxy.repair()
            chains = eventually(lambda: tuple(_chain(asked, group, rule, begun, repaired) for group, rule in found), patience)
            last = newest(asked)
            eventually(lambda: time.time() > last + block - margin, patience)
        eventually(lambda: time.time() > last + block + margin, patience)
        with serve(*settings) as (asked, _):
            eventually(lambda: newest(asked) > last, patience)
            return Story(begun, repaired, chains, tuple(_blocks(asked, begun, step.total_seconds())))


def _blocks(prometheus: Prometheus, begun: float, step: float) -> Iterator[Block]:
    """A block reads one step late."""
    steps, blocks = (prometheus.row(f"{name}[{_since(begun)}]") for name in (names.JUDGED_STEP, names.JUDGED_BLOCK))
    for (before, _), (at, requests) in pairwise(blocks):
        missing = round((at - before) / (step * BLOCK_STEPS)) - 1
        since = at - step * BLOCK_STEPS * min(2, missing + 1)
        held = sum(count for when, count in steps if since < when + step - 0.001 and when + step < at + 0.001)
        yield Block(requests, held, missing)


def _config(address: str, step: timedelta) -> dict[str, object]:
    scrape = {
        "job_name": "istio-proxies",
        "scrape_interval": duration(step / 2),
        "scrape_timeout": duration(step / 2),
        "static_configs": [{"targets": [address]}],
    }
    return {"rule_files": ["rules.yaml"], "scrape_configs": [scrape]}


def _identity(labels: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(labels[name] for name in _IDENTITY)


def _since(begun: float) -> str:
    return f"{int(time.time() - begun) + 60}s"


def _chain(prometheus: Prometheus, group: RuleGroup, rule: Rule, begun: float, repaired: float) -> Chain:
    """Raises AssertionError as long as the alert fires, or is only silent: one of its windows still burns, or is not recorded."""
    identity = ",".join(f'{label}="{rule.labels[label]}"' for label in _IDENTITY)
    fired = [at for at, _ in prometheus.row(f'ALERTS{{alertstate="firing",{identity}}}[{_since(begun)}]')]
    with_each = names.REVISION if group.name.endswith("/steps") else names.JUDGED_BLOCK
    evaluated = [at for at, _ in prometheus.row(f"{with_each}[{_since(begun)}]")]
    silent = {at for at in evaluated if fired[0] <= at <= repaired} - set(fired)
    after = [at for at in evaluated if at > max(fired[-1], repaired)]
    assert after, f"still firing: {identity}"
    rates = {}
    for window in (rule.labels["short"], rule.labels["long"]):
        rate = f'{names.BURN_RATE}{{objective="{rule.labels["objective"]}",window="{window}"}}'
        rates[window] = prometheus.value(f"last_over_time({rate}[{duration(group.interval * 20)}])", time.time())
    assert all(rate < 1 for rate in rates.values()), f"silent, but burning {rates}: {identity}"
    return Chain(rule, group.interval, fired[0], len(fired), len(silent), after[0], rates)


def chain_table(story: Story) -> Table:
    """Each alert's seconds from the first bad request to firing, and from the last to resolved."""
    table = Table(title="alerts over groups of different intervals, in a real Prometheus")
    for title in (
        "objective",
        "windows",
        "severity",
        "looked at every",
        "fires after",
        "evaluations",
        "of them silent",
        "resolved after",
        "burn rates then",
    ):
        table.add_column(title, justify="left" if title in ("objective", "windows", "severity") else "right")
    for chain in story.chains:
        labels = chain.rule.labels
        rates = ", ".join(f"{rate:.4f}" for rate in chain.burning.values())
        table.add_row(
            labels["objective"], f"{labels['short']} & {labels['long']}", labels["severity"], duration(chain.every),
            f"{chain.fired - story.begun:.1f} s", str(chain.held), str(chain.silent), f"{chain.resolved - story.repaired:.1f} s", rates,
        )  # fmt: skip
    return table


@click.command(help=__doc__)
@click.option("--step", default=30.0, show_default=True, help="Seconds between two evaluations of the faster group.")
def main(step: float) -> None:
    """Play it and print the table."""
    with tempfile.TemporaryDirectory() as folder:
        story = play(Path(folder), programs()[0], timedelta(seconds=step))
    console = Console(width=160)
    console.print(chain_table(story))
    for each in story.blocks:
        console.print(f"a block of {each.requests:,.0f} requests, its steps {each.steps:,.0f}, after {each.missing} that are missing")
    for problem in story.problems():
        console.print(f"MISSED: {problem}")
    sys.exit(bool(story.problems()))


if __name__ == "__main__":
    main()
