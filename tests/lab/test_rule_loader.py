"""The rule loader keeps a folder equal to the cluster's rule objects, minus what promtool refuses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from lab.rule_loader import Loader, config_map_files, file_name, rule_files, scrape_files


class Prometheus:
    """Counts reloads; `down` makes the next ones fail. Refuses files that contain "bad"."""

    def __init__(self) -> None:
        self.reloads = 0
        self.checks = 0
        self.down = False

    def check(self, paths: Sequence[Path]) -> str:
        self.checks += 1
        return "\n".join(f"{path}: bad" for path in paths if "bad" in path.read_text())

    def reload(self) -> None:
        if self.down:
            raise ConnectionRefusedError
        self.reloads += 1


@pytest.fixture
def prometheus() -> Prometheus:
    return Prometheus()


@pytest.fixture
def loader(tmp_path: Path, prometheus: Prometheus) -> Loader:
    return Loader(tmp_path, prometheus.check, prometheus.reload)


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_files_of_different_objects_have_different_names() -> None:
    names = [
        file_name("PrometheusRule", "a-b", "c"),
        file_name("PrometheusRule", "a", "b-c"),
        file_name("ConfigMap", "a", "b-c", "x.yaml"),
        file_name("ConfigMap", "a", "b-c", "y.yaml"),
        file_name("ConfigMap", "a", "b", "c_x.yaml"),
    ]
    assert len(set(names)) == len(names)
    assert names[0] == "prometheusrule_a-b_c.yaml"
    assert names[2] == "configmap_a_b-c_x.yaml"


def test_a_long_name_fits_a_file_system_and_stays_unique() -> None:
    first, second = (file_name("ConfigMap", "n" * 63, "c" * 253, f"{key}.yaml") for key in "ab")
    assert first != second
    assert len(first) <= 255


def test_a_rule_object_becomes_one_file_with_its_groups() -> None:
    groups = [{"name": "g", "rules": [{"record": "r", "expr": "1"}]}]
    files = rule_files({"metadata": {"namespace": "n", "name": "r"}, "spec": {"groups": groups}})
    assert {name: yaml.safe_load(text) for name, text in files.items()} == {"prometheusrule_n_r.yaml": {"groups": groups}}


def test_a_rule_object_without_groups_is_an_empty_file_of_groups() -> None:
    files = rule_files({"metadata": {"namespace": "n", "name": "r"}, "spec": {}})
    assert yaml.safe_load(files["prometheusrule_n_r.yaml"]) == {"groups": []}


def test_only_yaml_keys_of_a_config_map_are_rules() -> None:
    document = {"metadata": {"namespace": "n", "name": "c"}, "data": {"a.yaml": "groups: []", "readme.txt": "no"}}
    assert config_map_files(document) == {"configmap_n_c_a.yaml": "groups: []"}
    assert config_map_files({"metadata": {"namespace": "n", "name": "c"}}) == {}


def test_the_folder_follows_the_objects(loader: Loader, prometheus: Prometheus, tmp_path: Path) -> None:
    loader.sync({"a.yaml": "1", "b.yaml": "2"})
    assert contents(tmp_path) == {"a.yaml": "1", "b.yaml": "2"}
    loader.sync({"b.yaml": "3"})
    assert contents(tmp_path) == {"b.yaml": "3"}
    assert prometheus.reloads == 2


def test_nothing_changed_is_no_reload_and_no_check(loader: Loader, prometheus: Prometheus) -> None:
    loader.sync({"a.yaml": "1"})
    before = (prometheus.reloads, prometheus.checks)
    loader.sync({"a.yaml": "1"})
    assert (prometheus.reloads, prometheus.checks) == before


def test_a_refused_file_holds_up_no_other(loader: Loader, prometheus: Prometheus, tmp_path: Path) -> None:
    loader.sync({**{f"{number}.yaml": str(number) for number in range(20)}, "x.yaml": "bad"})
    assert sorted(contents(tmp_path)) == sorted(f"{number}.yaml" for number in range(20))
    assert prometheus.reloads == 1


def test_a_refused_file_is_judged_once_and_again_when_it_changes(loader: Loader, prometheus: Prometheus, tmp_path: Path) -> None:
    loader.sync({"a.yaml": "bad"})
    checks = prometheus.checks
    loader.sync({"a.yaml": "bad"})
    assert prometheus.checks == checks
    loader.sync({"a.yaml": "mended"})
    assert contents(tmp_path) == {"a.yaml": "mended"}


def test_a_change_that_is_refused_leaves_the_last_good_version(loader: Loader, tmp_path: Path) -> None:
    loader.sync({"a.yaml": "1"})
    loader.sync({"a.yaml": "bad"})
    assert contents(tmp_path) == {"a.yaml": "1"}
    loader.sync({})
    assert contents(tmp_path) == {}


def test_a_reload_that_failed_is_due_until_it_succeeds(loader: Loader, prometheus: Prometheus) -> None:
    prometheus.down = True
    with pytest.raises(ConnectionRefusedError):
        loader.sync({"a.yaml": "1"})
    prometheus.down = False
    loader.sync({"a.yaml": "1"})
    assert prometheus.reloads == 1


def test_files_of_an_earlier_run_are_removed_when_no_object_wants_them(loader: Loader, prometheus: Prometheus, tmp_path: Path) -> None:
    (tmp_path / "old.yaml").write_text("1")
    loader.sync({})
    assert contents(tmp_path) == {}
    assert prometheus.reloads == 1


def test_a_pod_monitor_becomes_a_scrape_job_of_its_own_namespace() -> None:
    endpoint = {"portNumber": 9090, "path": "/stats", "interval": "25s"}
    spec = {"selector": {"matchLabels": {"app.kubernetes.io/name": "a.b"}}, "podMetricsEndpoints": [endpoint]}
    files = scrape_files(Path("/k"))({"metadata": {"namespace": "n", "name": "web"}, "spec": spec})
    (job,) = yaml.safe_load(files["podmonitor_n_web.yaml"])["scrape_configs"]
    assert (job["job_name"], job["metrics_path"], job["scrape_interval"]) == ("podMonitor/n/web/0", "/stats", "25s")
    assert job["kubernetes_sd_configs"] == [{"role": "pod", "kubeconfig_file": "/k", "namespaces": {"names": ["n"]}}]
    kept = {rule["source_labels"][0]: rule["regex"] for rule in job["relabel_configs"] if rule.get("action") == "keep"}
    meta = "__meta_kubernetes_pod"
    assert kept == {f"{meta}_label_app_kubernetes_io_name": r"a\.b", f"{meta}_container_port_number": "9090", f"{meta}_phase": "Running"}
    assert {"target_label": "job", "replacement": "n/web"} in job["relabel_configs"]
