"""`perfpolicy render`, `lint`, `crd` and `completion` as a user runs them, without a cluster."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from perfpolicy import yaml_text
from perfpolicy.cli import program

ROOT = Path(__file__).resolve().parent.parent.parent
CE_HUB = str(ROOT / "examples/ce-hub")

POLICY: dict[str, Any] = {
    "apiVersion": "perfpolicy.io/v1alpha1",
    "kind": "PerformancePolicy",
    "metadata": {"name": "shop", "namespace": "team"},
    "spec": {
        "className": "production",
        "workload": {"targetRef": {"group": "apps", "kind": "Deployment", "name": "shop"}, "serviceRef": {"name": "shop"}},
        "thresholds": {"errorRate": {"max": "1%"}},
    },
}
TARGET: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "shop", "namespace": "team"},
    "spec": {
        "selector": {"matchLabels": {"app": "shop"}},
        "template": {"metadata": {"labels": {"app": "shop"}}, "spec": {"containers": [{"name": "shop", "image": "shop:1"}]}},
    },
}
SERVICE: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "shop", "namespace": "team"},
    "spec": {"selector": {"app": "shop"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
}


def run(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(program, list(arguments), input=stdin)


def file_with(folder: Path, *documents: Any, name: str = "policy.yaml") -> str:
    path = folder / name
    path.write_text(yaml_text.dump_all(documents))
    return str(path)


def test_render_prints_what_kubectl_can_apply() -> None:
    done = run("render", "-f", CE_HUB)
    manifests = yaml_text.load_all(done.stdout)
    assert done.exit_code == 0, done.output
    assert {m["kind"] for m in manifests} >= {"Deployment", "Service", "VirtualService", "PrometheusRule", "PeerAuthentication"}
    assert {m["metadata"]["namespace"] for m in manifests} == {"ce-hub"}


def test_only_keeps_the_kinds_asked_for() -> None:
    done = run("render", "-f", CE_HUB, "--only", "Service", "--only", "Deployment", "-o", "json")
    assert {item["kind"] for item in json.loads(done.stdout)["items"]} == {"Service", "Deployment"}


def test_only_rules_prints_a_rule_file() -> None:
    (document,) = yaml_text.load_all(run("render", "-f", CE_HUB, "--only", "rules").stdout)
    names = [group["name"] for group in document["groups"]]
    assert any("operation-service" in name for name in names)
    assert len(names) == len(set(names))


def test_an_unknown_kind_names_the_known_ones() -> None:
    done = run("render", "-f", CE_HUB, "--only", "Virtualservice")
    assert done.exit_code != 0
    assert "VirtualService" in done.output


def test_show_origin_names_policy_class_and_built_in_default() -> None:
    documents = yaml_text.load_all(run("render", "-f", CE_HUB, "--show-origin").stdout)
    fields = next(d["fields"] for d in documents if d["policy"] == "ce-hub/operation-service")
    assert fields["spec.service.port"] == {"value": 80, "from": "policy"}
    assert fields["spec.traffic.timeout"] == {"value": "30s", "from": "class ce-hub"}
    assert fields["spec.mode"]["from"] == "built-in default"


def test_a_target_in_the_same_files_is_found(tmp_path: Path) -> None:
    done = run("render", "-f", file_with(tmp_path, POLICY, TARGET, SERVICE), "--only", "PrometheusRule")
    assert done.exit_code == 0, done.output
    assert 'destination_workload="shop"' in done.stdout


def test_a_target_nobody_gave_is_a_problem_with_its_path(tmp_path: Path) -> None:
    done = run("lint", "-f", file_with(tmp_path, POLICY))
    assert done.exit_code == 1
    assert "spec.workload.targetRef" in done.output


def test_lint_names_every_problem_with_its_path_at_once(tmp_path: Path) -> None:
    spec = POLICY["spec"] | {
        "thresholds": {"latency": [{"quantile": "p95", "max": "1s"}, {"quantile": "p99", "max": "500ms"}], "errorRate": {"max": "200%"}},
        "colour": "red",
    }
    done = run("lint", "-f", file_with(tmp_path, POLICY | {"spec": spec}, TARGET, SERVICE))
    assert done.exit_code == 1
    for path in ("spec.thresholds.errorRate.max", "spec.colour"):
        assert path in done.output
    only_order = POLICY["spec"] | {"thresholds": {"latency": spec["thresholds"]["latency"]}}
    assert "spec.thresholds.latency" in run("lint", "-f", file_with(tmp_path, POLICY | {"spec": only_order}, TARGET, SERVICE)).output


def test_lint_of_a_good_policy_exits_0_and_still_gives_advice() -> None:
    done = run("lint", "-f", CE_HUB)
    assert done.exit_code == 0, done.output
    assert "advice: RetriesOutlastTimeout" in done.stdout


@pytest.mark.parametrize("example", ["ce-hub", "limits", "runeframe", "scaling", "security", "telemetry", "traffic"])
def test_lint_finds_nothing_wrong_with_the_examples(example: str) -> None:
    done = run("lint", "-f", str(ROOT / "examples" / example))
    assert done.exit_code == 0, done.output
    assert " policies checked, 0 with problems" in done.output


def test_lint_says_which_burn_alerts_are_left_out_and_why(tmp_path: Path) -> None:
    loose = POLICY | {
        "spec": POLICY["spec"] | {"objectives": [{"name": "loose", "sli": "Availability", "target": "90%", "windowDays": 30}]}
    }
    done = run("lint", "-f", file_with(tmp_path, loose, TARGET, SERVICE))
    assert done.exit_code == 0, done.output
    assert "note: burn alert 5m & 1h of loose can never fire" in done.stdout


def test_lint_json_is_one_entry_per_policy() -> None:
    report = json.loads(run("lint", "-f", CE_HUB, "-o", "json").stdout)
    assert {entry["policy"] for entry in report} == {"ce-hub/api-gateway", "ce-hub/operation-service"}


def test_standard_input_and_lists_are_read() -> None:
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": [POLICY, TARGET, SERVICE]})
    assert run("lint", "-f", "-", stdin=text).exit_code == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kind: PerformancePolicy\nkind: Service\n", "duplicate key"),
        ("apiVersion: perfpolicy.io/v1\nkind: PerformancePolicy\n", "perfpolicy.io/v1alpha1"),
        ("just text", "not a Kubernetes object"),
        ("a: [1", "not valid YAML"),
    ],
)
def test_files_that_are_not_manifests_are_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    done = run("lint", "-f", str(path))
    assert done.exit_code == 1
    assert "broken.yaml" in done.output
    assert said in done.output


def test_a_missing_file_and_an_empty_folder_are_named_together(tmp_path: Path) -> None:
    done = run("render", "-f", str(tmp_path / "nowhere.yaml"), "-f", str(tmp_path))
    assert done.exit_code == 1
    assert "nowhere.yaml: no such file" in done.output
    assert f"{tmp_path}: holds no" in done.output


def test_class_files_replace_the_built_in_classes(tmp_path: Path) -> None:
    mine = {"apiVersion": "perfpolicy.io/v1alpha1", "kind": "PerformanceClass", "metadata": {"name": "mine"}, "spec": {}}
    done = run("lint", "-f", file_with(tmp_path, POLICY, TARGET, SERVICE), "--class-file", file_with(tmp_path, mine, name="classes.yaml"))
    assert done.exit_code == 1
    assert "there is no PerformanceClass 'production'; there is: mine" in done.output


def test_crd_prints_both_definitions() -> None:
    names = [crd["metadata"]["name"] for crd in yaml_text.load_all(run("crd").stdout)]
    assert names == ["performancepolicies.perfpolicy.io", "performanceclasses.perfpolicy.io"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_script_for_the_shell(shell: str) -> None:
    assert "_PERFPOLICY_COMPLETE" in run("completion", shell).stdout


def test_lint_says_that_files_hold_no_policy(tmp_path: Path) -> None:
    done = run("lint", "-f", file_with(tmp_path, SERVICE))
    assert done.exit_code == 1
    assert "holds no PerformancePolicy" in done.stderr


def test_a_wrong_class_hides_no_other_problem(tmp_path: Path) -> None:
    spec = {**POLICY["spec"], "className": "produktion", "thresholds": {"errorRate": {"mode": "Enabled"}}}
    done = run("lint", "-f", file_with(tmp_path, {**POLICY, "spec": spec}, TARGET, SERVICE))
    assert done.exit_code == 1
    assert "spec.className: there is no PerformanceClass 'produktion'" in done.stdout
    assert "spec.thresholds.errorRate: set a limit" in done.stdout


def test_crd_prints_the_built_in_classes_on_request() -> None:
    done = run("crd", "--classes")
    documents = yaml_text.load_all(done.stdout)
    assert done.exit_code == 0, done.output
    assert {d["kind"] for d in documents} == {"PerformanceClass"}
    assert {d["metadata"]["name"] for d in documents} == {"development", "testing", "staging", "production"}
