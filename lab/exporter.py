"""Istio's standard metrics of every pod with a sidecar, derived from the access logs the sidecars really write.

Run as a host process beside the kubelet (`python -m lab.exporter`). It tells Prometheus its targets at /sd (HTTP service
discovery, one per pod) and serves each pod's metrics at /metrics/<namespace>/<pod>, as if the pod itself were scraped. A
pod that is gone is gone here too; a restart of the exporter starts the counters at 0, as a restart of every proxy would.
May touch: reads the API server and /var/log/pods.
"""

from __future__ import annotations

import argparse
import json
import logging
import threading
import time
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from lab.accesslog import BUCKETS_MS, Inventory, Key, Pod, Service, key_of, labels_of, pod_from, service_from
from lab.crilog import ContainerLog, pod_directories
from lab.kubewatch import Api, Reflector, end_with_any_thread

log = logging.getLogger(__name__)

CONTAINER = "istio-proxy"
_POLL_SECONDS = 0.25
_SCAN_SECONDS = 1.0
# A pod whose clients make up hosts gives ever new keys; labels stay few, so the shortcut table may be dropped at any time.
_MAX_KEYS = 20_000
_LE = [*(f"{bound:g}" if bound < 1e6 else str(int(bound)) for bound in BUCKETS_MS), "+Inf"]


@dataclass
class Series:
    """One istio_requests_total with its histogram; `buckets` are not cumulative, the last is +Inf."""

    labels: str
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_MS) + 1))
    total_ms: float = 0.0

    def add(self, milliseconds: float) -> None:
        """Count one request."""
        # bisect_left: a bucket holds what is less than or equal to its bound.
        self.buckets[bisect_left(BUCKETS_MS, milliseconds)] += 1
        self.total_ms += milliseconds


class PodMetrics:
    """The counters of one pod. Not thread-safe: the exporter's lock guards it."""

    def __init__(self) -> None:
        self._by_key: dict[Key, Series] = {}
        self._by_labels: dict[str, Series] = {}

    def forget_keys(self) -> None:
        """Resolve labels anew from now on: addresses or services may have changed owners."""
        self._by_key.clear()

    def add(self, entry: Mapping[str, Any], pod: Pod, inventory: Inventory) -> bool:
        """Count an access log entry; False when it is no HTTP request."""
        key = key_of(entry)
        if key is None:
            return False
        series = self._by_key.get(key)
        if series is None:
            series = self._find(key, pod, inventory)
        series.add(float(entry["duration"] or 0))
        return True

    def _find(self, key: Key, pod: Pod, inventory: Inventory) -> Series:
        labels = render_labels(labels_of(key, pod, inventory))
        if len(self._by_key) >= _MAX_KEYS:
            self._by_key.clear()
        series = self._by_key[key] = self._by_labels.setdefault(labels, Series(labels))
        return series

    def text(self) -> str:
        """All series in Prometheus' text format."""
        counters, histograms = [], []
        for series in self._by_labels.values():
            count = 0
            for bound, bucket in zip(_LE, series.buckets, strict=True):
                count += bucket
                histograms.append(f'istio_request_duration_milliseconds_bucket{{{series.labels},le="{bound}"}} {count}\n')
            histograms.append(f"istio_request_duration_milliseconds_sum{{{series.labels}}} {series.total_ms}\n")
            histograms.append(f"istio_request_duration_milliseconds_count{{{series.labels}}} {count}\n")
            counters.append(f"istio_requests_total{{{series.labels}}} {count}\n")
        return "".join(
            ("# TYPE istio_requests_total counter\n", *counters, "# TYPE istio_request_duration_milliseconds histogram\n", *histograms)
        )


_QUOTED = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


def render_labels(labels: Mapping[str, str]) -> str:
    """`a="b",c="d"` with values quoted as the text format wants."""
    return ",".join(f'{name}="{value.translate(_QUOTED)}"' for name, value in labels.items())


class Exporter:
    """Reads the logs in one thread; `targets`, `page` and `own_page` are asked from the HTTP server's threads."""

    def __init__(self, root: Path, address: str) -> None:
        self._root = root
        self._address = address
        self._lock = threading.Lock()
        self._pods: dict[str, Pod] = {}
        self._inventory = Inventory({}, ())
        self._logs: dict[str, ContainerLog] = {}
        self._metrics: dict[str, PodMetrics] = {}
        self._lines = {"http": 0, "other": 0, "unreadable": 0}
        # Logs that are there already are followed from their end: counters that are not reread never jump.
        self._known_before = {uid for _, _, uid in pod_directories(root)}

    def replace_inventory(self, pods: Mapping[str, Pod], services: Mapping[str, Service]) -> None:
        """Take over what the API server knows now; both by uid."""
        with self._lock:
            if dict(pods) == self._pods and tuple(services.values()) == self._inventory.services:
                return
            self._pods = dict(pods)
            self._inventory = Inventory({pod.address: pod for pod in pods.values() if pod.address}, tuple(services.values()))
            for metrics in self._metrics.values():
                metrics.forget_keys()
            for uid in [uid for uid in self._logs if uid not in self._pods]:
                self._logs.pop(uid).close()
                self._metrics.pop(uid)

    def scan(self) -> None:
        """Begin to follow the proxies' logs that have appeared."""
        for _, _, uid in pod_directories(self._root):
            with self._lock:
                pod = self._pods.get(uid)
                if pod is None or not pod.has_proxy or uid in self._logs:
                    continue
                directory = self._root / f"{pod.namespace}_{pod.name}_{uid}" / CONTAINER
                self._logs[uid] = ContainerLog(directory, from_end=uid in self._known_before)
                self._metrics[uid] = PodMetrics()

    def read(self) -> None:
        """Count everything that was logged since the last call."""
        for uid in list(self._logs):
            with self._lock:
                pod, lines = self._pods.get(uid), self._logs.get(uid)
                # Its address comes before its first request; without it nothing inbound could be told from outbound.
                if pod is None or lines is None or not pod.address:
                    continue
                metrics = self._metrics[uid]
                for line in lines.read():
                    self._lines[self._count(line, pod, metrics)] += 1

    def _count(self, line: bytes, pod: Pod, metrics: PodMetrics) -> str:
        # The agent and Envoy log to the same stream; only an access log entry is an object.
        if not line.startswith(b"{"):
            return "other"
        try:
            return "http" if metrics.add(json.loads(line), pod, self._inventory) else "other"
        except (json.JSONDecodeError, KeyError):
            return "unreadable"

    def run(self) -> None:
        """Scan and read for ever."""
        scanned = 0.0
        while True:
            started = time.monotonic()
            if started - scanned >= _SCAN_SECONDS:
                self.scan()
                scanned = started
            self.read()
            time.sleep(max(0.0, _POLL_SECONDS - (time.monotonic() - started)))

    def targets(self) -> list[dict[str, Any]]:
        """Prometheus' HTTP service discovery: one target per pod whose proxy is followed."""
        with self._lock:
            return [
                {
                    "targets": [self._address],
                    "labels": {
                        "__metrics_path__": f"/metrics/{pod.namespace}/{pod.name}",
                        "instance": f"{pod.address}:15020",
                        "namespace": pod.namespace,
                        "pod": pod.name,
                        "container": CONTAINER,
                    },
                }
                for pod in (self._pods[uid] for uid in self._logs)
                if pod.address
            ]

    def page(self, namespace: str, name: str) -> str | None:
        """The metrics of one pod; None when there is no such pod."""
        with self._lock:
            for uid, metrics in self._metrics.items():
                if (self._pods[uid].namespace, self._pods[uid].name) == (namespace, name):
                    return metrics.text()
        return None

    def own_page(self) -> str:
        """The exporter's metrics about itself."""
        with self._lock:
            lines = "".join(f'lab_exporter_lines_total{{kind="{kind}"}} {count}\n' for kind, count in self._lines.items())
            followed = len(self._logs)
        return (
            f"# TYPE lab_exporter_lines_total counter\n{lines}"
            f"# TYPE lab_exporter_followed_pods gauge\nlab_exporter_followed_pods {followed}\n"
            f"# TYPE process_cpu_seconds_total counter\nprocess_cpu_seconds_total {time.process_time()}\n"
        )


def handler_for(exporter: Exporter) -> type[BaseHTTPRequestHandler]:
    """The HTTP face of `exporter`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = self.path.strip("/").split("/")
            if parts == ["sd"]:
                self._answer(json.dumps(exporter.targets()), "application/json")
            elif parts in (["metrics"], ["healthz"]):
                self._answer(exporter.own_page(), _TEXT)
            elif parts[0] == "metrics" and len(parts) == 3:
                self._answer(exporter.page(parts[1], parts[2]), _TEXT)
            else:
                self._answer(None, _TEXT)

        def _answer(self, body: str | None, kind: str) -> None:
            content = (body if body is not None else "not found\n").encode()
            self.send_response(200 if body is not None else 404)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            """Scrapes every few seconds are not worth a line each."""

    return Handler


_TEXT = "text/plain; version=0.0.4; charset=utf-8"


def main() -> None:
    """Run the exporter until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m lab.exporter", description=__doc__)
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--listen", required=True, help="host:port")
    parser.add_argument("--pod-logs", type=Path, default=Path("/var/log/pods"))
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    end_with_any_thread()
    host, _, port = options.listen.rpartition(":")
    exporter = Exporter(options.pod_logs, options.listen)
    api = Api(options.kubeconfig)

    def changed() -> None:
        # A reflector's thread may be adding to its dict; `dict()` of a dict is one step under the interpreter's lock.
        if pods.synced.is_set() and services.synced.is_set():
            exporter.replace_inventory(dict(pods.objects), dict(services.objects))

    pods = Reflector(api, "/api/v1/pods", pod_from, changed)
    services = Reflector(api, "/api/v1/services", service_from, changed)
    pods.start()
    services.start()
    server = ThreadingHTTPServer((host, int(port)), handler_for(exporter))
    threading.Thread(target=server.serve_forever, name="http", daemon=True).start()
    log.info("serving http://%s/sd", options.listen)
    exporter.run()


if __name__ == "__main__":
    main()
