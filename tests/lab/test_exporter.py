"""The exporter counts what is logged, per pod, and forgets pods that are gone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lab.accesslog import BUCKETS_MS, Pod
from lab.exporter import Exporter, Series, render_labels
from tests.lab.test_accesslog import CLIENT, SERVER, SERVICE, entry

SERVICES = {"service": SERVICE}


def log_of(root: Path, pod: Pod) -> Path:
    folder = root / f"{pod.namespace}_{pod.name}_{pod.uid}" / "istio-proxy"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / "0.log"


def write(root: Path, *entries: dict[str, Any] | str, pod: Pod = SERVER) -> None:
    with log_of(root, pod).open("a") as handle:
        for each in entries:
            text = each if isinstance(each, str) else json.dumps(each)
            handle.write(f"2026-11-21T09:00:00Z stdout F {text}\n")


@pytest.fixture
def exporter(tmp_path: Path) -> Exporter:
    made = Exporter(tmp_path, "127.0.0.1:1")
    made.replace_inventory({SERVER.uid: SERVER, CLIENT.uid: CLIENT}, SERVICES)
    return made


def page(exporter: Exporter, pod: Pod = SERVER) -> dict[str, float]:
    """The page of a pod as series without all labels but reporter, code and le."""
    exporter.scan()
    exporter.read()
    text = exporter.page(pod.namespace, pod.name)
    assert text is not None
    found: dict[str, float] = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            name, _, rest = line.partition("{")
            labels, _, value = rest.rpartition("} ")
            kept = [part for part in labels.split(",") if part.startswith(("response_code=", "le="))]
            found[f"{name} {' '.join(kept)}"] = float(value)
    return found


def test_requests_are_counted_by_code(exporter: Exporter, tmp_path: Path) -> None:
    write(tmp_path, entry(), entry(), entry(response_code=503))
    found = page(exporter)
    assert found['istio_requests_total response_code="200"'] == 2
    assert found['istio_requests_total response_code="503"'] == 1
    write(tmp_path, entry())
    assert page(exporter)['istio_requests_total response_code="200"'] == 3


def test_durations_fill_cumulative_buckets(exporter: Exporter, tmp_path: Path) -> None:
    write(tmp_path, *(entry(duration=milliseconds) for milliseconds in (0, 5, 6, 700)))
    found = page(exporter)
    base = 'istio_request_duration_milliseconds_bucket response_code="200" le='
    assert [found[f'{base}"{bound}"'] for bound in ("0.5", "1", "5", "10", "500", "1000", "3600000", "+Inf")] == [1, 1, 2, 3, 3, 4, 4, 4]
    assert found['istio_request_duration_milliseconds_sum response_code="200"'] == 711
    assert found['istio_request_duration_milliseconds_count response_code="200"'] == 4


def test_a_duration_longer_than_every_bound_is_in_inf() -> None:
    series = Series("")
    series.add(BUCKETS_MS[-1] + 1)
    assert series.buckets[-1] == 1


def test_what_is_no_request_is_counted_apart(exporter: Exporter, tmp_path: Path) -> None:
    write(tmp_path, "2026-11-21 info Envoy proxy is ready", entry(protocol=None), "{broken", '{"some":"object"}', entry())
    assert page(exporter)['istio_requests_total response_code="200"'] == 1
    own = exporter.own_page()
    assert 'kind="http"} 1' in own
    assert 'kind="other"} 2' in own
    assert 'kind="unreadable"} 2' in own


def test_logs_from_before_the_start_are_not_counted(tmp_path: Path) -> None:
    write(tmp_path, entry())
    late = Exporter(tmp_path, "127.0.0.1:1")
    late.replace_inventory({SERVER.uid: SERVER}, SERVICES)
    assert page(late) == {}
    write(tmp_path, entry())
    assert page(late)['istio_requests_total response_code="200"'] == 1


def test_a_pod_that_is_gone_takes_its_series_and_target_with_it(exporter: Exporter, tmp_path: Path) -> None:
    write(tmp_path, entry())
    assert page(exporter)
    assert [target["labels"]["pod"] for target in exporter.targets()] == [SERVER.name]
    exporter.replace_inventory({CLIENT.uid: CLIENT}, SERVICES)
    assert exporter.targets() == []
    assert exporter.page(SERVER.namespace, SERVER.name) is None


def test_a_target_says_where_and_whose_its_metrics_are(exporter: Exporter, tmp_path: Path) -> None:
    write(tmp_path, entry())
    exporter.scan()
    labels = {"namespace": "ce-hub", "pod": SERVER.name, "container": "istio-proxy", "instance": "10.213.0.5:15020"}
    assert exporter.targets() == [{"targets": ["127.0.0.1:1"], "labels": {"__metrics_path__": f"/metrics/ce-hub/{SERVER.name}", **labels}}]


def test_a_pod_without_sidecar_or_unknown_to_the_api_server_is_not_followed(exporter: Exporter, tmp_path: Path) -> None:
    bare = Pod(**{**SERVER.__dict__, "name": "bare", "uid": "bare", "has_proxy": False})
    stranger = Pod(**{**SERVER.__dict__, "name": "stranger", "uid": "stranger"})
    exporter.replace_inventory({bare.uid: bare}, SERVICES)
    write(tmp_path, entry(), pod=bare)
    write(tmp_path, entry(), pod=stranger)
    exporter.scan()
    exporter.read()
    assert exporter.targets() == []


def test_an_address_that_changed_hands_is_labelled_anew_and_old_counts_stay(exporter: Exporter, tmp_path: Path) -> None:
    write(tmp_path, entry())
    page(exporter)
    successor = Pod(**{**CLIENT.__dict__, "uid": "successor", "workload": "batch"})
    exporter.replace_inventory({SERVER.uid: SERVER, successor.uid: successor}, SERVICES)
    write(tmp_path, entry())
    exporter.read()
    text = exporter.page(SERVER.namespace, SERVER.name) or ""
    counters = [line for line in text.splitlines() if line.startswith("istio_requests_total")]
    assert sorted(line.split('source_workload="')[1].split('"')[0] for line in counters) == ["batch", "k6"]


def test_label_values_are_quoted() -> None:
    assert render_labels({"a": 'x"y\\z\n'}) == r'a="x\"y\\z\n"'
