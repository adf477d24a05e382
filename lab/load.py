"""Load on the lab's own services by k6: at a constant rate, bounded, stoppable.

From three places: `mesh`, a pod with a sidecar (mesh routes, mTLS, a principal of its own); `outside`, a pod without one
(what a stranger in the cluster can reach); `host`, this machine against the ingress gateway. k6 keeps the rate whatever
the answers take (an open model): a slow service gets as many requests as a fast one, as long as `in_flight` allows, and
what could not be sent is counted as dropped. May touch: the namespace `load`, and whatever is asked.
"""

from __future__ import annotations

import json
import math
import secrets
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any, Literal

from lab import paths
from lab.backend_control import pod_addresses
from lab.components import binary
from lab.errors import CommandError
from lab.lab import Lab
from lab.mesh_images import LOAD
from lab.workloads import namespace

Place = Literal["mesh", "outside", "host"]
NAMESPACE = "load"
MAX_SECONDS = 3600.0
_DEPLOYMENTS: Mapping[Place, str] = {"mesh": "k6", "outside": "k6-outside"}
# Statuses counted one by one; any other is counted as "other". 0: no answer at all (refused, reset, timed out).
_STATUSES = (
    0,
    200,
    201,
    202,
    204,
    301,
    302,
    304,
    307,
    308,
    400,
    401,
    403,
    404,
    405,
    408,
    409,
    410,
    412,
    413,
    415,
    418,
    429,
    431,
    499,
    500,
    501,
    502,
    503,
    504,
)
_API_PORTS = range(20_000, 30_000)
# How k6 ends when it was told to over its API; the summary is written all the same.
_STOPPED = 103


@dataclass(frozen=True)
class Target:
    """What is asked. `weight` is this target's share of the requests among all targets of a load."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    method: str = "GET"
    body: str | None = None
    weight: int = 1


@dataclass(frozen=True)
class Load:
    """A load of `rate` requests/s for `seconds`. `in_flight` bounds the requests waiting for an answer at a time.

    With `count_header` (name, values), answers are also counted by the value of that header, e.g. ("X-Version",
    ("stable", "canary")).
    """

    rate: float
    seconds: float
    targets: Sequence[Target]
    place: Place = "mesh"
    timeout_seconds: float = 10
    in_flight: int | None = None
    count_header: tuple[str, Sequence[str]] = ("", ())

    def __post_init__(self) -> None:
        if not 0 < self.seconds <= MAX_SECONDS:
            raise ValueError(f"seconds is {self.seconds}: a load lasts more than 0 and at most {MAX_SECONDS:.0f} s")
        if self.rate <= 0 or not self.targets:
            raise ValueError("a load needs a rate above 0 and at least one target")


@dataclass(frozen=True)
class Result:
    """What a load saw. Times are milliseconds until the whole answer was there, of all requests; None when none was sent.

    `served`: answered with a status below 400. `error_share`: no answer or 5xx, of all sent. `dropped`: not sent because
    `in_flight` requests were waiting. `by_target` is by index of `Load.targets`, statuses as in `statuses`.
    """

    sent: int
    served: int
    dropped: int
    rate: float
    error_share: float
    statuses: Mapping[int, int]
    by_target: tuple[Mapping[int, int], ...]
    by_header: Mapping[str, int]
    mean_ms: float | None
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    max_ms: float | None


def script(load: Load) -> str:
    """The k6 script of a load."""
    whole = float(load.rate).is_integer()
    most = load.in_flight or max(20, min(2000, math.ceil(load.rate * 2)))
    config = {
        # k6 takes whole numbers only: 0.5/s is 30 a minute.
        "rate": int(load.rate) if whole else round(load.rate * 60),
        "timeUnit": "1s" if whole else "1m",
        "duration": f"{round(load.seconds * 1000)}ms",
        "ready": min(most, max(5, math.ceil(load.rate / 10))),
        "most": most,
        "timeout": f"{round(load.timeout_seconds * 1000)}ms",
        "targets": [{**target.__dict__, "headers": dict(target.headers)} for target in load.targets],
        "statuses": _STATUSES,
        # k6 shows header names in this form whatever the server wrote.
        "header": "-".join(word.capitalize() for word in load.count_header[0].split("-")),
        "headerValues": load.count_header[1],
    }
    return (paths.SOURCE / "k6_script.js").read_text().replace("__CONFIG__", json.dumps(config))


def result_of(metrics: Mapping[str, Any], load: Load) -> Result:
    """The result from k6's end-of-run metrics."""

    def count(name: str) -> int:
        return int(metrics[name]["values"]["count"]) if name in metrics else 0

    by_target = []
    for index in range(len(load.targets)):
        counted = {status: count(f"target_{index}_status_{status}") for status in _STATUSES}
        # A status nobody foresaw: -1 stands for all of them.
        counted[-1] = count(f"target_{index}_status_other")
        by_target.append({status: number for status, number in counted.items() if number})
    statuses: dict[int, int] = {}
    for each in by_target:
        for status, number in each.items():
            statuses[status] = statuses.get(status, 0) + number
    sent = sum(statuses.values())
    failed = sum(number for status, number in statuses.items() if status == 0 or status >= 500)
    times = metrics.get("http_req_duration", {}).get("values", {})
    return Result(
        sent=sent,
        served=sum(number for status, number in statuses.items() if 0 < status < 400),
        dropped=count("dropped_iterations"),
        rate=float(metrics["http_reqs"]["values"]["rate"]) if sent else 0.0,
        error_share=failed / sent if sent else 0.0,
        statuses=dict(sorted(statuses.items())),
        by_target=tuple(by_target),
        by_header={value: count(f"header_{index}") for index, value in enumerate(load.count_header[1])},
        mean_ms=times.get("avg"),
        p50_ms=times.get("p(50)"),
        p95_ms=times.get("p(95)"),
        p99_ms=times.get("p(99)"),
        max_ms=times.get("max"),
    )


class Run:
    """A load that is running. Leaving the block, or `stop`, ends it; k6 ends by itself when this process dies."""

    def __init__(self, load: Load, process: subprocess.Popen[str], errors: IO[str], api: str) -> None:
        self._load = load
        self._process = process
        self._errors = errors
        self._api = api
        self._started = time.monotonic()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self.stop()
            self._process.wait(timeout=self._grace())
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._errors.close()

    def running(self) -> bool:
        """Whether k6 still runs."""
        return self._process.poll() is None

    def stop(self) -> None:
        """Ask k6 to end now; requests in flight are still answered and `result` then holds what was seen so far."""
        body = {"data": {"type": "status", "id": "default", "attributes": {"stopped": True}}}
        deadline = time.monotonic() + 10
        # In its first moments k6 does not listen yet.
        while self.running() and self._ask("status", body) is None:
            if time.monotonic() > deadline:
                self._process.terminate()
            time.sleep(0.1)

    def result(self) -> Result:
        """Wait for the end and return what was seen; raises CommandError when k6 failed."""
        try:
            output, _ = self._process.communicate(timeout=self._load.seconds + self._grace())
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise CommandError(f"k6 did not end {self._grace():.0f} s after its {self._load.seconds:.0f} s: {self._complaints()}") from None
        if self._process.returncode not in (0, _STOPPED) or not output.strip().startswith("{"):
            raise CommandError(f"k6 ended with {self._process.returncode}: {self._complaints() or output[-500:]}")
        return result_of(json.loads(output), self._load)

    def _grace(self) -> float:
        return self._load.timeout_seconds + 20

    def _complaints(self) -> str:
        self._errors.seek(0)
        return self._errors.read()[-1500:]

    def _ask(self, what: str, body: object = None) -> dict[str, Any] | None:
        """k6's own REST API; None while it does not answer."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self._api}/v1/{what}", data=data, method="PATCH" if data else "GET")  # noqa: S310 a pod of the lab
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=2) as answer:
                return dict(json.load(answer))
        except OSError:
            return None


def start(lab: Lab, load: Load) -> Run:
    """Start a load and return at once; use it as `with start(...) as run:`."""
    port = secrets.choice(_API_PORTS)
    k6 = ["run", "--quiet", "--no-usage-report", "--no-color", "--address", f"0.0.0.0:{port}", "-"]
    if load.place == "host":
        command, host = [str(binary("k6")), *k6[:-2], f"127.0.0.1:{port}", "-"], "127.0.0.1"
    else:
        deployment = _DEPLOYMENTS[load.place]
        ensure(lab)
        pod, host = next(iter(pod_addresses(lab, NAMESPACE, f"app={deployment}").items()))
        command = [str(binary("kubectl")), "--namespace", NAMESPACE, "exec", "-i", pod, "-c", "k6", "--", "k6", *k6]
    errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 it lives as long as the run
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, env=lab.environment())
    if process.stdin is None:
        raise CommandError("k6 was started without a standard input")
    process.stdin.write(script(load))
    process.stdin.close()
    # communicate() would write to it again.
    process.stdin = None
    return Run(load, process, errors, f"http://{host}:{port}")


def run(lab: Lab, load: Load) -> Result:
    """Start a load, wait for its end and return what it saw."""
    with start(lab, load) as running:
        return running.result()


def ensure(lab: Lab) -> None:
    """Have the pods that send load, in namespace `load`."""
    found = lab.get("deployments", "-n", NAMESPACE, "-l", "perfpolicy-lab/load=true")["items"]
    if any(each["status"].get("availableReplicas", 0) < 1 for each in found) or len(found) < len(_DEPLOYMENTS):
        lab.apply([namespace(NAMESPACE), *(_deployment(name, NAMESPACE, place == "mesh") for place, name in _DEPLOYMENTS.items())])
        for name in _DEPLOYMENTS.values():
            lab.wait_available(NAMESPACE, name)


def caller(namespace: str) -> dict[str, Any]:
    """The Deployment of a pod like that of the place `mesh`, with the identity of another namespace."""
    return _deployment(_DEPLOYMENTS["mesh"], namespace, injected=True)


def _deployment(name: str, namespace: str, injected: bool) -> dict[str, Any]:
    # No inbound port goes through the sidecar: this machine asks k6's own API how the run is going.
    annotations = {"traffic.sidecar.istio.io/includeInboundPorts": ""}
    labels = {"app": name, "sidecar.istio.io/inject": str(injected).lower()}
    container = {
        "name": "k6",
        "image": LOAD,
        "imagePullPolicy": "Never",
        # Where the load is short of CPU its own waiting would be measured as the service's latency.
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": name, "perfpolicy-lab/load": "true"}},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": labels, "annotations": annotations},
                "spec": {"containers": [container], "terminationGracePeriodSeconds": 1},
            },
        },
    }
