"""Do the rules tell the truth about a month, what do they cost, and how soon do they page: beside the rules Sloth and Pyrra publish.

Needs Prometheus' two programs, of the lab (`python -m lab up` builds them) or on PATH; no cluster. `python -m bench.rule_truth`.
"""

import math
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from bench import rival_rules, traffic
from bench.backfill import Group, Past, Prometheus
from perfpolicy.policy import model
from perfpolicy.promql import names
from perfpolicy.promql.rules import rule_groups
from perfpolicy.vocabulary import AlertName
from tests import builders as a
from tests import lab_tools

NEEDED = (names.JUDGED_STEP, names.ERRORS_STEP, names.JUDGED_BLOCK, names.ERRORS_BLOCK)
SEED = 20260101


@dataclass(frozen=True)
class Cost:
    """Samples one set of rules makes Prometheus touch in a minute."""

    name: str
    recording: float
    alerts: float


def policy_of(service: traffic.Service) -> model.Policy:
    """A policy with one objective, 99.9 % availability over 30 days, for a simulated service."""
    return a.a_policy(
        name=service.name,
        namespace="bench",
        objectives=(a.an_objective(),),
        metrics=a.a_metrics_source(provider=a.a_provider(scrape_interval=timedelta(seconds=service.scrape))),
    )


def groups_of(policy: model.Policy, only: Iterable[str] | None = None) -> tuple[Group, ...]:
    """The policy's rules; `only`: the recording rules of these names."""
    found = []
    for group in rule_groups(policy):
        rules = [rule.to_dict() for rule in group.rules if only is None or rule.name in only]
        found.append(Group(group.name, int(group.interval.total_seconds()), rules))
    return tuple(found)


def write(past: Past, services: Sequence[traffic.Service], dice: random.Random) -> None:
    """The samples of all services."""
    past.write(line for service in services for line in service.lines(dice))


def record(past: Past, services: Sequence[traffic.Service], only: Iterable[str] | None) -> None:
    """What our rules record of each service; those that miss evaluations one by one."""
    whole = [service for service in services if not service.missed]
    for together in [whole, *([service] for service in services if service.missed)]:
        if together:
            groups = [group for service in together for group in groups_of(policy_of(service), only)]
            past.record(groups, together[0].start + 600, together[0].end, together[0].missed)


def errors_of_month(prometheus: Prometheus, service: traffic.Service) -> tuple[float, float]:
    """Bad and judged requests of the objective's window, as the rules for the budget read them at the end."""
    policy = policy_of(service)
    rules = {rule.name: str(rule.expr) for group in rule_groups(policy) for rule in group.rules}
    at = _end(service)
    return prometheus.value(rules[names.PERIOD_BAD], at), prometheus.value(rules[names.PERIOD_TOTAL], at)


def _end(service: traffic.Service) -> float:
    """When the month is judged: 30 days back lies the quiet before the traffic, at hand the quiet after it."""
    return service.end + traffic.QUIET / 2


@dataclass(frozen=True)
class Told:
    """Error ratios of a month as deviation from the truth: 0.001 is 0.1 % too high."""

    service: traffic.Service
    ours: float
    pyrra: float
    sloth: float
    requests: float
    """Share of all requests that our rules did not record."""


def tell(prometheus: Prometheus, service: traffic.Service) -> Told:
    """The month of one service, by each set of rules."""
    truth = service.failures / service.requests
    at = _end(service)
    bad, total = errors_of_month(prometheus, service)
    pyrra = prometheus.value(rival_rules.pyrra_ratio(service.name), at)
    sloth = prometheus.value(rival_rules.sloth(service.name)[0].rules[-1]["expr"], at)
    return Told(service, bad / total / truth - 1, pyrra / truth - 1, sloth / truth - 1, 1 - total / service.requests)


def for_objectives(policy: model.Policy) -> tuple[Group, ...]:
    """The rules of a policy's objectives: budgets, burn rates, their alerts, and whatever those read."""
    groups = groups_of(policy)
    wanted = {names.PERIOD_BAD, names.PERIOD_TOTAL, names.PERIOD_BLOCKS, names.BURN_RATE, AlertName.ERROR_BUDGET_BURN.value}
    rules = [rule for group in groups for rule in group.rules]
    while True:
        texts = " ".join(rule["expr"] for rule in rules if _name(rule) in wanted)
        read = {name for rule in rules if (name := _name(rule)) in texts and "record" in rule}
        if read <= wanted:
            break
        wanted |= read
    return tuple(Group(group.name, group.interval, [rule for rule in group.rules if _name(rule) in wanted]) for group in groups)


def costs(prometheus: Prometheus, service: traffic.Service) -> list[Cost]:
    """Samples per minute of each set of rules at the end of the month."""
    return [
        Cost(name, *(sum(_touched(prometheus, group, kind, service.end) for group in groups) for kind in ("record", "alert")))
        for name, groups in (
            ("perfpolicy", for_objectives(policy_of(service))),
            ("Sloth", rival_rules.sloth(service.name)),
            ("Pyrra", rival_rules.pyrra(service.name)),
        )
    ]


def _touched(prometheus: Prometheus, group: Group, kind: str, at: float) -> float:
    return sum(prometheus.samples(rule["expr"], at) for rule in group.rules if kind in rule) * 60 / group.interval


def _name(rule: Mapping[str, Any]) -> str:
    return str(rule.get("record") or rule["alert"])


@dataclass(frozen=True)
class Page:
    """Seconds from the beginning of an incident until a page alert fires; infinite: it does not.

    `sloth`: as published, its alerts in a group beside the recordings, both evaluated in phases of their own. `sloth_at_once`: as if its
    alert were evaluated with the recordings, and both when ours are.
    """

    service: traffic.Service
    ours: float
    sloth: float
    sloth_at_once: float


def page_after(prometheus: Prometheus, service: traffic.Service, phase: float) -> Page:
    """How soon an incident pages; `phase`: seconds past each half minute at which Sloth's alerts are evaluated."""
    steps = groups_of(policy_of(service))[0]
    ours = " or ".join(rule["expr"] for rule in steps.rules if _name(rule) == AlertName.ERROR_BUDGET_BURN)
    newest = prometheus.newest(f'{names.JUDGED_STEP}{{policy="{service.name}"}}', service.end)
    return Page(
        service,
        _first(prometheus, ours, service, newest),
        _first(prometheus, rival_rules.sloth_page(service.name), service, service.end - 30 + phase),
        _first(prometheus, rival_rules.sloth_page_at_once(service.name), service, newest),
    )


def _first(prometheus: Prometheus, alert: str, service: traffic.Service, newest: float) -> float:
    """When the alert first holds at one of the evaluations 30 s apart up to `newest`, in seconds from the incident's beginning."""
    begin = service.outages[0].start
    rows = prometheus.series(alert, newest - (newest - begin) // 30 * 30, newest, 30)
    return min((at for _, values in rows for at, _ in values), default=math.inf) - begin


def programs() -> tuple[Path, Path]:
    """prometheus and promtool."""
    found = [lab_tools.find("prometheus", name) for name in ("prometheus", "promtool")]
    if found[0] is None or found[1] is None:
        raise click.ClickException("prometheus and promtool are neither built (`python -m lab up` does) nor on PATH")
    return found[0], found[1]


def truth_table(told: Sequence[Told]) -> Table:
    """Error ratios beside the truth, by cause."""
    table = Table(title="error ratio of the month against the truth (what a budget is made of)")
    for title in ("what happens", "requests", "failed", "perfpolicy", "Pyrra", "Sloth", "requests not recorded"):
        table.add_column(title, justify="left" if title == "what happens" else "right")
    for one in told:
        service = one.service
        figures = [f"{value:+.3%}" if abs(value) < 0.5 else f"{value:+.0%}" for value in (one.ours, one.pyrra, one.sloth)]
        table.add_row(service.name, f"{service.requests:,}", f"{service.failures:,}", *figures, f"{one.requests:.3%}")
    return table


def cost_table(found: Sequence[Cost]) -> Table:
    """Samples per minute, and how many times ours."""
    table = Table(title="samples touched per SLO and minute (query API, stats=all)")
    for title in ("rules", "recording", "alerts", "both, in ours"):
        table.add_column(title, justify="left" if title == "rules" else "right")
    ours = found[0].recording + found[0].alerts
    for one in found:
        table.add_row(one.name, f"{one.recording:,.0f}", f"{one.alerts:,.0f}", f"{(one.recording + one.alerts) / ours:,.1f} x")
    return table


def page_table(pages: Sequence[Page]) -> Table:
    """How soon a page fires, by share of failing requests."""
    table = Table(title="seconds from the first failing request to the page, means")
    for title in ("requests that fail", "incidents", "perfpolicy", "Sloth", "Sloth, alerts with recordings", "ours later", "earlier"):
        table.add_column(title, justify="right")
    shares = sorted({page.service.outages[0].share for page in pages}, reverse=True)
    for share in [*shares, None]:
        some = [page for page in pages if page.service.outages[0].share == share or (share is None and math.isfinite(page.ours))]
        means = (statistics.fmean(times) for times in zip(*((p.ours, p.sloth, p.sloth_at_once) for p in some), strict=True))
        later, earlier = sum(p.ours > p.sloth_at_once for p in some), sum(p.ours < p.sloth_at_once for p in some)
        title = "all that page" if share is None else f"{share:.0%}"
        table.add_row(title, str(len(some)), *(f"{mean:,.1f}" for mean in means), str(later), str(earlier))
    return table


def month(folder: Path, days: float) -> Table:
    """The truth of a month, cause by cause."""
    dice = random.Random(SEED)
    past = Past(folder, *programs())
    services = [traffic.rivals_month(days), *traffic.month(days, dice)]
    write(past, services, dice)
    record(past, services, NEEDED)
    # While there are requests: 0/0 in the quiet at both ends would make Sloth's mean NaN for a month (sloth#749).
    rivals = [group for one in services for group in rival_rules.sloth_only(one.name, "5m")]
    past.record(rivals, services[0].start + traffic.QUIET + 300, services[0].end - traffic.QUIET)
    with past.server() as prometheus:
        return truth_table([tell(prometheus, service) for service in services])


def price(folder: Path, days: float) -> Table:
    """What the rules of one SLO cost at the end of a month."""
    past, service = Past(folder, *programs()), traffic.rivals_month(days)
    write(past, [service], random.Random(SEED))
    record(past, [service], (*NEEDED, names.BURN_RATE))
    past.record(
        [Group(group.name, group.interval, group.rules[:1]) for group in rival_rules.sloth(service.name)], service.start, service.end
    )
    with past.server() as prometheus:
        return cost_table(costs(prometheus, service))


def alarm(folder: Path, count: int) -> Table:
    """How soon incidents page."""
    dice = random.Random(SEED)
    past, services = Past(folder, *programs()), traffic.incidents(count, dice)
    write(past, services, dice)
    record(past, services, (*NEEDED, names.BURN_RATE))
    rivals = [group for service in services for group in rival_rules.sloth_only(service.name, *rival_rules.PAGE_WINDOWS)]
    past.record(rivals, services[0].start + 600, services[0].end)
    with past.server() as prometheus:
        return page_table([page_after(prometheus, service, dice.uniform(0, 30)) for service in services])


@click.command(help=__doc__)
@click.option("--days", default=30.0, show_default=True, help="Length of the month.")
@click.option("--incidents", default=100, show_default=True, help="Incidents to page for.")
def main(days: float, incidents: int) -> None:
    """Measure and print all three tables."""
    console = Console(width=140)
    parts: tuple[tuple[str, Callable[[Path], Table]], ...] = (
        ("cost", lambda folder: price(folder, days)),
        ("pages", lambda folder: alarm(folder, incidents)),
        ("month", lambda folder: month(folder, days)),
    )
    for name, measure in parts:
        begin = time.monotonic()
        with tempfile.TemporaryDirectory() as folder, console.status(f"{name}: some minutes"):
            table = measure(Path(folder))
        console.print(table)
        console.print(f"{name}: {time.monotonic() - begin:.0f} s\n")


if __name__ == "__main__":
    main()
