"""What the live-status tests look at: one run of about two and a half minutes, in which four policies are broken and repaired at once.

`alpha` gets slow and full, `beta` fails and computes, `gamma` loses its metrics source, `delta` fails and is measured by what its
application counts; three more, of other sources, fail all the time (e2e/live_sources.py), and so does `planned`, in maintenance. In the
broken phase the operator is killed and another namespace forges series. Nothing is judged here, and nothing missed ends the run: the tests
say what did not happen in time.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from e2e import live_policies, live_sources
from e2e.cluster import Cluster
from e2e.live_policies import FAULT_RATE, RATE, WINDOW_SECONDS, live_class, live_policy, targets
from e2e.operator_process import OperatorProcess
from e2e.prometheus_stub import Mode, PrometheusStub
from e2e.status_history import Shown, StatusHistory
from lab import load, prometheus
from lab.audit import Request
from lab.backend_control import clear_faults, set_fault
from lab.errors import CommandError
from lab.load import Load, Result
from lab.workloads import namespace as namespace_of

ALPHA, BETA, GAMMA = NAMES = ("alpha", "beta", "gamma")
DELTA = "delta"
DELTA_RATE = 10.0
SOURCES_RATE = 20.0
POLL_SECONDS = 5.0
"""The operator's polling interval: its own default."""
SETTLE = timedelta(seconds=WINDOW_SECONDS + 7)
"""From the start of a load until a sample's window lies inside it: the window, one scrape, and the second after which proxies log."""
_REAL_LATENCY = {"p50": "100ms", "p95": "500ms", "p99": "2s"}
"""The user's, but for p99 (1 s): on a machine of two busy cores one request in a hundred takes longer by itself."""
_LOOSE_LATENCY = {"p50": "1s", "p95": "2500ms", "p99": "5s"}
"""beta's CPU is throttled on purpose: its latency must not be what breaks."""


@dataclass
class Recorded:
    """Everything seen. `marks`: when something was done; `reached`: the first status that showed what was awaited, None when none did."""

    cluster: Cluster
    namespace: str
    history: StatusHistory
    marks: dict[str, datetime] = field(default_factory=dict)
    reached: dict[str, Shown | None] = field(default_factory=dict)
    loads: dict[str, Result] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    writes: dict[str, Counter[Request]] = field(default_factory=dict)
    series: list[dict[str, Any]] = field(default_factory=list)
    raw: list[dict[str, Any]] = field(default_factory=list)
    application: list[dict[str, Any]] = field(default_factory=list)
    alerts: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)

    def mark(self, name: str) -> datetime:
        """Note that something happens now."""
        self.marks[name] = now = datetime.now(UTC)
        print(f"{now:%H:%M:%S} {name}")
        return now

    def await_status(self, what: str, name: str, check: Callable[[Shown], bool], seconds: float) -> None:
        """Wait until a policy's status passes; note the first that did."""
        self.reached[what] = self.history.wait(name, check, seconds)
        print(f"{datetime.now(UTC):%H:%M:%S} {what}{'' if self.reached[what] else f': not within {seconds:g} s'}")

    def samples(self, series: str, policy: str, **labels: str) -> list[tuple[datetime, float]]:
        """The recorded samples of a policy's own series."""
        wanted = {"__name__": series, "policy": policy, **labels}
        found = [row for row in self.series if wanted.items() <= row["metric"].items()]
        found = [row for row in found if "forged" not in row["metric"] and row["metric"]["policy_uid"] != "forged"]
        assert len(found) == 1, f"{len(found)} series match {wanted}"
        return [(datetime.fromtimestamp(float(time), UTC), float(value)) for time, value in found[0]["values"]]

    def counters(self, workload: str) -> list[list[tuple[float, float]]]:
        """The samples (unix seconds, value) of each raw request counter of a workload's own proxy."""
        wanted = {"reporter": "destination", "destination_workload": workload}
        rows = [row for row in self.raw if wanted.items() <= row["metric"].items()]
        return [[(float(time), float(value)) for time, value in row["values"]] for row in rows]


def tell(recorded: Recorded, operator: OperatorProcess, stub: PrometheusStub) -> None:
    """The whole run."""
    _before_traffic(recorded)
    with _requests(recorded, "sources", live_sources.EDGE, SOURCES_RATE, "sources load"):
        stub.mode = Mode.PASS
        with _requests(recorded, "gamma", GAMMA, 10.0), _requests(recorded, "delta", DELTA, DELTA_RATE):
            _told_under_load(recorded, operator, stub)
    _collect(recorded)


def _told_under_load(recorded: Recorded, operator: OperatorProcess, stub: PrometheusStub) -> None:
    with _requests(recorded, "healthy alpha", ALPHA, RATE), _requests(recorded, "healthy beta", BETA, RATE):
        _healthy(recorded)
    _break(recorded, stub)
    with _requests(recorded, "broken alpha", ALPHA, RATE), _requests(recorded, "broken beta", BETA, FAULT_RATE):
        _broken(recorded, stub)
        recorded.texts["metrics"] = operator.metrics()
        _restarted(recorded, operator)
        _forged(recorded)
    _repair(recorded, stub)
    with _requests(recorded, "repaired alpha", ALPHA, RATE), _requests(recorded, "repaired beta", BETA, RATE):
        _repaired(recorded)


def set_up(cluster: Cluster, namespace: str, stub: PrometheusStub) -> None:
    """Classes and policies; `gamma`'s source is the stub."""
    load.ensure(cluster.lab)
    cluster.apply(namespace_of(namespace), namespace_of(f"{namespace}-other", injected=False))
    address = prometheus.url(cluster.lab)
    cluster.apply(
        live_class(namespace, namespace, address),
        live_class(f"{namespace}-stub", namespace, stub.url),
        live_class(f"{namespace}-late", namespace, address, ruleQueryOffset=f"{live_sources.OFFSET.seconds}s"),
    )
    users = {"min": "1000", "target": "5000", "max": "10000"}
    cluster.apply(
        live_policy(ALPHA, namespace, namespace, _REAL_LATENCY, users),
        live_policy(BETA, namespace, namespace, _LOOSE_LATENCY, {"min": "45", "max": "1000"}, cpu="20%"),
        live_policy(GAMMA, namespace, f"{namespace}-stub", _REAL_LATENCY, users),
        live_policy(DELTA, namespace, namespace, _LOOSE_LATENCY, users, source=live_policies.APPLICATION),
        *live_sources.objects(namespace),
        *(live_sources.policy(name, namespace, namespace) for name in (*live_sources.SOURCES, live_sources.PLANNED)),
        live_sources.policy(live_sources.LATE, namespace, f"{namespace}-late"),
    )


def tear_down(cluster: Cluster, namespace: str) -> None:
    """Take everything away; namespaces go in the background."""
    for name in (namespace, f"{namespace}-stub", f"{namespace}-late"):
        cluster.kubectl("delete", "performanceclass", name, "--ignore-not-found")
    cluster.kubectl("delete", "namespace", namespace, f"{namespace}-other", "--wait=false", "--ignore-not-found")


def _before_traffic(recorded: Recorded) -> None:
    for name in NAMES:
        recorded.await_status(f"{name} Ready", name, lambda shown: shown.condition("Ready")[0] == "True", 90)
    for name in (ALPHA, BETA, live_sources.PLANNED):
        recorded.await_status(f"{name} without traffic", name, lambda shown: shown.condition("MetricsAvailable")[0] == "True", 40)
    recorded.await_status("gamma refused", GAMMA, lambda shown: shown.condition("MetricsAvailable")[0] == "False", 40)


def _healthy(recorded: Recorded) -> None:
    start = recorded.mark("load")
    recorded.texts["wait"] = _kubectl_wait(recorded)
    for name in NAMES:
        recorded.await_status(f"{name} met", name, _met, 5)
    _window_within(recorded, start, samples=2)
    recorded.mark("load end")


def _break(recorded: Recorded, stub: PrometheusStub) -> None:
    lab, namespace = recorded.cluster.lab, recorded.namespace
    stub.mode = Mode.GARBAGE
    recorded.mark("outage")
    set_fault(lab, namespace, f"app={ALPHA}", latency_ms=live_policies.LATENCY_MS, memory_mib=live_policies.MEMORY_MIB)
    set_fault(lab, namespace, f"app={BETA}", error_ratio=live_policies.FAIL_RATIO, cpu_burn_ms=live_policies.CPU_BURN_MS)
    set_fault(lab, namespace, f"app={DELTA}", error_ratio=live_policies.FAIL_RATIO)
    recorded.mark("fault")


def _broken(recorded: Recorded, stub: PrometheusStub) -> None:
    start = recorded.mark("fault load")
    recorded.await_status("gamma garbage", GAMMA, lambda shown: shown.condition("MetricsAvailable")[0] == "False", 30)
    stub.mode = Mode.SILENT
    recorded.await_status("alpha broken", ALPHA, lambda shown: shown.violated() >= {"p50", "p95", "memory"}, 45)
    recorded.await_status("beta broken", BETA, lambda shown: shown.violated() >= {"errorRate", "cpu", "throughputMin"}, 45)
    recorded.await_status("gamma silent", GAMMA, lambda shown: "no answer" in shown.message("MetricsAvailable"), 5)
    stub.mode = Mode.AHEAD
    recorded.await_status("gamma ahead", GAMMA, lambda shown: shown.condition("MetricsAvailable")[1] == "StaleSample", 20)
    recorded.await_status("delta broken", DELTA, lambda shown: shown.violated() == {"errorRate"}, 20)
    _window_within(recorded, start, samples=2)
    recorded.texts["columns"] = recorded.cluster.kubectl("get", "pp", "-n", recorded.namespace)
    recorded.texts["status"] = _program(recorded, "status", "-n", recorded.namespace, ALPHA)
    recorded.mark("fault load end")


def _restarted(recorded: Recorded, operator: OperatorProcess) -> None:
    killed = recorded.mark("killed")
    operator.kill()
    operator.start()
    started = recorded.mark("started again")
    for name in (ALPHA, BETA):
        recorded.await_status(f"{name} again", name, partial(_measured_after, started), 30)
    recorded.writes["restart"] = recorded.cluster.writes(killed, recorded.namespace)


def _forged(recorded: Recorded) -> None:
    uids = {name: str(recorded.history.latest(name).policy["metadata"]["uid"]) for name in (ALPHA, BETA)}
    recorded.cluster.apply(live_policies.forged_rules(f"{recorded.namespace}-other", uids, recorded.namespace, diluted=BETA))
    start = recorded.mark("forged")
    # These take longest to be met again, and are not what is forged.
    set_fault(recorded.cluster.lab, recorded.namespace, f"app={ALPHA}", memory_mib=0)
    set_fault(recorded.cluster.lab, recorded.namespace, f"app={BETA}", cpu_burn_ms=0)
    # Forged steps need the whole window to have their full weight.
    enough = start + timedelta(seconds=live_policies.WINDOW_SECONDS)
    recorded.await_status("alpha forged", ALPHA, lambda shown: (shown.sampled("p95") or start) > enough, 40)
    recorded.await_status("beta forged", BETA, lambda shown: (shown.sampled("memory") or start) > enough, 40)
    recorded.mark("forged end")


def _repair(recorded: Recorded, stub: PrometheusStub) -> None:
    recorded.writes["outage"] = recorded.cluster.writes(recorded.marks["outage"], recorded.namespace)
    recorded.cluster.kubectl("delete", "prometheusrule", "forged", "-n", f"{recorded.namespace}-other")
    for name in (ALPHA, BETA, DELTA):
        clear_faults(recorded.cluster.lab, recorded.namespace, f"app={name}")
    stub.mode = Mode.PASS
    recorded.mark("repair")


def _born(recorded: Recorded) -> None:
    """A policy of a service that has had traffic for minutes."""
    recorded.await_status("nu judged", live_sources.NU, lambda shown: shown.violated() == {"errorRate"}, 20)
    recorded.cluster.kubectl("delete", "pp", live_sources.NU, "-n", recorded.namespace)
    recorded.cluster.apply(live_sources.newborn(recorded.namespace, recorded.namespace))
    recorded.mark("born")
    recorded.await_status("newborn judged", live_sources.NEWBORN, lambda shown: bool(shown.violated()), 20)
    recorded.await_status("newborn not loaded", live_sources.NEWBORN, lambda shown: shown.condition("MetricsAvailable")[0] == "False", 40)


def _repaired(recorded: Recorded) -> None:
    _born(recorded)
    for name in NAMES:
        recorded.await_status(f"{name} repaired", name, _met, 80)
    for name in (*(each for each in live_sources.SOURCES if each != live_sources.NU), live_sources.PLANNED):
        recorded.await_status(f"{name} judged", name, lambda shown: shown.violated() == {"errorRate"}, 20)
    late = partial(recorded.history.of, live_sources.LATE, recorded.marks["fault"])
    recorded.await_status("late noticed", live_sources.LATE, lambda _: any(map(_noticed, late())), 90)


def _collect(recorded: Recorded) -> None:
    end = recorded.mark("end")
    selector = f'{{__name__=~"perfpolicy:.*", policy_namespace="{recorded.namespace}"}}[6m]'
    recorded.await_status("all counted", ALPHA, lambda shown: (shown.sampled("memory") or end) > end + timedelta(seconds=10), 30)
    recorded.series = prometheus.query(recorded.cluster.lab, selector)
    application = f'http_requests_total{{namespace="{recorded.namespace}", pod=~"{DELTA}-.*"}}[6m]'
    recorded.application = prometheus.query(recorded.cluster.lab, application)
    raw = f'istio_requests_total{{destination_workload_namespace="{recorded.namespace}"}}[6m]'
    recorded.raw = prometheus.query(recorded.cluster.lab, raw)
    alerts = f'ALERTS{{policy_namespace="{recorded.namespace}", policy=~"{live_sources.JOBS}|{live_sources.PLANNED}"}}[6m]'
    recorded.alerts = prometheus.query(recorded.cluster.lab, alerts)
    text = recorded.cluster.kubectl("get", "events", "-n", recorded.namespace, "-o", "json")
    recorded.events = [event for event in json.loads(text)["items"] if event["involvedObject"]["kind"] == "PerformancePolicy"]


@contextmanager
def _requests(recorded: Recorded, what: str, name: str, rate: float, mark: str = "") -> Iterator[None]:
    """Requests to a policy while the block runs; what k6 saw is noted at its end. `mark`: notes when they begin and end."""
    wanted = Load(rate, 600, targets(name, recorded.namespace))
    with load.start(recorded.cluster.lab, wanted) as run:
        if mark:
            recorded.mark(mark)
        yield
        if mark:
            recorded.mark(f"{mark} end")
        run.stop()
        recorded.loads[what] = run.result()


def _kubectl_wait(recorded: Recorded) -> str:
    try:
        return recorded.cluster.kubectl(
            "wait", "--for=condition=TargetsMet", *(f"pp/{name}" for name in NAMES), "-n", recorded.namespace, "--timeout=60s"
        )
    except CommandError as error:
        return str(error)


def _program(recorded: Recorded, *arguments: str) -> str:
    """What `perfpolicy` prints."""
    environment = {**os.environ, "PERFPOLICY_KUBECONFIG": str(recorded.cluster.lab.kubeconfig)}
    done = subprocess.run(
        [sys.executable, "-m", "perfpolicy", *arguments], env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    return done.stdout + done.stderr


def _measured_after(moment: datetime, shown: Shown) -> bool:
    return (shown.sampled("memory") or moment) > moment


def _met(shown: Shown) -> bool:
    return shown.condition("TargetsMet")[0] == "True"


def _noticed(shown: Shown) -> bool:
    """Whether `late` knows that beta fails: its one promise is kept again, the other broken."""
    return shown.verdicts().get("errorRate") == "Met" and shown.violated() == {"throughputMax"}


def _window_within(recorded: Recorded, start: datetime, samples: int) -> None:
    """Wait until that many samples' windows lay inside a phase begun at `start`."""
    enough = start + SETTLE + timedelta(seconds=live_policies.RULE_SECONDS) * samples
    for name in (ALPHA, BETA):
        recorded.history.wait(name, lambda shown: (shown.sampled("errorRate") or start) >= enough, 60)
