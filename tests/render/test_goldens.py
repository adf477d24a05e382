"""Whole-file goldens: one file a kind, what a policy becomes. `pytest --update-goldens` rewrites them; the diff is the review."""

from pathlib import Path

import pytest

from perfpolicy.render import EVERYTHING, KINDS, ChildKind, dump, render
from tests.builders import a_full_policy
from tests.conftest import Golden
from tests.examples import policies

GOLDENS = Path(__file__).parent / "goldens"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_everything_a_policy_can_ask_for(kind: ChildKind, golden: Golden) -> None:
    served = EVERYTHING if kind.stands_in_for is None else EVERYTHING - {kind.stands_in_for}
    manifests = [manifest for manifest in render(a_full_policy(), served).manifests if manifest["kind"] == kind.kind]
    assert manifests
    golden(GOLDENS / "full" / kind.template.removesuffix(".j2"), dump(manifests))


@pytest.mark.parametrize("example", ["ce-hub", "limits", "runeframe", "scaling", "security", "telemetry", "traffic"])
def test_the_examples(example: str, golden: Golden) -> None:
    manifests = [manifest for policy in policies(example) for manifest in render(policy).manifests]
    kinds = {kind.kind: kind for kind in KINDS}
    wanted = {kinds[manifest["kind"]].template.removesuffix(".j2") for manifest in manifests}
    for kind in KINDS:
        objects = [manifest for manifest in manifests if manifest["kind"] == kind.kind]
        if objects:
            golden(GOLDENS / example / kind.template.removesuffix(".j2"), dump(objects))
    assert {path.name for path in (GOLDENS / example).iterdir()} == wanted
