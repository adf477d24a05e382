"""Where PrometheusRule is not served the same rules are kept in a ConfigMap, until the kind appears; a PodMonitor waits for its kind."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from e2e.cluster import Cluster, exists
from e2e.policies import SCRAPED, a_policy
from e2e.waiting import eventually
from lab import prometheus
from lab.components import module_dir
from lab.rule_loader import CONFIG_MAPS_PATH, config_map_files

CRD = "prometheusrules.monitoring.coreos.com"
NAME = "web-rules"


@pytest.fixture
def without_prometheus_rule(cluster: Cluster) -> Iterator[None]:
    """The fake lab without the CRD; it comes back after the test at the latest."""
    with without(cluster, CRD):
        yield


@contextmanager
def without(cluster: Cluster, crd: str) -> Iterator[None]:
    """The cluster without a CRD until the block ends, or somebody brings it back."""
    definition = json.loads(cluster.kubectl("get", "crd", crd, "-o", "json"))
    definition["metadata"] = {"name": crd, "annotations": definition["metadata"].get("annotations", {})}
    definition.pop("status")
    cluster.kubectl("delete", "crd", crd)
    try:
        yield
    finally:
        if not cluster.kubectl("get", "crd", crd, "--ignore-not-found", "-o", "name"):
            cluster.kubectl("create", "-f", "-", input=json.dumps(definition))
        eventually(lambda: exists(cluster, crd))


@pytest.mark.usefixtures("without_prometheus_rule", "operator")
def test_the_rules_are_in_a_config_map_a_prometheus_can_load(cluster: Cluster, mesh_namespace: str, tmp_path: Path) -> None:
    cluster.apply(a_policy("web", mesh_namespace))
    eventually(lambda: cluster.condition("web", mesh_namespace, "Programmed")[0] == "True")
    found = cluster.get("configmap", NAME, mesh_namespace)
    assert found is not None
    # The loader's own selector finds it, and promtool accepts what it would load.
    assert "perfpolicy.io%2Frules%3Dtrue" in CONFIG_MAPS_PATH
    assert NAME in cluster.names("configmap", mesh_namespace, "perfpolicy.io/rules=true")
    files = config_map_files(found)
    assert len(files) == 1
    for name, text in files.items():
        (tmp_path / name).write_text(text)
        checked = prometheus.promtool("check", "rules", tmp_path / name)
        assert checked.returncode == 0, checked.stdout + checked.stderr
        assert "perfpolicy:rules:revision" in text


@pytest.mark.usefixtures("without_prometheus_rule", "operator")
def test_the_config_map_is_repaired_when_edited_relabelled_or_deleted(cluster: Cluster, mesh_namespace: str) -> None:
    cluster.apply(a_policy("web", mesh_namespace))
    eventually(lambda: cluster.get("configmap", NAME, mesh_namespace) is not None)
    wanted = cluster.get("configmap", NAME, mesh_namespace)
    assert wanted is not None

    def repaired() -> bool:
        now = cluster.get("configmap", NAME, mesh_namespace)
        return now is not None and (now["data"], now["metadata"]["labels"]) == (wanted["data"], wanted["metadata"]["labels"])

    key = next(iter(wanted["data"]))
    cluster.kubectl("patch", "configmap", NAME, "-n", mesh_namespace, "--type=merge", "-p", json.dumps({"data": {key: "groups: []"}}))
    eventually(repaired)
    cluster.kubectl("label", "configmap", NAME, "-n", mesh_namespace, "--overwrite", "app.kubernetes.io/managed-by=somebody")
    eventually(repaired)
    cluster.delete("configmap", NAME, mesh_namespace)
    eventually(repaired)


@pytest.mark.usefixtures("without_prometheus_rule", "operator")
def test_it_gives_way_to_the_prometheus_rule(cluster: Cluster, mesh_namespace: str) -> None:
    cluster.apply(a_policy("web", mesh_namespace))
    eventually(lambda: cluster.get("configmap", NAME, mesh_namespace) is not None)
    cluster.kubectl("create", "-f", str(prometheus_rule_definition()))
    eventually(lambda: exists(cluster, CRD))
    eventually(lambda: cluster.get("prometheusrule", "web", mesh_namespace) is not None)
    eventually(lambda: cluster.get("configmap", NAME, mesh_namespace) is None)


@pytest.mark.usefixtures("operator")
def test_a_pod_monitor_and_a_telemetry_are_extras_that_come_with_their_definitions(cluster: Cluster, mesh_namespace: str) -> None:
    with without(cluster, "podmonitors.monitoring.coreos.com"), without(cluster, "telemetries.telemetry.istio.io"):
        cluster.apply(a_policy("web", mesh_namespace, **SCRAPED))
        eventually(lambda: cluster.condition("web", mesh_namespace, "Programmed") == ("True", "PartiallyProgrammed"))
        policy = cluster.get("pp", "web", mesh_namespace) or {}
        (message,) = (each["message"] for each in policy["status"]["conditions"] if each["type"] == "Programmed")
        assert "PodMonitor" in message
        assert "Telemetry" in message
    eventually(lambda: cluster.condition("web", mesh_namespace, "Programmed") == ("True", "Programmed"))
    assert cluster.get("podmonitor", "web", mesh_namespace) is not None
    assert cluster.get("telemetry", "web", mesh_namespace) is not None


def prometheus_rule_definition() -> Path:
    """The CRD, as the lab installs it."""
    folder = module_dir("prometheus-operator", "github.com/prometheus-operator/prometheus-operator")
    return folder / "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml"
