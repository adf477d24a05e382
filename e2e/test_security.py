"""examples/security on the real cluster: who is answered, by real identities and without any."""

import json
from collections.abc import Iterator

import pytest

from e2e import examples
from e2e.asking import Answer, Request, ask
from e2e.cluster import Cluster, istioctl_is_content
from e2e.waiting import eventually

NAMESPACE = "security"
POLICIES = ("accounts", "archive", "museum", "till", "vault")


@pytest.fixture(scope="module")
def security(real: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """examples/security, applied with kubectl, and an operator for its namespace; every policy Ready."""
    with examples.applied(real, NAMESPACE, tmp_path_factory.mktemp("operator") / "operator.log"):
        examples.await_ready(real, NAMESPACE, POLICIES, seconds=90)
        yield real


def request(service: str, path: str = "/", method: str = "GET") -> Request:
    """One to a policy's Service."""
    return Request(f"http://{service}.{NAMESPACE}{path}", method)


def told(answers: list[Answer]) -> list[str]:
    """What each was answered; for no answer at all why there is none."""
    return ["reset" if "reset" in a.error or "EOF" in a.error else f"{a.status} {a.error}".strip() for a in answers]


def test_without_a_sidecar_only_what_is_permissive_answers(security: Cluster) -> None:
    def check() -> None:
        asked = [request("vault"), request("museum")]
        assert told(ask(security.lab, "outside", asked)) == ["reset", "200"]
        assert told(ask(security.lab, "mesh", asked)) == ["200", "200"]

    eventually(check)


def test_one_identity_may_do_what_it_is_allowed_and_nothing_else(security: Cluster) -> None:
    """Every combination of a right and a wrong half is refused."""
    expected = [
        (request("accounts", "/accounts/7"), 200),
        (request("accounts", "/accounts/7", "POST"), 403),
        (request("accounts", "/other"), 403),
        (request("accounts", "/accounts/closed/1"), 403),
        # museum asks accounts by its own identity.
        (request("museum", "/accounts/7"), 403),
        (request("museum", "/accounts/closed/1"), 403),
        (request("archive"), 403),
    ]

    def check() -> None:
        answers = ask(security.lab, "mesh", [asked for asked, _ in expected])
        assert [answer.status for answer in answers] == [status for _, status in expected]
        assert {answer.body for answer in answers if answer.status == 403} == {"RBAC: access denied"}

    eventually(check)


def test_namespaces_and_addresses_are_sources_that_must_hold_together(security: Cluster) -> None:
    """`archive` by the namespace of its caller and by its address: both right, and each with a wrong other half."""
    (pod,) = security.lab.get("pods", "-n", "load", "-l", "app=k6")["items"]
    address, elsewhere = f"{pod['status']['podIP']}/32", "203.0.113.0/24"
    sources = {"/both": ("load", address), "/elsewhere": ("load", elsewhere), "/others": (NAMESPACE, address)}
    allow = [
        {"from": {"namespaces": [namespace], "ipBlocks": [block]}, "to": {"paths": [path], "methods": ["GET"]}}
        for path, (namespace, block) in sources.items()
    ]
    security.kubectl("patch", "pp", "archive", "-n", NAMESPACE, "--type=merge", "-p", json.dumps({"spec": {"security": {"allow": allow}}}))

    def check() -> None:
        requests = [*(request("archive", path) for path in sources), request("archive", "/both", "POST")]
        assert [answer.status for answer in ask(security.lab, "mesh", requests)] == [200, 403, 403, 403]

    eventually(check, seconds=60)


def test_connections_are_let_in_and_out_by_name_and_the_pod_stays_ready(security: Cluster) -> None:
    assert told(ask(security.lab, "mesh", [request("till")])) == ["200"]
    found = security.get("networkpolicy", "till", NAMESPACE)
    assert found is not None
    assert set(found["spec"]["policyTypes"]) == {"Ingress", "Egress"}
    assert found["spec"]["podSelector"]["matchLabels"] == {"app": "till"}
    assert security.condition("till", NAMESPACE, "Ready") == ("True", "Ready")


def test_istioctl_has_nothing_to_say(security: Cluster) -> None:
    eventually(lambda: istioctl_is_content(security, NAMESPACE))
