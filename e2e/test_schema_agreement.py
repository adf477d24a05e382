"""`perfpolicy lint` and the API server agree: a spec one of them refuses, the other refuses, too. Specs are drawn from the schema."""

import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from e2e.api import api_of
from e2e.conftest import Kubectl
from perfpolicy.api.policy import parse_policy
from perfpolicy.errors import InvalidSpec
from tests.api.objects import a_policy_object
from tests.policy.test_any_spec import POLICIES

EXAMPLES = int(os.environ.get("PERFPOLICY_EXAMPLES", "120"))


@pytest.fixture(scope="module")
def shops(kubectl: Kubectl) -> Iterator[str]:
    """One namespace for all: nothing is stored in it."""
    name = f"e2e-agreement-{secrets.token_hex(4)}"
    kubectl("create", "namespace", name)
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


def test_lint_and_api_server_agree(kubectl: Kubectl, shops: str) -> None:
    outcomes, api = {True: 0, False: 0}, api_of(Path(kubectl.environment["KUBECONFIG"]))

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(spec=POLICIES)
    def agree(spec: dict[str, Any]) -> None:
        policy = {**a_policy_object(namespace=shops), "spec": spec}
        code, message = api.create_dry(policy)
        assert code in (201, 400, 422), message
        found = _problems(policy)
        assert bool(found) == (code != 201), f"lint: {found or 'accepts'}\nAPI server: {message or 'accepts'}"
        outcomes[not found] += 1

    agree()
    assert min(outcomes.values()) >= 5, f"nothing is shown by specs that are all alike: {outcomes}"


def _problems(policy: dict[str, Any]) -> str:
    try:
        parse_policy(policy)
    except InvalidSpec as refused:
        return str(refused)
    return ""
