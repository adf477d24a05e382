"""The tuple of kinds: complete, in use, and each kind whole (module, template, golden, docs row)."""

import re
from importlib import import_module
from importlib.resources import files
from pathlib import Path

import pytest

from perfpolicy.policy.model import Mode
from perfpolicy.render import EVERYTHING, KINDS, ChildKind, GroupKind, derived_names, render
from tests.builders import a_full_policy, a_policy

ROOT = Path(__file__).parents[2]
GOLDENS = ROOT / "tests/render/goldens/full"
PROMETHEUS_RULE = GroupKind("monitoring.coreos.com", "PrometheusRule")


def stem(kind: ChildKind) -> str:
    """`VirtualService` to `virtual_service`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind.kind).lower()


@pytest.mark.parametrize("kind", KINDS, ids=stem)
class TestEveryKindIsWhole:
    def test_has_a_module_of_its_name(self, kind: ChildKind) -> None:
        assert import_module(f"perfpolicy.render.{stem(kind)}").KIND is kind

    def test_has_a_template_of_its_name(self, kind: ChildKind) -> None:
        assert kind.template == f"{stem(kind)}.yaml.j2"
        assert (ROOT / "templates" / kind.template).is_file()

    def test_has_a_golden(self, kind: ChildKind) -> None:
        assert (GOLDENS / f"{stem(kind)}.yaml").is_file()

    def test_has_a_docs_row_that_names_its_objects(self, kind: ChildKind) -> None:
        rows = [row for row in (ROOT / "docs/children.md").read_text().splitlines() if row.startswith(f"| {kind.kind} |")]
        assert len(rows) == 1
        name_cell = rows[0].split("|")[2]
        assert all(f"`<name>{suffix}`" in name_cell for suffix in kind.suffixes)

    def test_changes_the_output_when_it_is_removed(self, kind: ChildKind) -> None:
        served = EVERYTHING if kind.stands_in_for is None else EVERYTHING - {kind.stands_in_for}
        without = tuple(other for other in KINDS if other is not kind)
        assert render(a_full_policy(), served, without) != render(a_full_policy(), served)

    def test_is_reported_missing_unless_something_stands_in(self, kind: ChildKind) -> None:
        replaced = {other.stands_in_for for other in KINDS}
        expected = () if kind.stands_in_for or kind.group_kind in replaced else (kind.group_kind,)
        rendering = render(a_full_policy(), EVERYTHING - {kind.group_kind})
        assert rendering.missing == expected
        assert kind.kind not in {manifest["kind"] for manifest in rendering.manifests}


def test_nothing_in_templates_or_docs_is_without_a_kind() -> None:
    templates = {path.name for path in (ROOT / "templates").iterdir() if not path.name.startswith("_")}
    assert templates == {kind.template for kind in KINDS}
    table = (ROOT / "docs/children.md").read_text().split("\n\n")[2]
    assert re.findall(r"^\| (\w+) \|", table, re.M)[1:] == [kind.kind for kind in KINDS]


def test_kinds_are_distinct() -> None:
    assert len({kind.group_kind for kind in KINDS}) == len({kind.plural for kind in KINDS}) == len(KINDS)


def test_the_package_carries_the_templates_by_a_relative_link() -> None:
    link = ROOT / "operator/perfpolicy/templates"
    assert link.readlink() == Path("../../templates")
    assert (files("perfpolicy") / "templates" / KINDS[0].template).is_file()


def test_rules_fall_to_a_config_map_where_the_crd_is_absent() -> None:
    with_crd, without = render(a_policy()), render(a_policy(), EVERYTHING - {PROMETHEUS_RULE})
    assert [manifest["kind"] for manifest in with_crd.manifests] == ["PrometheusRule"]
    assert [manifest["kind"] for manifest in without.manifests] == ["ConfigMap"]
    assert without.missing == ()


def test_rules_are_missing_where_neither_is_served() -> None:
    assert render(a_policy(), frozenset()).missing == (PROMETHEUS_RULE,)


def test_observing_writes_only_rules_and_misses_nothing_else() -> None:
    rendering = render(a_full_policy(mode=Mode.OBSERVE), frozenset({PROMETHEUS_RULE}))
    assert [manifest["kind"] for manifest in rendering.manifests] == ["PrometheusRule"]
    assert rendering.missing == ()


def test_derived_names_are_the_names_that_come_out() -> None:
    policy = a_full_policy(name="pol")
    rendered = render(policy).manifests + render(policy, EVERYTHING - {PROMETHEUS_RULE}).manifests
    own = {manifest["metadata"]["name"] for manifest in rendered if manifest["kind"] not in ("Deployment", "Service")}
    assert own == set(derived_names("pol"))


def test_every_manifest_says_whose_it_is() -> None:
    for manifest in render(a_full_policy(uid="u-1")).manifests:
        metadata = manifest["metadata"]
        assert metadata["labels"]["app.kubernetes.io/managed-by"] == "perfpolicy"
        assert metadata["labels"]["perfpolicy.io/policy"] == "operation-service"
        assert metadata["ownerReferences"] == [
            {
                "apiVersion": "perfpolicy.io/v1alpha1",
                "kind": "PerformancePolicy",
                "name": "operation-service",
                "uid": "u-1",
                "controller": True,
            }
        ]


def test_offline_there_is_no_owner() -> None:
    assert not any("ownerReferences" in manifest["metadata"] for manifest in render(a_full_policy(uid="")).manifests)


def test_a_class_cannot_relabel_whose_rules_they_are() -> None:
    policy = a_policy()
    labels = {"perfpolicy.io/policy": "other", "app.kubernetes.io/managed-by": "other", "prometheus": "lab"}
    (rules,) = render(a_policy(observability=type(policy.observability)(None, None, labels))).manifests
    assert rules["metadata"]["labels"] == {
        "perfpolicy.io/policy": "operation-service",
        "app.kubernetes.io/managed-by": "perfpolicy",
        "prometheus": "lab",
    }
