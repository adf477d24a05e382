"""Live status on a real cluster: real requests through real sidecars, a real Prometheus, and what the policies' status made of it.

All tests look at one recorded run (e2e/live_story.py). What is printed are measurements of that run.
"""

import re
import secrets
import statistics
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import pairwise

import pytest
from prometheus_client.parser import text_string_to_metric_families

from e2e import live_story
from e2e.cluster import Cluster, apply_crds
from e2e.live_policies import ERROR_EVERY, FAULT_RATE, RATE, RULE_SECONDS
from e2e.live_sources import JOBS, LATE, LATENCY_MS, NEWBORN, NU, OFFSET, PLANNED, SOURCES
from e2e.live_story import ALPHA, BETA, DELTA, GAMMA, NAMES, POLL_SECONDS, SETTLE, SOURCES_RATE, Recorded
from e2e.operator_process import OperatorProcess, free_port
from e2e.prometheus_stub import Mode, PrometheusStub
from e2e.status_history import Shown, StatusHistory
from lab import prometheus
from lab.lab import Lab
from perfpolicy.evaluate.verdicts import BAD_SAMPLES
from perfpolicy.units import parse_percent

# The run is part of the first test.
pytestmark = pytest.mark.timeout(400)

NOTICED = timedelta(seconds=3 * RULE_SECONDS + POLL_SECONDS + 2)
"""From a violation in the recorded series to the condition: three rule intervals, one polling interval, two seconds."""
BUCKETS_MS = (0, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Recorded]:
    """The run, recorded once for all tests of this module, with an operator of its own namespaces."""
    cluster = Cluster(Lab("real", "real"))
    assert cluster.lab.kubeconfig.exists(), "no lab with a real node: bring it up with `python -m lab up`"
    apply_crds(cluster.kubectl)
    namespace = f"e2e-live-{secrets.token_hex(3)}"
    log = tmp_path_factory.mktemp("live") / "operator.log"
    before, told = request.session.testsfailed, False
    poll = f"{POLL_SECONDS:g}"
    try:
        with PrometheusStub(prometheus.url(cluster.lab), Mode.REFUSE) as stub:
            live_story.set_up(cluster, namespace, stub)
            running = OperatorProcess(cluster.lab, log, free_port(), namespaces=namespace, poll_min=poll, poll_max=poll)
            with running as operator, StatusHistory(cluster.lab, namespace) as history:
                seen = Recorded(cluster, namespace, history)
                live_story.tell(seen, operator, stub)
                told = True
                yield seen
    finally:
        live_story.tear_down(cluster, namespace)
        if (not told or request.session.testsfailed > before) and log.exists():
            print(f"--- operator log\n{log.read_text()[-20000:]}")


def test_ready_does_not_wait_for_traffic(recorded: Recorded) -> None:
    for name in NAMES:
        assert recorded.reached[f"{name} Ready"], recorded.history.latest(name).status


def test_without_traffic_nothing_is_met(recorded: Recorded) -> None:
    """CPU and memory are known without a request; what is about requests is not, and so neither is the whole."""
    for name in (ALPHA, BETA):
        shown = recorded.reached[f"{name} without traffic"]
        assert shown is not None
        about_requests = [item for item in shown.status["thresholds"] if item["name"] not in ("cpu", "memory")]
        assert {item["verdict"] for item in about_requests} == {"Unknown"}
        assert {item["reason"] for item in about_requests} <= {"NoData", "LowTraffic", "Pending"}
        for earlier in recorded.history.of(name, recorded.marks["load"] - timedelta(minutes=5), recorded.marks["load"]):
            assert earlier.condition("TargetsMet")[0] == "Unknown", earlier.status


def test_targets_are_met_under_load_and_kubectl_wait_sees_it(recorded: Recorded) -> None:
    assert all(f"performancepolicy.perfpolicy.io/{name} condition met" in recorded.texts["wait"] for name in NAMES), recorded.texts["wait"]
    shown = recorded.reached[f"{ALPHA} met"]
    assert shown is not None
    throughput = {"throughputMin", "throughputTarget", "throughputMax"}
    assert set(shown.verdicts()) == {"p50", "p95", "p99", "errorRate", "cpu", "memory"} | throughput
    assert set(shown.verdicts().values()) == {"Met"}
    assert shown.status["severity"] == "None"


def test_a_young_budget_is_told_as_partial(recorded: Recorded) -> None:
    """Alpha was slow, but available; its budget's window has just begun."""
    shown = recorded.history.latest(ALPHA)
    assert shown.condition("BudgetHealthy") == ("True", "PartialWindow")
    assert shown.status["summary"]["budget"].startswith("~")
    assert recorded.history.latest(BETA).condition("BudgetHealthy")[0] != "True"


@pytest.mark.parametrize(("name", "targets", "severity"), [
    (ALPHA, {"p50", "p95", "memory"}, "P1"),
    (BETA, {"errorRate", "cpu", "throughputMin"}, "P1"),
])  # fmt: skip
def test_a_fault_breaks_its_targets_and_no_other(recorded: Recorded, name: str, targets: set[str], severity: str) -> None:
    shown = recorded.reached[f"{name} broken"]
    assert shown is not None, (
        f"violated: {recorded.history.of(name, recorded.marks['fault'], recorded.marks['fault load end'])[-1].violated()}"
    )
    assert shown.violated() == targets
    assert shown.condition("TargetsMet") == ("False", "TargetsViolated")
    settled = _at(recorded, name, "killed")
    assert settled.violated() == targets
    assert settled.status["severity"] == severity
    assert settled.condition("Ready")[0] == "True"


@pytest.mark.parametrize(("name", "target", "series", "labels", "limit"), [
    (ALPHA, "p50", "perfpolicy:latency_seconds:quantile", {"quantile": "0.5"}, 0.1),
    (ALPHA, "p95", "perfpolicy:latency_seconds:quantile", {"quantile": "0.95"}, 0.5),
    (ALPHA, "memory", "perfpolicy:memory:ratio", {}, 0.6),
    (BETA, "errorRate", "perfpolicy:errors:ratio", {}, 0.05),
    (BETA, "cpu", "perfpolicy:cpu:ratio", {}, 0.2),
])  # fmt: skip
def test_a_violation_is_noticed_in_time(
    recorded: Recorded, name: str, target: str, series: str, labels: dict[str, str], limit: float
) -> None:
    fault = recorded.marks["fault"]
    since = [(time, value) for time, value in recorded.samples(series, name, **labels) if time > fault]
    # Three in a row: on a busy machine CPU is above its limit now and then before it stays there, and one sample is no verdict.
    runs = (since[first : first + BAD_SAMPLES] for first in range(len(since) - BAD_SAMPLES + 1))
    visible = next((run[0][0] for run in runs if all(value > limit for _, value in run)), None)
    shown = next((item for item in recorded.history.of(name, fault) if item.at > fault and target in item.violated()), None)
    assert visible is not None
    assert shown is not None
    took = [round((moment - fault).total_seconds(), 1) for moment in (visible, shown.at)]
    print(f"{name} {target}: fault → recorded {took[0]} s → Violated {took[1]} s")
    assert shown.at - visible <= NOTICED, since


@pytest.mark.parametrize(("name", "target", "unit", "limit"), [
    (ALPHA, "p95", "seconds", 0.5), (ALPHA, "memory", "ratio", 0.6),
    (BETA, "errorRate", "ratio", 0.05), (BETA, "throughputMin", "requests_per_second", 45),
])  # fmt: skip
def test_the_operator_s_own_metrics_say_what_the_status_does(recorded: Recorded, name: str, target: str, unit: str, limit: float) -> None:
    told = {
        (sample.name.removeprefix("perfpolicy_threshold_"), sample.labels["policy"], sample.labels["threshold"]): sample.value
        for family in text_string_to_metric_families(recorded.texts["metrics"])
        for sample in family.samples
        if family.name.startswith("perfpolicy_threshold_") and sample.labels["policy_namespace"] == recorded.namespace
    }
    assert told["met", name, target] == 0
    assert told[f"limit_{unit}", name, target] == limit
    observed = told[f"observed_{unit}", name, target]
    assert observed < limit if target == "throughputMin" else observed > limit
    shown = _at(recorded, name, "fault load end").verdicts()
    assert {told.get(("met", name, each)) for each, verdict in shown.items() if verdict == "Met"} == {1}


def test_every_target_is_met_again_after_the_repair(recorded: Recorded) -> None:
    for name in NAMES:
        shown = recorded.reached[f"{name} repaired"]
        assert shown is not None, recorded.history.latest(name).status
        print(f"{name}: repair → Met {(shown.at - recorded.marks['repair']).total_seconds():.1f} s")


def test_the_status_says_what_the_load_generator_saw(recorded: Recorded) -> None:
    """In samples whose window lies within a constant load; k6's own figures are of that whole load."""
    for phase, rates in (("load", {ALPHA: RATE, BETA: RATE}), ("fault load", {ALPHA: RATE, BETA: FAULT_RATE})):
        for name, rate in rates.items():
            k6 = recorded.loads[f"{'healthy' if phase == 'load' else 'broken'} {name}"]
            samples = _within(recorded, name, phase)
            rates_shown = [_number(shown, "throughputMax") for shown in samples]
            offered = statistics.median(rates_shown)
            errors = [float(parse_percent(shown.threshold("errorRate")["observed"])) for shown in samples]
            print(f"{name} {phase}: {rates_shown}/s, k6 {k6.rate:.2f}/s; errors {errors}, k6 {k6.error_share:.4f}; {len(samples)} samples")
            # Two per cent, and what a busy machine adds: k6 fell behind its rate, or logs were flushed late, which one window has less and
            # the next has more of: the true rate may lie at either end of what was shown.
            uneven = abs(1 - k6.rate / rate) + (max(rates_shown) - min(rates_shown)) / offered
            print(f"{name} {phase}: the machine's share of the difference is up to {uneven:.1%}")
            assert offered == pytest.approx(k6.rate, rel=0.02 + uneven)
            assert statistics.median(errors) == pytest.approx(k6.error_share, abs=0.002)
            for quantile, seen in (("p50", k6.p50_ms), ("p95", k6.p95_ms), ("p99", k6.p99_ms)):
                low, high = _interval(samples[-1], quantile)
                print(
                    f"{name} {phase}: {quantile} {samples[-1].threshold(quantile)['observed']} of ({low:g}, {high:g}] ms, k6 {seen:.3g} ms"
                )
                # k6 also waits for its own turn on a CPU: ten such requests are the whole p99 of a fast service, or of a busy machine.
                if quantile != "p99" or (phase == "fault load" and uneven < 0.01):
                    assert _bucket(low) <= _bucket(seen or 0) <= _bucket(high) + 1, "more than one bucket apart"
    assert recorded.loads["broken beta"].error_share == pytest.approx(1 / ERROR_EVERY, abs=0.002)


def test_every_request_is_counted_once(recorded: Recorded) -> None:
    """k6's count is the proxy's counter, and the recorded steps add up to what that counter grew by since it was first read."""
    for name, rate in ((ALPHA, RATE), (BETA, FAULT_RATE)):
        sent = sum(result.sent for what, result in recorded.loads.items() if what.endswith(name))
        counters = recorded.counters(name)
        born = min(counter[0][0] for counter in counters)
        total = sum(counter[-1][1] for counter in counters)
        unseen = sum(counter[0][1] for counter in counters if counter[0][0] == born)
        stepped = sum(value for _, value in recorded.samples("perfpolicy:judged:step", name))
        print(f"{name}: k6 sent {sent}, the proxy counted {total:g}; without its first scrape {total - unseen:g}, in steps {stepped:g}")
        # What is on its way when a load is stopped is not counted by k6: less than a second's requests, three times.
        assert 0 <= total - sent <= 3 * rate
        assert stepped == pytest.approx(total - unseen, rel=0.001)


def test_a_policy_is_judged_by_what_its_application_counts(recorded: Recorded) -> None:
    shown = recorded.reached["delta broken"]
    assert shown is not None, recorded.history.latest(DELTA).status
    assert {shown.verdicts()[quantile] for quantile in ("p50", "p95", "p99")} == {"Met"}
    begin, end = recorded.marks["fault load"] + SETTLE, recorded.marks["fault load end"]
    errors = [value for at, value in recorded.samples("perfpolicy:errors:ratio", DELTA) if begin < at < end]
    print(f"errors of delta in the fault: {errors}")
    assert statistics.median(errors) == pytest.approx(1 / ERROR_EVERY, abs=0.02)
    counted = {row["metric"]["code"]: float(row["values"][-1][1]) - float(row["values"][0][1]) for row in recorded.application}
    steps = {name: sum(value for _, value in recorded.samples(f"perfpolicy:{name}:step", DELTA)) for name in ("judged", "errors")}
    print(f"the application counted {counted} between scrapes, the steps {steps}")
    # A code's first count is born between two scrapes: only the steps hold it.
    first = sum(float(row["values"][0][1]) for row in recorded.application if row["metric"]["code"] != "200")
    assert steps["judged"] == pytest.approx(sum(counted.values()) + first, rel=0.001)
    assert steps["errors"] == pytest.approx(sum(count for code, count in counted.items() if code != "200") + first, rel=0.001)


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_says_what_the_load_generator_saw(recorded: Recorded, name: str) -> None:
    """Envoy's own statistics, a native histogram, and counters selected by PromQL, each without any other witness."""
    k6, samples = recorded.loads["sources"], _within(recorded, name, "sources load")
    shown = recorded.reached[f"{name} judged"]
    assert shown is not None, recorded.history.latest(name).status
    rates = [_number(item, "throughputMax") for item in samples]
    errors = [float(parse_percent(item.threshold("errorRate")["observed"])) for item in samples]
    print(f"{name}: {statistics.median(rates)}/s, k6 {k6.rate:.2f}/s; errors {statistics.median(errors)}, k6 {k6.error_share:.4f}")
    assert k6.error_share == pytest.approx(1 / ERROR_EVERY, abs=0.002)
    # As with Istio's figures: what a busy machine's windows lack others have more of.
    offered = statistics.median(rates)
    uneven = abs(1 - k6.rate / SOURCES_RATE) + (max(rates) - min(rates)) / offered
    assert offered == pytest.approx(k6.rate, rel=0.02 + uneven)
    begin, end = recorded.marks["sources load"] + SETTLE, recorded.marks["sources load end"]
    judged, bad = (
        sum(value for at, value in recorded.samples(f"perfpolicy:{series}:step", name) if begin < at < end)
        for series in ("judged", "errors")
    )
    assert bad / judged == pytest.approx(k6.error_share, abs=0.002)
    assert statistics.median(errors) == pytest.approx(k6.error_share, abs=0.02)
    for quantile, seen in (("p50", k6.p50_ms), ("p95", k6.p95_ms)) if name != JOBS else ():
        low, high = _interval(samples[-1], quantile)
        print(f"{name}: {quantile} {samples[-1].threshold(quantile)['observed']} of ({low:g}, {high:g}] ms, k6 {seen:.4g} ms")
        assert _bucket(low) <= _bucket(seen or 0) <= _bucket(high) + 1, "more than one bucket apart"


def test_a_new_policy_of_a_service_with_traffic_is_judged_before_its_rules_are_loaded(recorded: Recorded) -> None:
    """By raw metrics, for three rule intervals; its rules never come, and after that nothing is said."""
    judged, after = recorded.reached["newborn judged"], recorded.reached["newborn not loaded"]
    assert judged is not None, recorded.history.latest(NEWBORN).status
    assert after is not None, recorded.history.latest(NEWBORN).status
    born = recorded.marks["born"]
    observed = {item["name"]: item.get("observed") for item in judged.status["thresholds"]}
    print(
        f"born → judged {(judged.at - born).total_seconds():.1f} s → RulesNotLoaded {(after.at - born).total_seconds():.1f} s; {observed}"
    )
    assert judged.condition("MetricsAvailable") == ("Unknown", "DirectQueries")
    assert judged.verdicts() == {"p50": "Met", "p95": "Met", "errorRate": "Violated", "throughputMax": "Met"}
    error_rate = float(parse_percent(judged.threshold("errorRate")["observed"]))
    assert error_rate == pytest.approx(1 / ERROR_EVERY, abs=0.05)
    low, high = _interval(judged, "p50")
    assert low < LATENCY_MS < high * 1.5
    assert after.condition("MetricsAvailable") == ("False", "RulesNotLoaded")
    assert set(after.verdicts().values()) == {"Unknown"}
    assert [row for row in recorded.series if row["metric"]["policy"] == NEWBORN] == []


def test_a_native_histogram_is_read_as_one(recorded: Recorded) -> None:
    """Not the classic one beside it, which has no such series."""
    steps = [row for row in recorded.series if row["metric"]["__name__"] == "perfpolicy:duration_seconds:step"]
    assert [row["metric"]["policy"] for row in steps] == [NU]
    assert "histograms" in steps[0]
    mean = statistics.median(value for _, value in recorded.samples("perfpolicy:latency_seconds:mean", NU))
    # k6 waits for its own turn, too.
    assert LATENCY_MS / 1000 <= mean <= (recorded.loads["sources"].mean_ms or 0) / 1000 * 1.1


def test_planned_maintenance_counts_nothing_until_it_is_over(recorded: Recorded) -> None:
    """The same requests that break `jobs` all the time."""
    first = next(shown for shown in recorded.history.of(PLANNED, recorded.marks["load"]) if shown.status)
    assert first.condition("Maintenance") == ("True", "Maintenance")
    until = datetime.fromisoformat(first.message("Maintenance").split("until ")[1].split(": ")[0])
    during = recorded.history.of(PLANNED, recorded.marks["load"], until)
    assert {(item["verdict"], item["reason"]) for shown in during for item in shown.status["thresholds"]} == {("Unknown", "Maintenance")}
    judged = recorded.samples("perfpolicy:judged:step", PLANNED)
    print(f"until {until:%H:%M:%S}, first step {judged[0][0]:%H:%M:%S}, {len(judged)} steps")
    assert judged[0][0] >= until
    assert recorded.samples("perfpolicy:judged:step", JOBS)[0][0] < until
    fired = {
        name: [float(at) for row in recorded.alerts if row["metric"]["policy"] == name for at, _ in row["values"]]
        for name in (JOBS, PLANNED)
    }
    assert min(fired[JOBS]) < until.timestamp()
    assert all(at >= until.timestamp() for at in fired[PLANNED])
    after = recorded.reached["planned judged"]
    assert after is not None, recorded.history.latest(PLANNED).status
    assert "Maintenance" not in {item["type"] for item in after.status["conditions"]}


def test_rules_that_are_evaluated_a_minute_late_tell_the_same_a_minute_later(recorded: Recorded) -> None:
    """Too many "errors", as it calls sound answers, and again few enough; few requests, then too many. Never stale in between."""
    told = [shown for shown in recorded.history.of(LATE, recorded.marks["load"]) if shown.verdicts()]
    broken = next((shown for shown in told if shown.verdicts()["errorRate"] == "Violated"), None)
    assert broken is not None, told[-1].status
    recovered = next((shown for shown in told if shown.at > broken.at and shown.verdicts()["errorRate"] == "Met"), None)
    assert recovered is not None, told[-1].status
    assert [shown.verdicts()["throughputMax"] for shown in (broken, recovered)] == ["Met", "Violated"]
    assert broken.at - recorded.marks["load"] > OFFSET
    assert recovered.at - recorded.marks["fault load"] > OFFSET
    for shown in recorded.history.of(LATE, broken.at, recovered.at):
        # There is none of the moment before the fault in which nobody asks.
        sampled = shown.sampled("errorRate")
        assert sampled is None or shown.at - sampled > OFFSET > 3 * timedelta(seconds=RULE_SECONDS)
        assert shown.condition("MetricsAvailable") != ("False", "StaleSample"), shown.status
    for phase, load, rate in (("load", "healthy beta", RATE), ("fault load", "broken beta", FAULT_RATE)):
        k6, samples = recorded.loads[load], _within(recorded, LATE, phase, later=OFFSET)
        rates = [_number(shown, "throughputMax") for shown in samples]
        errors = [float(parse_percent(shown.threshold("errorRate")["observed"])) for shown in samples]
        print(f"{LATE} {phase}: {rates}/s, k6 {k6.rate:.2f}/s; not failed {errors}, k6 {1 - k6.error_share:.4f}")
        offered = statistics.median(rates)
        uneven = abs(1 - k6.rate / rate) + (max(rates) - min(rates)) / offered
        assert offered == pytest.approx(k6.rate, rel=0.02 + uneven)
        assert statistics.median(errors) == pytest.approx(1 - k6.error_share, abs=0.002)


def test_an_unreachable_source_is_no_verdict_and_no_write(recorded: Recorded) -> None:
    for what in ("refused", "garbage", "silent"):
        shown = recorded.reached[f"{GAMMA} {what}"]
        assert shown is not None, f"{what}: {recorded.history.latest(GAMMA).status}"
        print(f"{what}: {shown.message('MetricsAvailable')}")
        assert shown.condition("MetricsAvailable") == ("False", "SourceUnreachable")
        assert shown.condition("TargetsMet") == ("Unknown", "SourceUnreachable")
        assert set(shown.verdicts().values()) == {"Unknown"}
        assert shown.condition("Ready")[0] == "True"
    written = [write for write in recorded.writes["outage"] if write.resource != "performancepolicies/status"]
    assert written == []


def test_a_source_whose_clock_is_ahead_is_no_verdict(recorded: Recorded) -> None:
    shown = recorded.reached[f"{GAMMA} ahead"]
    assert shown is not None, recorded.history.latest(GAMMA).status
    print(shown.message("MetricsAvailable"))
    assert shown.condition("MetricsAvailable") == ("False", "StaleSample")
    assert shown.condition("TargetsMet") == ("Unknown", "StaleSample")
    assert set(shown.verdicts().values()) == {"Unknown"}


def test_forged_series_change_no_verdict(recorded: Recorded) -> None:
    """Neither values in the policy's name nor the steps they are computed from. (e2e/test_kinds.py forges the revision, too.)"""
    begin, end = recorded.marks["forged"], recorded.marks["forged end"]
    arrived = {row["metric"]["__name__"] for row in recorded.series if row["metric"].get("forged") == "1"}
    assert {"perfpolicy:errors:ratio", "perfpolicy:latency_seconds:quantile"} <= arrived, "the forged series never arrived"
    assert recorded.reached["alpha forged"], "nothing was judged while series were forged"
    true = [value for time, value in recorded.samples("perfpolicy:errors:ratio", BETA) if begin < time < end]
    assert min(true) > 0.15, "forged steps moved the policy's own figures"
    for name, targets in ((ALPHA, ("p50", "p95")), (BETA, ("errorRate", "throughputMin"))):
        shown = recorded.history.of(name, begin, end)
        assert len(shown) > 2
        for item in shown:
            assert {item.verdicts()[target] for target in targets} == {"Violated"}, item.status["thresholds"]
            assert item.condition("TargetsMet") == ("False", "TargetsViolated")


def test_a_killed_operator_goes_on_where_it_was(recorded: Recorded) -> None:
    killed = recorded.marks["killed"]
    for name in (ALPHA, BETA):
        before = _at(recorded, name, "killed")
        after = recorded.reached[f"{name} again"]
        assert after is not None, "nothing was evaluated after the restart"
        for shown in recorded.history.of(name, killed, after.at):
            assert shown.condition("TargetsMet") == ("False", "TargetsViolated")
            for target in before.violated():
                assert shown.threshold(target)["since"] == before.threshold(target)["since"]
                assert shown.threshold(target)["verdict"] == "Violated"
    assert [write for write in recorded.writes["restart"] if write.resource != "performancepolicies/status"] == []


def test_events_tell_each_transition_once(recorded: Recorded) -> None:
    """As many Events as the status had transitions, killed operator or not; the faults' own are among them."""
    told: Counter[tuple[str, str]] = Counter()
    for event in recorded.events:
        name, reason = event["involvedObject"]["name"], event["reason"]
        what = event["message"].split()[0] if reason == "ThresholdViolated" else reason
        told[name, what] += (event.get("series") or event).get("count") or 1
    for name, targets in ((ALPHA, {"p50", "p95", "memory"}), (BETA, {"errorRate", "cpu", "throughputMin"}), (GAMMA, set())):
        history = recorded.history.of(name, recorded.marks["load"])
        happened = Counter(target for before, after in pairwise(history) for target in after.violated() - before.violated())
        assert targets <= set(happened)
        assert {target: told[name, target] for target in happened} == happened
        for kind in ("TargetsMet", "MetricsAvailable"):
            said = [shown.condition(kind) for shown in history]
            broken = sum(before != after and after[0] == "False" for before, after in pairwise(said))
            # Gamma's source was away from the start.
            assert told[name, f"{kind}False"] == broken + (said[0][0] == "False")


def test_columns_and_the_status_command_show_the_figures(recorded: Recorded) -> None:
    header, *rows = recorded.texts["columns"].splitlines()
    assert header.split() == ["NAME", "READY", "MET", "P95", "ERRORS", "BUDGET", "HEALTH", "SEVERITY", "AGE"]
    cells = {row.split()[0]: row.split()[1:] for row in rows}
    assert cells[ALPHA][:2] == ["True", "6/9"]
    assert cells[ALPHA][6] == "P1"
    assert re.fullmatch(r"[5-9][0-9.]+ms|1s", cells[ALPHA][2])
    assert cells[BETA][:2] == ["True", "5/8"]
    assert cells[BETA][3] == pytest.approx("20%") or cells[BETA][3].startswith(("19.", "20."))
    text = recorded.texts["status"]
    assert "TargetsViolated" in text
    assert "memory" in text
    assert re.search(r"p50\s+100ms\s+\S+ms", text), text


def test_kstatus_reads_the_policy_as_current(recorded: Recorded) -> None:
    """Reconciling and Stalled are absent, and every condition is of the generation: a violated target is not an unfinished reconcile."""
    for name in NAMES:
        shown = _at(recorded, name, "killed")
        generation = shown.policy["metadata"]["generation"]
        assert shown.status["observedGeneration"] == generation
        assert {item["observedGeneration"] for item in shown.status["conditions"]} == {generation}
        assert not {"Reconciling", "Stalled"} & {item["type"] for item in shown.status["conditions"]}


def _within(recorded: Recorded, name: str, phase: str, later: timedelta = timedelta(0)) -> list[Shown]:
    """One status per sample whose window lies within a phase. `later`: how much later than others a policy is told."""
    begin, end = recorded.marks[phase] + SETTLE, recorded.marks[f"{phase} end"]
    by_sample = {shown.sampled("errorRate"): shown for shown in recorded.history.of(name, recorded.marks[phase], end + later)}
    found = [shown for time, shown in by_sample.items() if time is not None and begin <= time <= end]
    assert found, f"no sample of {name} lies within {phase}"
    return found


def _at(recorded: Recorded, name: str, mark: str) -> Shown:
    """The status that held at a mark."""
    return recorded.history.of(name, recorded.marks[mark], recorded.marks[mark])[-1]


def _number(shown: Shown, target: str) -> float:
    return float(shown.threshold(target)["observed"].removesuffix("/s"))


def _interval(shown: Shown, quantile: str) -> tuple[float, float]:
    """The recorded bucket, in ms, that a quantile was computed in."""
    low, high = shown.threshold(quantile)["interval"].split("–")
    return float(low.removesuffix("ms")), float(high.removesuffix("ms"))


def _bucket(milliseconds: float) -> int:
    return sum(milliseconds > bound for bound in BUCKETS_MS)
