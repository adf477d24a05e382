"""What the install pages show is what happens."""

import re
from pathlib import Path

import pytest

from perfpolicy import yaml_text
from perfpolicy.cli.offline import check_files
from tests.charts import helm

INSTALL = (helm.ROOT / "docs" / "install.md").read_text()


def test_the_shown_values_are_taken() -> None:
    (values,) = (yaml_text.load(block) for block in re.findall(r"^```yaml\n(.*?)^```", INSTALL, re.DOTALL | re.MULTILINE))
    assert "development" not in {each["metadata"]["name"] for each in helm.template(values)}


def test_the_shown_mistake_is_refused_as_shown() -> None:
    command, shown = re.findall(r"^\$ helm (install .*adress.*)\n((?:.+\n)+?)```", INSTALL, re.MULTILINE)[0]
    with pytest.raises(helm.HelmError) as refused:
        helm.helm(*command.split(), "--dry-run=client")
    assert str(refused.value).strip() == shown.strip()


def test_the_first_policy_fits_what_the_chart_installs(tmp_path: Path) -> None:
    policy = helm.ROOT / "examples" / "operator" / "policy.yaml"
    (tmp_path / "installed.yaml").write_text(yaml_text.dump_all(helm.template({})))
    (checked,) = check_files([policy, tmp_path / "installed.yaml"], [])
    assert checked.problems == ()
    assert checked.policy is not None
    assert checked.policy.thresholds.memory is not None
