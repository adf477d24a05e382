"""The main job, end to end: lab, operator, examples/ce-hub, load, a slow service, a failing service, and what the status says of each.

Every number comes from a run: the status from the operator, the other side from k6 (the load generator), metrics-server and the pods.
"""

import math
import re
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from demo.policies import Watcher, condition, threshold, violated
from demo.story import Story
from lab import backend_control, load, mesh, operator, prometheus, teardown
from lab.errors import LabError
from lab.lab import Lab, wait_established
from lab.load import Load, Result, Target
from lab.up import exclusive, up
from perfpolicy import yaml_text
from perfpolicy.policy.sources import ISTIO_BOUNDS_MS
from perfpolicy.units import parse_percent
from perfpolicy.vocabulary import GROUP

ROOT = Path(__file__).resolve().parent.parent
NAMESPACE = "ce-hub"
HOST = "api.ce-hub.com"
ENTRY, BACKEND = "api-gateway", "operation-service"
RATE = 40.0
"""Requests/s: three retries of every failed request included, two cores serve it with room to spare."""
PHASE_SECONDS = 120.0
"""The longest load of a phase: twice what window and hysteresis take, for a machine that is busy in between."""
WINDOW_SECONDS = 20.0
"""Of the class in examples/lab."""
SETTLE_SECONDS = WINDOW_SECONDS + 7
"""From the start of a load until a sample's window lies inside it: one scrape more, and the second after which proxies log."""
LATENCY_MS, ERROR_RATIO = 700.0, 0.3
WAIT_SECONDS = 120.0


class DemoFailed(LabError):
    """Something the demo promises did not happen."""


@dataclass(frozen=True)
class Phase:
    """What one phase of load showed: k6's result, the policies at its end, and the seconds until the awaited verdict."""

    result: Result
    policies: dict[str, Any]
    seconds: float


def main_job(lab: Lab, story: Story) -> str:
    """Tell the whole story on a running lab; returns the closing line. Raises DemoFailed or NotReadyError where a promise does not hold."""
    story.chapter("The operator, and examples/ce-hub applied with kubectl")
    began = time.monotonic()
    apply_examples(lab, story)
    watcher = Watcher(lab, NAMESPACE, story)
    watcher.wait(
        "both policies Ready", lambda p: len(p) == 2 and all(condition(one, "Ready") == "True" for one in p.values()), seconds=WAIT_SECONDS
    )
    ready = time.monotonic() - began
    objects = sum(len(policy["status"]["resources"]) for policy in watcher.read().values())
    story.tell(f"{objects} objects applied for 2 policies, Ready after {ready:.1f} s")

    story.chapter(f"Load: {RATE:.0f} requests/s by k6 through the ingress gateway, Host {HOST}")
    healthy = phase(lab, watcher, "TargetsMet", lambda p: all(condition(one, "TargetsMet") == "True" for one in p.values()))
    story.table("Who answered", ("pod", "requests"), [(name, str(count)) for name, count in healthy.result.by_header.items()])
    compare(story, lab, healthy, "healthy")

    story.chapter(f"Fault: every request to {BACKEND} takes {LATENCY_MS:.0f} ms longer")
    backend_control.set_fault(lab, NAMESPACE, f"app={BACKEND}", latency_ms=LATENCY_MS)
    slow = phase(lab, watcher, "p50 and p95 Violated", lambda p: all({"p50", "p95"} <= set(violated(one)) for one in p.values()))
    # 700 ms against p50 100 ms, p95 500 ms and p99 1 s: 7 times, 1.4 times, and kept unless the machine itself is short of CPU.
    expect(slow, {"p50", "p95"}, spared={"errorRate", "cpu", "memory"}, severities={ENTRY: "P1", BACKEND: "P1"})
    compare(story, lab, slow, "slow")

    story.chapter("Repair")
    slow_repair = repair(lab, watcher)

    story.chapter(f"Fault: {ERROR_RATIO:.0%} of the requests to {ENTRY} fail, whatever pod tries them")
    backend_control.set_fault(lab, NAMESPACE, f"app={ENTRY}", error_ratio=ERROR_RATIO, error_code=503)
    failing = phase(lab, watcher, f"errorRate of {ENTRY} Violated", lambda p: "errorRate" in violated(p[ENTRY]))
    # 30 % against 5 %, six times. The service behind it fails nothing and must not be blamed.
    expect(failing, {"errorRate"}, spared={"p50", "cpu", "memory"}, severities={ENTRY: "P1"})
    if "errorRate" in violated(failing.policies[BACKEND]):
        raise DemoFailed(f"{BACKEND} is blamed for errors of {ENTRY}")
    compare(story, lab, failing, "failing")

    story.chapter("Repair")
    error_repair = repair(lab, watcher)
    faults, repairs = f"{slow.seconds:.0f}/{failing.seconds:.0f}", f"{slow_repair:.0f}/{error_repair:.0f}"
    return f"{objects} objects applied, Ready in {ready:.1f} s, fault → Violated {faults} s (latency/errors), repair → Met {repairs} s"


def apply_examples(lab: Lab, story: Story) -> None:
    """CRDs, the operator, then examples/ce-hub as it is, under the lab's class, which names the lab's Prometheus."""
    plurals = ("performancepolicies", "performanceclasses")
    lab.apply("\n---\n".join((ROOT / "crds" / f"{plural}.yaml").read_text() for plural in plurals))
    wait_established(lab.kubectl, [f"{plural}.{GROUP}" for plural in plurals])
    # Only the demo's own namespace, so that tests with an operator of their own can run on the same lab at the same time.
    operator.start(lab, namespaces=NAMESPACE)
    story.tell(f"operator runs; its log: {operator.log(lab)}")
    shop_class = yaml_text.load((ROOT / "examples/lab/ce-hub-class.yaml").read_text())
    shop_class["spec"]["metrics"]["address"] = prometheus.url(lab)
    lab.apply([shop_class])
    for path in sorted((ROOT / "examples/ce-hub").glob("*.yaml")):
        if path.name != "class.yaml":
            story.tell(lab.kubectl("apply", "-f", str(path)).strip())


def phase(lab: Lab, watcher: Watcher, what: str, reached: Any, *, whole: bool = True) -> Phase:
    """Send load until the verdict is reached; a `whole` phase until every window shown lies in it too, so that figures compare."""
    wanted = Load(RATE, PHASE_SECONDS, [Target(f"{mesh.environment(lab)['PERFPOLICY_LAB_INGRESS_URL']}/api/operations", {"Host": HOST})],
                  place="host", count_header=("X-Pod", pods(lab)))  # fmt: skip
    began = datetime.now(UTC)
    with load.start(lab, wanted) as running:
        seconds = watcher.wait(what, reached, seconds=PHASE_SECONDS)
        policies = watcher.read()
        while whole and running.running() and oldest_sample(policies) < began + timedelta(seconds=SETTLE_SECONDS):
            time.sleep(1)
            policies = watcher.read()
        running.stop()
        result = running.result()
    answered_by_the_policys_pods(result)
    return Phase(result, policies, seconds)


def oldest_sample(policies: dict[str, Any]) -> datetime:
    """The time of the oldest sample any threshold shows; long ago where one shows none."""
    times = [target.get("sampleTime", "1970-01-01T00:00:00Z") for policy in policies.values() for target in policy["status"]["thresholds"]]
    return min(datetime.fromisoformat(time) for time in times)


def pods(lab: Lab) -> list[str]:
    """Names of the pods of the Deployment that the entrance's policy created; DemoFailed if the policy does not own it."""
    deployment = lab.get("deployment", ENTRY, "-n", NAMESPACE)
    owners = [owner["kind"] for owner in deployment["metadata"].get("ownerReferences", ())]
    if owners != ["PerformancePolicy"]:
        raise DemoFailed(f"deployment {ENTRY} is owned by {owners}, not by its policy")
    return sorted(backend_control.pod_addresses(lab, NAMESPACE, f"app={ENTRY}"))


def answered_by_the_policys_pods(result: Result) -> None:
    """Every answer must carry the name of a pod of the policy's Deployment; a request nobody answered (status 0) has none."""
    answered, by_pods = result.sent - result.statuses.get(0, 0), sum(result.by_header.values())
    if by_pods != answered:
        raise DemoFailed(f"{answered} requests were answered, {by_pods} of them by pods of the policy: {dict(result.statuses)}")


def expect(shown: Phase, broken: set[str], *, spared: set[str], severities: dict[str, str]) -> None:
    """The right targets and severities; DemoFailed otherwise."""
    for name, severity in severities.items():
        policy = shown.policies[name]
        found, judged = set(violated(policy)), policy["status"].get("severity")
        if not broken <= found or found & spared or judged != severity or condition(policy, "TargetsMet") != "False":
            raise DemoFailed(
                f"{name}: violated {sorted(found)}, severity {judged}, TargetsMet={condition(policy, 'TargetsMet')}; "
                f"expected {sorted(broken)} and none of {sorted(spared)}, severity {severity}, TargetsMet=False"
            )


def repair(lab: Lab, watcher: Watcher) -> float:
    """Clear the faults under load; returns the seconds until every target is met again."""
    for name in (ENTRY, BACKEND):
        backend_control.clear_faults(lab, NAMESPACE, f"app={name}")
    return phase(
        lab, watcher, "TargetsMet", lambda p: all(condition(one, "TargetsMet") == "True" for one in p.values()), whole=False
    ).seconds


def compare(story: Story, lab: Lab, shown: Phase, name: str) -> None:
    """The observed number of each target beside the load generator's own, or metrics-server's for CPU and memory."""
    result = shown.result
    usage = {policy: resource_usage(lab, policy) for policy in shown.policies}
    rows = []
    for policy, status in shown.policies.items():
        outside = {
            "p50": f"{result.p50_ms:.0f} ms",
            "p95": f"{result.p95_ms:.0f} ms",
            "p99": f"{result.p99_ms:.0f} ms",
            "errorRate": f"{result.error_share:.2%}" if policy == ENTRY else "- (it answers what reaches it)",
            "throughputMin": f"{result.rate:.1f}/s sent",
            "throughputTarget": f"{result.rate:.1f}/s sent",
            "throughputMax": f"{result.rate:.1f}/s sent",
            **usage[policy],
        }
        for target in status["status"]["thresholds"]:
            shown_value = " ".join(filter(None, [target.get("observed", "-"), target.get("interval", "")]))
            rows.append((policy, target["name"], target["limit"], shown_value, outside[target["name"]], target["verdict"]))
    story.table(
        f"Observed beside the load generator's own ({name})",
        ("policy", "target", "limit", "observed", "k6 / metrics-server", "verdict"),
        rows,
    )
    close(shown)


def close(shown: Phase) -> None:
    """The entrance's numbers must agree with k6's: errors as far as chance allows, the p50 in the same or the next bucket."""
    entry = shown.policies[ENTRY]
    errors = float(parse_percent(threshold(entry, "errorRate")["observed"]))
    if abs(errors - shown.result.error_share) > chance(shown.result):
        raise DemoFailed(f"{ENTRY} observed {errors:.2%} errors, k6 saw {shown.result.error_share:.2%}")
    observed = milliseconds(threshold(entry, "p50")["observed"])
    if shown.result.p50_ms is None or not within_a_bucket(observed, shown.result.p50_ms):
        raise DemoFailed(
            f"{ENTRY} observed a p50 of {observed:.0f} ms, k6 saw {shown.result.p50_ms} ms: not within one bucket of each other"
        )


def chance(result: Result) -> float:
    """How far the errors of the last window may be from those of the whole load: four standard deviations, at least one point."""
    whole, share = max(result.sent, 1), result.error_share
    window = min(RATE * WINDOW_SECONDS, whole)
    return max(0.01, 4 * math.sqrt(share * (1 - share) * (1 / window - 1 / whole)))


def milliseconds(text: str) -> float:
    """Milliseconds of a status figure such as `5.21ms` or `1.2s`."""
    number, unit = re.fullmatch(r"([0-9.]+)(ms|s)", text).groups()  # type: ignore[union-attr]
    return float(number) * (1000 if unit == "s" else 1)


def within_a_bucket(one: float, other: float) -> bool:
    """Whether two durations lie in the same or neighbouring buckets of Istio's histogram: k6 also measures the way to the proxy."""
    places = [sum(value > bound for bound in ISTIO_BOUNDS_MS) for value in (one, other)]
    return abs(places[0] - places[1]) <= 1


def resource_usage(lab: Lab, policy: str) -> dict[str, str]:
    """CPU (mean) and memory (largest) of the application containers by metrics-server, in shares of their limits (500m, 128Mi)."""
    text = lab.kubectl("top", "pods", "-n", NAMESPACE, "-l", f"app={policy}", "--containers", "--no-headers")
    rows = [line.split() for line in text.splitlines()]
    used = [
        (int(cpu.removesuffix("m")), int(memory.removesuffix("Mi"))) for _, container, cpu, memory in rows if container != "istio-proxy"
    ]
    return {"cpu": f"{sum(cpu for cpu, _ in used) / len(used) / 500:.1%}", "memory": f"{max(memory for _, memory in used) / 128:.1%}"}


@click.command()
@click.option("--keep", is_flag=True, help="Leave the lab, the operator and the example running, and say how to look around.")
@click.option("--keep-lab", is_flag=True, help="Remove the example and the operator, but leave the lab running.")
def main(keep: bool, keep_lab: bool) -> None:
    """Bring up a real cluster, apply examples/ce-hub, break its promises and repair them; exit 0 when all went as promised."""
    lab, story = Lab(name="real", node="real"), Story()
    story.chapter("The lab: a real cluster with Istio and Prometheus on this machine")
    up(lab)
    try:
        closing = main_job(lab, story)
    finally:
        if not keep:
            clean(lab, keep_lab)
    if keep:
        story.tell(f'eval "$(.venv/bin/python -m lab env)"; kubectl get pp -n {NAMESPACE} -o wide')
        story.tell(f".venv/bin/perfpolicy status -n {NAMESPACE} {BACKEND} --watch")
        story.tell(f"Prometheus: {prometheus.url(lab)}   operator log: {operator.log(lab)}   end it all: make lab-down")
    story.end(closing)


def clean(lab: Lab, keep_lab: bool) -> None:
    """Take away what the demo made."""
    lab.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", f"--timeout={WAIT_SECONDS:.0f}s")
    operator.stop(lab)
    lab.kubectl("delete", "performanceclass", "ce-hub", "--ignore-not-found")
    if not keep_lab:
        with exclusive(lab):
            teardown.down(lab)


if __name__ == "__main__":
    try:
        main()
    except LabError as error:
        click.echo(f"demo failed: {error}", err=True)
        sys.exit(1)
