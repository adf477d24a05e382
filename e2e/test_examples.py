"""The examples as they are, applied to the real cluster. examples/runeframe runs here; examples/ce-hub is what the demo applies."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e import examples
from e2e.asking import Request, ask
from e2e.cluster import Cluster
from e2e.waiting import eventually
from lab import mesh, prometheus
from lab.rule_loader import rule_files
from perfpolicy import yaml_text
from perfpolicy.promql.rules import rule_groups
from tests.examples import policies

RUNEFRAME = "runeframe"
POLICIES = ("api-gateway", "postgresql", "rooms")


@pytest.fixture(scope="module")
def runeframe(real: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """examples/runeframe, applied with kubectl, and an operator for its namespace."""
    with examples.applied(real, RUNEFRAME, tmp_path_factory.mktemp("operator") / "operator.log"):
        yield real


def test_every_policy_is_ready(runeframe: Cluster) -> None:
    for name in POLICIES:
        for condition in ("Accepted", "Programmed", "WorkloadAvailable", "Ready"):
            eventually(lambda name=name, condition=condition: runeframe.condition(name, RUNEFRAME, condition)[0] == "True", seconds=60)  # type: ignore[misc]


def test_the_canary_answers_those_who_ask_for_it_and_reaches_the_backend(runeframe: Cluster) -> None:
    entrance = f"http://api-gateway.{RUNEFRAME}"

    def check() -> None:
        requests = [Request(entrance, headers={"x-canary": "true"}), Request(entrance), Request(f"{entrance}/rooms")]
        canary, stable, rooms = ask(runeframe.lab, "mesh", requests)
        assert (canary.status, canary.headers.get("x-version")) == (200, "canary")
        assert (stable.status, stable.headers.get("x-version")) == (200, "stable")
        assert (rooms.status, rooms.headers.get("x-service")) == (200, "api-gateway")
        assert '"service":"rooms"' in rooms.body
        (plaintext,) = ask(runeframe.lab, "outside", [Request(entrance)])
        assert plaintext.status == 0, "STRICT: without a sidecar there is no answer"

    eventually(check, seconds=60)


def test_istioctl_has_nothing_to_say(runeframe: Cluster) -> None:
    def content() -> None:
        findings = mesh.analyze(runeframe.lab, RUNEFRAME)
        assert [(finding["code"], finding["message"]) for finding in findings] == []

    eventually(content)


def test_promtool_accepts_the_live_rules(runeframe: Cluster, tmp_path: Path) -> None:
    objects = runeframe.lab.get("prometheusrules", "-n", RUNEFRAME)["items"]
    assert {each["metadata"]["name"] for each in objects} == set(POLICIES)
    for each in objects:
        for name, text in rule_files(each).items():
            check_rules(tmp_path / name, text)


@pytest.mark.parametrize("example", ["ce-hub", RUNEFRAME])
def test_promtool_accepts_the_rendered_rules(example: str, tmp_path: Path) -> None:
    for policy in policies(example):
        groups = [group.to_dict() for group in rule_groups(policy)]
        check_rules(tmp_path / f"{policy.key.name}.yaml", yaml_text.dump({"groups": groups}))


def check_rules(path: Path, text: str) -> None:
    """promtool's verdict on one rule file."""
    path.write_text(text)
    done = prometheus.promtool("check", "rules", path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS" in done.stdout
