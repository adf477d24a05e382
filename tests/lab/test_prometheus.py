"""What Prometheus is told to scrape."""

from __future__ import annotations

import re
from typing import Any

from lab import prometheus
from lab.lab import Lab
from perfpolicy.promql import proxies

LAB = Lab("real", "real")


def job(name: str) -> dict[str, object]:
    return next(each for each in prometheus.config(LAB)["scrape_configs"] if each["job_name"] == name)


def test_a_pod_is_scraped_once_although_its_sidecar_is_a_container_too() -> None:
    rules = job("kubernetes-pods")["relabel_configs"]
    assert {"source_labels": ["__meta_kubernetes_pod_container_init"], "regex": "true", "action": "drop"} in rules  # type: ignore[operator]


def test_pods_are_scraped_in_plaintext_at_their_own_address() -> None:
    found = job("kubernetes-pods")
    assert "scheme" not in found
    assert "tls_config" not in found


def test_a_pod_is_asked_for_native_histograms_or_for_classic_ones() -> None:
    asked = {name: job(name)["relabel_configs"][0]["regex"] for name in ("kubernetes-pods", "native-pods")}  # type: ignore[index]
    assert asked == {"kubernetes-pods": "true", "native-pods": "native"}
    assert job("native-pods")["scrape_native_histograms"] is True
    assert "scrape_native_histograms" not in job("kubernetes-pods")


def test_sidecars_are_asked_seldom_and_only_for_what_is_read() -> None:
    found: dict[str, Any] = job("sidecars")
    assert found["scrape_interval"] == "15s"
    pattern = found["metric_relabel_configs"][0]["regex"]
    read = (proxies.CERTIFICATE_LEFT, proxies.HANDSHAKES, proxies.CONNECTIONS, *proxies.FAILURES)
    assert all(re.fullmatch(pattern, name) for name in read)


def test_labels_of_the_proxies_metrics_are_kept() -> None:
    assert job("istio-proxies")["honor_labels"] is True


def test_rules_are_read_where_the_loader_writes_them() -> None:
    assert prometheus.config(LAB)["rule_files"] == [str(prometheus.rules_directory(LAB) / "*.yaml")]


def test_a_scrape_never_takes_longer_than_its_interval() -> None:
    settings = prometheus.config(LAB)["global"]
    seconds = [float(settings[name].removesuffix("s")) for name in ("scrape_timeout", "scrape_interval")]
    assert seconds[0] <= seconds[1]
