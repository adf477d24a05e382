"""Built-in defaults < class < policy: field by field, lists whole, blocks switched off and on again."""

import pytest

from perfpolicy.api.policy import parse_policy
from perfpolicy.policy.layers import merge
from tests.api.objects import a_policy_object
from tests.policy.support import Changes, a_class


def merged(policy: Changes, cls: Changes) -> dict[str, object]:
    values = merge(parse_policy(a_policy_object(policy)), a_class(cls)).values
    return dict(values["traffic"]) if "traffic" in values else {}


def test_objects_merge_field_by_field() -> None:
    found = merged({"traffic.circuitBreaker.interval": "5s"}, {"defaults.traffic.circuitBreaker": {"interval": "9s", "maxEjected": "10%"}})
    assert found["circuitBreaker"] == {
        "consecutiveErrors": 5, "interval": "5s", "baseEjection": "30s", "maxEjected": "10%", "minHealth": "0%",
    }  # fmt: skip


def test_lists_replace() -> None:
    found = merged({"traffic.retries.retryOn": ["reset"]}, {"defaults.traffic.retries.retryOn": ["5xx", "cancelled"]})
    assert found["retries"] == {"attempts": 3, "perTryTimeout": "10s", "retryOn": ["reset"]}


def test_an_empty_list_replaces_too() -> None:
    policy = parse_policy(a_policy_object({"thresholds.latency": []}))
    cls = a_class({"defaults.thresholds.latency": [{"quantile": "p95", "max": "1s"}]})
    assert merge(policy, cls).values["thresholds"]["latency"] == []


def test_maps_merge_by_key() -> None:
    policy = parse_policy(a_policy_object({"observability.alerts.labels": {"team": "a", "tier": "1"}}))
    cls = a_class({"defaults.observability.alerts.labels": {"team": "b", "site": "x"}})
    assert merge(policy, cls).values["observability"]["alerts"]["labels"] == {"team": "a", "tier": "1", "site": "x"}


def test_a_union_replaces_instead_of_mixing_two_alternatives() -> None:
    found = merged(
        {"traffic.loadBalancer.consistentHash": {"type": "SourceIP"}},
        {"defaults.traffic.loadBalancer": {"algorithm": "ConsistentHash", "consistentHash": {"type": "Header", "name": "x-user"}}},
    )
    assert found["loadBalancer"] == {"algorithm": "ConsistentHash", "consistentHash": {"type": "SourceIP"}}


def test_a_policy_disables_what_its_class_fills() -> None:
    found = merged({"traffic.circuitBreaker": {"mode": "Disabled"}}, {"defaults.traffic.circuitBreaker": {"interval": "9s"}})
    assert found["circuitBreaker"] == {"mode": "Disabled"}


def test_a_policy_uses_what_its_class_disables_by_filling_it() -> None:
    found = merged({"traffic.retries": {"attempts": 2}}, {"defaults.traffic.retries": {"mode": "Disabled"}})
    assert found["retries"] == {
        "attempts": 2, "perTryTimeout": "10s", "retryOn": ["5xx", "gateway-error", "connect-failure", "refused-stream"],
    }  # fmt: skip


def test_an_empty_block_is_used_with_its_defaults() -> None:
    assert merged({"traffic.loadBalancer": {}}, {})["loadBalancer"] == {"algorithm": "LeastRequest"}


@pytest.mark.parametrize("block", ["retries", "circuitBreaker", "loadBalancer", "connectionPool"])
def test_a_block_nobody_asks_for_is_not_there(block: str) -> None:
    assert block not in merged({}, {})


def test_origins_name_policy_class_and_built_in_default() -> None:
    policy = parse_policy(a_policy_object({"traffic.timeout": "5s", "traffic.retries.attempts": 1}))
    origins = merge(policy, a_class({"defaults.traffic.retries.perTryTimeout": "2s"}, name="fast")).origins
    assert origins["spec.traffic.timeout"] == "policy"
    assert origins["spec.traffic.retries.attempts"] == "policy"
    assert origins["spec.traffic.retries.perTryTimeout"] == "class fast"
    assert origins["spec.traffic.retries.retryOn"] == "built-in default"


def test_origins_say_who_disabled_a_block() -> None:
    policy = parse_policy(a_policy_object({"network": {"mode": "Disabled"}}))
    assert merge(policy, a_class({"defaults.network.ingress": []})).origins["spec.network.mode"] == "policy"
    assert "spec.network.ingress" not in merge(policy, a_class({"defaults.network.ingress": []})).origins


def test_by_policy_tells_a_path_from_one_that_begins_alike() -> None:
    layered = merge(parse_policy(a_policy_object({"traffic.timeout": "5s"})), a_class())
    assert layered.by_policy("spec.traffic.timeout")
    assert layered.by_policy("spec.traffic")
    assert not layered.by_policy("spec.traffic.time")
    assert not layered.by_policy("spec.security")
