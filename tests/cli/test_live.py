"""`status` and `run` where something is wrong before a cluster is asked."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from perfpolicy.cli import program
from perfpolicy.cluster.kubeconfig import current_namespace
from perfpolicy.errors import SettingsError


@pytest.mark.parametrize("command", [["run"], ["status", "-n", "shops"], ["status", "-n", "shops", "--kubeconfig", "k"]])
def test_every_wrong_setting_is_named_and_the_exit_code_is_2(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERFPOLICY_WORKERS", "0")
    monkeypatch.setenv("PERFPOLICY_POLL_MIN", "soon")
    done = CliRunner().invoke(program, command)
    assert done.exit_code == 2, done.output
    assert "PERFPOLICY_WORKERS" in done.stderr
    assert "PERFPOLICY_POLL_MIN" in done.stderr


@pytest.mark.parametrize("text", ["a: [", "- just\n- a list\n", "contexts: 3\n"])
def test_a_kubeconfig_that_is_none_is_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(SettingsError, match="config"):
        current_namespace(path)
    done = CliRunner().invoke(program, ["status", "--kubeconfig", str(path)])
    assert done.exit_code == 2, done.output
    assert str(path) in done.stderr


def test_without_a_kubeconfig_the_namespace_is_default(tmp_path: Path) -> None:
    assert current_namespace(tmp_path / "missing") == "default"
