"""Simulated traffic of a service whose true number of requests and errors is known, as the samples a Prometheus would have scraped.

Counters run on between scrapes: outages begin and end anywhere, a pod that dies takes what it counted since its last scrape along. What is
true is what the pods counted, scraped or not.
"""

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

START = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp())
DAY = 86_400
QUIET = 1_200
"""Seconds without requests at both ends, so that no window's edge cuts through traffic."""


def by_day(now: float) -> float:
    """Requests/s: 2 at night, 62 at the two peaks of the day."""
    return 2 + 60 * math.sin(2 * math.pi * (now % DAY) / DAY) ** 2


@dataclass(frozen=True)
class Outage:
    """A share of all requests fails in [start, end)."""

    start: float
    end: float
    share: float = 1.0


@dataclass
class Pod:
    """One life of a pod; its counters begin at 0."""

    instance: str
    start: float
    end: float
    renamed: float = math.inf
    """When the job that scrapes it gets another name; the counters go on."""
    resets: tuple[float, ...] = ()
    """When its container restarts, ascending."""


@dataclass
class Service:
    """One service's traffic. Times are seconds of Unix time."""

    name: str
    start: float
    end: float
    pods: list[Pod]
    outages: list[Outage] = field(default_factory=list)
    scrape: float = 15
    rate: Callable[[float], float] = by_day
    errors: float = 0.0004
    """Share of requests that fails when nothing is wrong."""
    failed_scrapes: float = 0.0
    born_late: bool = False
    """The error series exist only from the first error on."""
    missed: tuple[float, ...] = ()
    """Times of rule evaluations that do not take place."""
    requests: int = 0
    failures: int = 0
    """The truth; known after `lines`."""
    _by_hour: dict[int, list[Outage]] = field(default_factory=dict)

    def lines(self, dice: random.Random) -> Iterator[str]:
        """Every sample in OpenMetrics, series by series; also counts the truth."""
        for pod in self.pods:
            good, bad = [], []
            for now, ok, failed in self._scrapes(pod, dice):
                good.append((now, ok))
                if failed or not self.born_late:
                    bad.append((now, failed))
            for code, samples in (("200", good), ("503", bad)):
                labels, later = self._labels(pod, code, "istio-proxies"), self._labels(pod, code, "mesh")
                for now, value in samples:
                    yield f"istio_requests_total{{{labels if now < pod.renamed else later}}} {value} {now:.3f}\n"

    def _labels(self, pod: Pod, code: str, job: str) -> str:
        return (
            f'reporter="destination",destination_workload="{self.name}",destination_workload_namespace="bench",namespace="bench",'
            f'job="{job}",instance="{pod.instance}",response_code="{code}"'
        )

    def _scrapes(self, pod: Pod, dice: random.Random) -> Iterator[tuple[float, int, int]]:
        """(time, requests served, requests failed) of each scrape that succeeds."""
        phase = dice.random() * self.scrape
        ok = failed = 0.0
        before, resets = pod.start, list(pod.resets)
        now = pod.start + phase
        while before < pod.end:
            now = min(now, pod.end)
            while resets and resets[0] < now:
                ok, failed = self._counted(before, resets[0], ok, failed)
                self._settle(ok, failed)
                ok, failed, before = 0.0, 0.0, resets.pop(0)
            ok, failed = self._counted(before, now, ok, failed)
            if now < pod.end and not (self.failed_scrapes and dice.random() < self.failed_scrapes):
                yield now, int(ok), int(failed)
            before, now = now, now + self.scrape
        self._settle(ok, failed)

    def _settle(self, ok: float, failed: float) -> None:
        self.requests += int(ok) + int(failed)
        self.failures += int(failed)

    def _counted(self, since: float, until: float, ok: float, failed: float) -> tuple[float, float]:
        if until <= self.start + QUIET or since >= self.end - QUIET:
            return ok, failed
        alive = sum(1 for pod in self.pods if pod.start <= since < pod.end) or 1
        offered = self.rate(since) * (until - since) / alive
        down = sum(max(0.0, min(until, o.end) - max(since, o.start)) * o.share for o in self._near(since, until)) / (until - since or 1)
        bad = offered * min(1.0, max(down, self.errors))
        return ok + offered - bad, failed + bad

    def _near(self, since: float, until: float) -> list[Outage]:
        """The outages that touch an hour; looked up, for a month has a million scrapes."""
        if not self._by_hour:
            for outage in self.outages:
                for hour in range(int(outage.start // 3600), int(outage.end // 3600) + 1):
                    self._by_hour.setdefault(hour, []).append(outage)
            self._by_hour.setdefault(-1, [])
        first, last = int(since // 3600), int(until // 3600)
        found = self._by_hour.get(first, [])
        return found if first == last else [*{id(o): o for o in (*found, *self._by_hour.get(last, []))}.values()]


def two_pods(start: float, end: float) -> list[Pod]:
    """Two pods that live all the time."""
    return [Pod(f"10.0.0.{number}:15020", start, end) for number in (1, 2)]


def short_outages(start: float, end: float, dice: random.Random, every: float = 5 * 3600) -> list[Outage]:
    """Total outages of 20 to 30 s, in every phase against the ends of 30 s steps: most lie across one."""
    begins = (start + n * every + dice.uniform(0, 300) for n in range(1, int((end - start) / every)))
    return [Outage(begin, begin + dice.uniform(20, 30)) for begin in begins]


def quiet_nights(start: float, end: float) -> list[Outage]:
    """Half the requests fail in one quiet half hour a day, when there are few."""
    return [Outage(day, day + 1800, 0.5) for day in range(int(start) // DAY * DAY + DAY, int(end), DAY)]


def month(days: float, dice: random.Random) -> list[Service]:
    """One service per cause of loss, and one with all of them."""
    start, end = float(START), START + days * DAY

    def service(name: str, pods: list[Pod] | None = None, outages: list[Outage] | None = None) -> Service:
        around = outages if outages is not None else [Outage(start + DAY / 3, start + DAY / 3 + 600, 0.3)]
        return Service(name, start, end, pods or two_pods(start, end), around)

    restarted = two_pods(start, end)
    for pod in restarted:
        pod.resets = _moments(start, end, DAY * 1.5, dice)
    gaps = service("failed-scrapes")
    gaps.failed_scrapes = 0.05
    born = service("first-errors", outages=short_outages(start, end, dice))
    born.errors, born.born_late = 0.0, True
    missed = service("missed-evaluations", outages=[*short_outages(start, end, dice), *quiet_nights(start, end)])
    missed.missed = _moments(start, end, DAY / 2, dice)
    renamed = two_pods(start, end)
    for pod in renamed:
        pod.renamed = (start + end) / 2
    everything = service("all-of-it", churned(start, end, dice, DAY / 2), [*short_outages(start, end, dice), *quiet_nights(start, end)])
    for pod in everything.pods:
        pod.resets = _moments(pod.start, pod.end, DAY * 1.5, dice)
    everything.failed_scrapes, everything.born_late = 0.02, True
    everything.missed = _moments(start, end, DAY, dice)
    return [
        service("uneven-traffic"),
        service("quiet-nights", outages=quiet_nights(start, end)),
        service("short-outages", outages=short_outages(start, end, dice)),
        service("restarts", restarted),
        gaps,
        born,
        service("pod-churn", churned(start, end, dice, DAY / 4)),
        missed,
        service("renamed-labels", renamed),
        everything,
    ]


def churned(start: float, end: float, dice: random.Random, life: float) -> list[Pod]:
    """Two pods at a time, each replaced after about `life` seconds."""
    pods = []
    for line in (1, 2):
        born, number = start, 0
        while born < end:
            dies = min(end, born + life * dice.uniform(0.7, 1.3))
            pods.append(Pod(f"10.{line}.{number // 250}.{number % 250}:15020", born, dies))
            born, number = dies, number + 1
    return pods


def _moments(start: float, end: float, every: float, dice: random.Random) -> tuple[float, ...]:
    found = []
    at = start + QUIET + dice.uniform(0.3, 1) * every
    while at < end - QUIET:
        found.append(at)
        at += dice.uniform(0.7, 1.3) * every
    return tuple(found)


def rivals_month(days: float) -> Service:
    """The data set of the cost table: 6 pods and 2 codes every 30 s, bursts of errors, quiet nights, restarts."""
    start, end = float(START), START + days * DAY
    outages = [Outage(hour * 3600, hour * 3600 + 900, 0.3) for hour in range(int(start) // 3600, int(end) // 3600) if hour % 31 == 5]
    outages += [
        Outage(half * 1800, half * 1800 + 1800, 0.5)
        for half in range(int(start) // 1800, int(end) // 1800)
        if half % 17 == 3 and by_day(half * 1800) < 3
    ]
    pods = [
        Pod(
            f"10.0.0.{n}:15020", start, end, resets=tuple(at for at in range(int(start), int(end), 30) if (at // 30) % (2880 + 97 * n) == 0)
        )
        for n in range(6)
    ]
    return Service("shop", start, end, pods, outages, scrape=30)


def incidents(count: int, dice: random.Random) -> list[Service]:
    """Services of steady traffic that begin to fail at a random moment after eight hours: what a page is for."""
    found = []
    for number in range(count):
        begin, end = float(START), START + 11.0 * 3600
        at = START + 8 * 3600 + dice.uniform(0, 600)
        pods = [Pod(f"10.0.{number}.{n}:15020", begin, end) for n in range(3)]
        service = Service(f"incident-{number}", begin, end, pods, [Outage(at, end, (1.0, 0.5, 0.1, 0.03, 0.01)[number % 5])])
        service.rate = lambda now: 30.0  # noqa: ARG005
        service.errors = (0.0004, 0.0)[number // 5 % 2]
        service.born_late = service.errors == 0
        found.append(service)
    return found
