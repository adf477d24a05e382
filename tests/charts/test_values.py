"""Wrong values end an installation with their path, before anything reaches a cluster."""

import json
import re
from typing import Any

import pytest
from pydantic import ValidationError

from perfpolicy import yaml_text
from perfpolicy.settings import Settings
from tests.charts import helm
from tools import chart


def _gold(**spec: Any) -> dict[str, Any]:
    return {"classes": {"gold": {"spec": spec}}}


@pytest.mark.parametrize(
    ("values", "path", "said"),
    [
        ({"replica": 3}, "", "replica"),
        ({"replicas": "three"}, "/replicas", "got string, want integer"),
        ({"replicas": 0}, "/replicas", "minimum"),
        ({"image": {"name": "x"}}, "/image", "name"),
        ({"image": {"pullPolicy": "Sometimes"}}, "/image/pullPolicy", "Always"),
        ({"image": {"digest": "latest"}}, "/image/digest", "pattern"),
        ({"scope": {"namespaces": ["Team_A"]}}, "/scope/namespaces/0", "pattern"),
        ({"scope": {"namespaces": "ce-hub"}}, "/scope/namespaces", "want array"),
        ({"prometheus": {"adress": "http://x"}}, "/prometheus", "adress"),
        ({"prometheus": {"address": "prometheus:9090"}}, "/prometheus/address", "pattern"),
        ({"settings": {"wrokers": 1}}, "/settings", "wrokers"),
        ({"settings": {"workers": 0}}, "/settings/workers", "minimum"),
        ({"settings": {"log_level": "info"}}, "/settings", "log_level"),
        ({"resources": {"limit": {"cpu": "1"}}}, "/resources", "limit"),
        ({"tolerations": [{"effekt": "NoSchedule"}]}, "/tolerations/0", "effekt"),
        ({"affinity": {"podAntiAffinity": {"required": []}}}, "/affinity/podAntiAffinity", "required"),
        ({"extraEnv": [{"value": "x"}]}, "/extraEnv/0", "name"),
        ({"extraVolumes": [{"name": "x", "secret": {"name": "y"}}]}, "/extraVolumes/0/secret", "name"),
        ({"podLabels": {"team": 7}}, "/podLabels/team", "want string"),
        ({"networkPolicy": {"apiServerPorts": [70000]}}, "/networkPolicy/apiServerPorts/0", "maximum"),
        (_gold(default={}), "/classes/gold/spec", "default"),
        (_gold(defaults={"traffic": {"timeout": 30}}), "/classes/gold/spec/defaults/traffic/timeout", "want string"),
        (_gold(grants=[{"name": "x", "workloadCreation": "Yes"}]), "/classes/gold/spec/grants/0/workloadCreation", "Allowed"),
        ({"classes": {"Gold": {"spec": {}}}}, "/classes", "Gold"),
        ({"serviceMonitor": {"enabled": "true"}}, "/serviceMonitor/enabled", "want boolean"),
    ],
    ids=lambda each: each if isinstance(each, str) else None,
)  # fmt: skip
def test_a_wrong_value_is_refused_with_its_path(values: dict[str, Any], path: str, said: str) -> None:
    with pytest.raises(helm.HelmError) as refused:
        helm.template(values)
    message = str(refused.value)
    assert f"at '{path}'" in message
    assert said in message


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"poll_min": 30}, ""),
        ({"poll_min": 40}, "settings.poll_min (40) must not exceed settings.poll_max (30)"),
        ({"poll_max": 5}, ""),
        ({"poll_max": 4.9}, "settings.poll_min (5) must not exceed settings.poll_max (4.9)"),
        ({"retry_min": 30}, ""),
        ({"retry_min": 30.1}, "settings.retry_min (30.1) must not exceed settings.retry_max (30)"),
        ({"retry_max": 0.5}, ""),
        ({"retry_max": 0.4}, "settings.retry_min (0.5) must not exceed settings.retry_max (0.4)"),
        ({"lease_retry": 9.9}, ""),
        ({"lease_retry": 10}, "settings.lease_retry (10) must be below settings.lease_renew_deadline (10)"),
        ({"lease_renew_deadline": 2.1}, ""),
        ({"lease_renew_deadline": 2}, "settings.lease_retry (2) must be below settings.lease_renew_deadline (2)"),
        ({"lease_renew_deadline": 14.9}, ""),
        ({"lease_renew_deadline": 15}, "settings.lease_renew_deadline (15) must be below settings.lease_duration (15)"),
        ({"lease_duration": 11}, ""),
        ({"lease_duration": 10}, "settings.lease_renew_deadline (10) must be below settings.lease_duration (10)"),
        ({"poll_min": 40, "poll_max": 60, "lease_duration": 60, "lease_renew_deadline": 40}, ""),
    ],
    ids=str,
)
def test_settings_the_operator_would_not_start_with_are_refused(settings: dict[str, Any], said: str) -> None:
    if said:
        with pytest.raises(helm.HelmError, match=re.escape(said)):
            helm.template({"settings": settings})
        with pytest.raises(ValidationError):
            Settings.model_validate(settings)
    else:
        assert helm.template({"settings": settings})
        assert Settings.model_validate(settings)


def test_two_default_classes_are_refused_by_name() -> None:
    # The operator would take the newest of them, and the admission policy judge by the one it was rendered with.
    gold = {"default": True, "spec": {}}
    with pytest.raises(helm.HelmError, match="only one class may be the default, not gold and production"):
        helm.template({"classes": {"gold": gold}})
    assert helm.template({"classes": {"gold": gold, "production": {"default": False}}})


def test_the_crd_chart_has_no_values() -> None:
    with pytest.raises(helm.HelmError, match="keep"):
        helm.template({"keep": False}, chart=helm.CRDS)


def test_the_charts_can_be_parts_of_another() -> None:
    for path in (helm.MAIN, helm.CRDS):
        assert helm.template({"global": {"region": "x"}}, chart=path) == helm.template({}, chart=path)


def test_every_setting_can_be_given_unless_the_chart_makes_it() -> None:
    schema = json.loads((helm.MAIN / "values.schema.json").read_text())
    offered = schema["definitions"]["perfpolicy:Settings"]["properties"]
    assert set(offered) == set(Settings.model_fields) - chart.OF_THE_CHART


def test_settings_reach_the_operator_as_it_spells_them() -> None:
    container = helm.one(helm.template({"settings": {"workers": 200, "resync": 86400.0, "poll_factor": 1.5}}), "Deployment", "perfpolicy")
    env = {each["name"]: each["value"] for each in container["spec"]["template"]["spec"]["containers"][0]["env"] if "value" in each}
    assert (env["PERFPOLICY_WORKERS"], float(env["PERFPOLICY_RESYNC"]), env["PERFPOLICY_POLL_FACTOR"]) == ("200", 86400, "1.5")


def test_a_value_without_a_comment_is_no_value() -> None:
    with pytest.raises(ValueError, match=r"image\.tag: no comment"):
        chart.read("image:\n  tag: x\n")


@pytest.mark.parametrize("text", ["# Labels.\nlabels: {}\n", "# Ports.\nports: []\n"])
def test_what_an_empty_collection_may_hold_is_said(text: str) -> None:
    with pytest.raises(ValueError, match="say with @schema"):
        chart.read(text)


def test_comments_become_schema_and_table() -> None:
    values = chart.read('# How many,\n# at least one.\n# @schema minimum: 1\nreplicas: 2\n# Of all.\nimage:\n  # Its tag.\n  tag: ""\n')
    schema = chart.values_schema(values)
    assert schema["properties"]["replicas"] == {"description": "How many, at least one.", "type": "integer", "minimum": 1}
    assert schema["properties"]["image"]["additionalProperties"] is False
    assert chart.table(values).splitlines()[2:] == [
        "| `replicas` | `2` | How many, at least one. |",
        "| `image` |  | Of all. |",
        "| `image.tag` |  | Its tag. |",
    ]


def test_notes_tell_the_next_step() -> None:
    said = helm.helm("install", "perfpolicy", str(helm.MAIN), "--namespace", helm.NAMESPACE, "--dry-run=client")
    notes = said.partition("NOTES:\n")[2]
    assert "helm test perfpolicy --namespace perfpolicy-system" in notes
    start, end = notes.index("apiVersion:"), notes.index("  EOF\n  kubectl get")
    policy = yaml_text.load("\n".join(line[2:] if line.startswith("  ") else line for line in f"  {notes[start:end]}".splitlines()))
    assert policy["kind"] == "PerformancePolicy"
