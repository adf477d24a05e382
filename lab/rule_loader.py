"""Loads what an operator for Prometheus would into the lab's: PrometheusRules, labelled ConfigMaps of rules, and PodMonitors.

Run as a host process (`python -m lab.rule_loader`). Every object becomes a file named after it, is judged by promtool
before Prometheus sees it, and disappears with its object. An object promtool refuses is logged and skipped; it never
holds up the others, because one bad group makes Prometheus refuse a whole reload. A PodMonitor becomes a scrape job, by a
translation of our own of as much of it as the lab's policies use. May touch: two folders of files, Prometheus' reload
endpoint, the API server (read-only).
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import re
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from lab.kubewatch import Api, Reflector, end_with_any_thread

log = logging.getLogger(__name__)

RULES_PATH = "/apis/monitoring.coreos.com/v1/prometheusrules"
CONFIG_MAPS_PATH = "/api/v1/configmaps?labelSelector=perfpolicy.io%2Frules%3Dtrue"
# What a Prometheus object's podMonitorSelector is on a cluster with prometheus-operator.
POD_MONITORS_PATH = "/apis/monitoring.coreos.com/v1/podmonitors?labelSelector=prometheus%3Dlab"
# Changes that come together are loaded together: two hundred policies at once are a few reloads, not two hundred.
_GATHER_SECONDS = 0.2
_RETRY_SECONDS = 2.0
_MAX_NAME = 200
# promtool reads this many files in one call.
_BATCH = 200

# File name → its text.
Files = Mapping[str, str]


def file_name(kind: str, namespace: str, name: str, key: str = "") -> str:
    """A rule file's name, different for different objects: names contain no underscore, and a ConfigMap's key comes last."""
    full = "_".join([kind.lower(), namespace, name, *([key.removesuffix(".yaml")] if key else [])])
    if len(full) > _MAX_NAME:
        full = f"{full[:_MAX_NAME]}_{hashlib.sha256(full.encode()).hexdigest()[:16]}"
    return f"{full}.yaml"


def rule_files(document: Mapping[str, Any]) -> dict[str, str]:
    """The rule files of a PrometheusRule."""
    metadata = document["metadata"]
    text = yaml.safe_dump({"groups": document.get("spec", {}).get("groups") or []}, sort_keys=False)
    return {file_name("PrometheusRule", metadata["namespace"], metadata["name"]): text}


def config_map_files(document: Mapping[str, Any]) -> dict[str, str]:
    """The rule files of a labelled ConfigMap: its keys that end in .yaml."""
    metadata = document["metadata"]
    data = document.get("data") or {}
    return {
        file_name("ConfigMap", metadata["namespace"], metadata["name"], key): text for key, text in data.items() if key.endswith(".yaml")
    }


def scrape_files(kubeconfig: Path) -> Callable[[Mapping[str, Any]], dict[str, str]]:
    """A translation of PodMonitors into files of scrape jobs, one for each endpoint, with the labels prometheus-operator gives."""

    def translate(document: Mapping[str, Any]) -> dict[str, str]:
        namespace, name = document["metadata"]["namespace"], document["metadata"]["name"]
        labels = document["spec"]["selector"].get("matchLabels") or {}
        jobs = []
        for number, endpoint in enumerate(document["spec"]["podMetricsEndpoints"]):
            chosen = [
                {"source_labels": [f"__meta_kubernetes_pod_label_{re.sub('[^A-Za-z0-9_]', '_', label)}"], "regex": re.escape(value)}
                for label, value in labels.items()
            ]
            by = "number" if "portNumber" in endpoint else "name"
            port = str(endpoint["portNumber"] if "portNumber" in endpoint else endpoint["port"])
            chosen.append({"source_labels": [f"__meta_kubernetes_pod_container_port_{by}"], "regex": port})
            chosen.append({"source_labels": ["__meta_kubernetes_pod_phase"], "regex": "Running"})
            named = {"namespace": "namespace", "pod_container_name": "container", "pod_name": "pod"}
            jobs.append(
                {
                    "job_name": f"podMonitor/{namespace}/{name}/{number}",
                    "metrics_path": endpoint.get("path", "/metrics"),
                    **({"scrape_interval": endpoint["interval"]} if "interval" in endpoint else {}),
                    "kubernetes_sd_configs": [{"role": "pod", "kubeconfig_file": str(kubeconfig), "namespaces": {"names": [namespace]}}],
                    "relabel_configs": [
                        *({**each, "action": "keep"} for each in chosen),
                        *({"source_labels": [f"__meta_kubernetes_{meta}"], "target_label": label} for meta, label in named.items()),
                        {"target_label": "job", "replacement": f"{namespace}/{name}"},
                    ],
                }
            )
        return {file_name("PodMonitor", namespace, name): yaml.safe_dump({"scrape_configs": jobs}, sort_keys=False)}

    return translate


class Loader:
    """Keeps `directory` equal to what `sync` is given, except for files that `check` refuses.

    `check` takes paths and says what is wrong with them together, "" for nothing. `reload` makes Prometheus read the folder
    and raises OSError when it does not.
    """

    def __init__(self, directory: Path, check: Callable[[Sequence[Path]], str], reload: Callable[[], None]) -> None:
        self._directory = directory
        self._check = check
        self._reload = reload
        # Texts that were refused, so that they are judged and logged once.
        self._refused: dict[str, str] = {}
        self._reload_due = True

    def sync(self, wanted: Files) -> None:
        """Write what is new or changed and passes, delete what is not wanted, reload if anything changed.

        A changed file that does not pass leaves its last good version in place.
        """
        present = {path.name: path.read_text() for path in self._directory.glob("*.yaml")}
        self._refused = {name: text for name, text in self._refused.items() if wanted.get(name) == text}
        changed = {name: text for name, text in wanted.items() if present.get(name) != text and name not in self._refused}
        good = self._judge(changed)
        for name in good:
            # Renamed into place: Prometheus never reads half a file.
            partial = self._directory / f".{name}.partial"
            partial.write_text(changed[name])
            partial.rename(self._directory / name)
        gone = present.keys() - wanted.keys()
        for name in gone:
            (self._directory / name).unlink()
        if good or gone:
            log.info("loading %d new or changed and %d deleted files", len(good), len(gone))
            self._reload_due = True
        if self._reload_due:
            self._reload()
            self._reload_due = False

    def _judge(self, files: Files) -> list[str]:
        """The names of the files that pass; the others are logged and remembered."""
        with tempfile.TemporaryDirectory() as scratch:
            for name, text in files.items():
                (Path(scratch) / name).write_text(text)
            names = sorted(files)
            good: list[str] = []
            for start in range(0, len(names), _BATCH):
                good += self._passing([Path(scratch) / name for name in names[start : start + _BATCH]], files)
        return good

    def _passing(self, paths: Sequence[Path], files: Files) -> list[str]:
        # All at once first: almost always all are good. A bad one is found by halving.
        if not paths or not (problem := self._check(paths)):
            return [path.name for path in paths]
        if len(paths) == 1:
            name = paths[0].name
            log.error("skipped %s: %s", name, problem.replace(str(paths[0].parent), "").strip())
            self._refused[name] = files[name]
            return []
        middle = len(paths) // 2
        return [*self._passing(paths[:middle], files), *self._passing(paths[middle:], files)]


def promtool_check(promtool: Path) -> Callable[[Sequence[Path]], str]:
    """A `check` that asks promtool."""

    def check(paths: Sequence[Path]) -> str:
        ran = subprocess.run([promtool, "check", "rules", "--lint=none", *paths], capture_output=True, text=True, check=False)
        return ran.stdout + ran.stderr if ran.returncode else ""

    return check


def _as_made(_: Sequence[Path]) -> str:
    """A `check` of files that only this module writes."""
    return ""


def http_reload(prometheus: str) -> Callable[[], None]:
    """A `reload` that posts to Prometheus' lifecycle endpoint."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def reload() -> None:
        with opener.open(urllib.request.Request(f"{prometheus}/-/reload", method="POST"), timeout=30):  # noqa: S310 the lab's own address
            pass

    return reload


def run(loaders: Sequence[tuple[Loader, Sequence[Reflector]]], changed: threading.Event) -> None:
    """Sync after every change, for ever; a reload that failed is tried again."""
    # Nothing is judged gone before everything is known: the files of an earlier run stay until then.
    while True:
        changed.wait()
        changed.clear()
        time.sleep(_GATHER_SECONDS)
        if not all(source.synced.is_set() for _, sources in loaders for source in sources):
            continue
        try:
            for loader, sources in loaders:
                loader.sync({name: text for source in sources for files in list(source.objects.values()) for name, text in files.items()})
        except (OSError, urllib.error.HTTPError) as problem:
            log.warning("Prometheus did not load the rules: %s; trying again in %g s", problem, _RETRY_SECONDS)
            timer = threading.Timer(_RETRY_SECONDS, changed.set)
            timer.daemon = True
            timer.start()


def main() -> None:
    """Run the loader until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m lab.rule_loader", description=__doc__)
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--directory", type=Path, required=True, help="of the rule files")
    parser.add_argument("--scrapes", type=Path, required=True, help="directory of the scrape jobs' files")
    parser.add_argument("--prometheus", required=True, help="base URL")
    parser.add_argument("--promtool", type=Path, required=True)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    end_with_any_thread()
    changed = threading.Event()
    api = Api(options.kubeconfig)
    rules = [
        Reflector(api, RULES_PATH, rule_files, changed.set),
        Reflector(api, CONFIG_MAPS_PATH, config_map_files, changed.set),
    ]
    monitors = [Reflector(api, POD_MONITORS_PATH, scrape_files(options.kubeconfig), changed.set)]
    for source in (*rules, *monitors):
        source.start()
    reload = http_reload(options.prometheus)
    rule_loader = Loader(options.directory, promtool_check(options.promtool), reload)
    run([(rule_loader, rules), (Loader(options.scrapes, _as_made, reload), monitors)], changed)


if __name__ == "__main__":
    main()
