"""What the mesh and the workloads are told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lab import mesh, paths, workloads
from lab.accesslog import FORMAT
from lab.lab import Lab


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    monkeypatch.setattr(paths, "STATE", tmp_path)
    return Lab("unit", "real")


def test_the_mesh_logs_what_the_exporter_reads() -> None:
    config = mesh.istiod_values()["meshConfig"]
    assert json.loads(config["accessLogFormat"]) == dict(FORMAT)
    assert (config["accessLogFile"], config["accessLogEncoding"]) == ("/dev/stdout", "JSON")


def test_nothing_is_pulled_from_a_registry() -> None:
    values = mesh.istiod_values()["global"]
    assert (values["hub"], values["tag"], values["imagePullPolicy"]) == ("localhost", "lab", "Never")
    assert mesh.ingress_values()["imagePullPolicy"] == "Never"


def once(lab: Lab, content: str, *, present: bool, monkeypatch: pytest.MonkeyPatch) -> bool:
    acted = []
    monkeypatch.setattr(Lab, "kubectl", lambda *_: "deployment/x" if present else "")
    mesh._once(lab, "name", content, "deployment/x", lambda: acted.append(True))
    return bool(acted)


def test_the_same_content_is_applied_once_unless_it_was_deleted(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    assert once(lab, "one", present=False, monkeypatch=monkeypatch)
    assert not once(lab, "one", present=True, monkeypatch=monkeypatch)
    assert once(lab, "two", present=True, monkeypatch=monkeypatch)
    assert once(lab, "two", present=False, monkeypatch=monkeypatch)


def test_versions_of_a_backend_are_deployments_of_their_own_behind_one_service() -> None:
    stable, canary = workloads.backend("web", "n"), workloads.backend("web", "n", version="canary", faults={"latency_ms": 300})
    assert [each["metadata"]["name"] for each in (stable, canary)] == ["web", "web-canary"]
    assert stable["spec"]["selector"]["matchLabels"] != canary["spec"]["selector"]["matchLabels"]
    selector = workloads.service("web", "n")["spec"]["selector"]
    for each in (stable, canary):
        assert selector.items() <= each["spec"]["template"]["metadata"]["labels"].items()
    environment = {each["name"]: each.get("value") for each in canary["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert environment["FAULTS"] == '{"latency_ms": 300}'


def test_the_control_port_stays_out_of_the_mesh() -> None:
    annotations = workloads.backend("web", "n")["spec"]["template"]["metadata"]["annotations"]
    assert annotations["traffic.sidecar.istio.io/excludeInboundPorts"] == "8081"
