"""What the tests of policy/ share: parse, resolve and report in one call each."""

from collections.abc import Mapping
from typing import Any

from perfpolicy.api.performance_class import PerformanceClass, parse_class
from perfpolicy.api.policy import parse_policy
from perfpolicy.errors import Problem
from perfpolicy.policy import model, resolve
from perfpolicy.policy.facts import Facts
from tests.api.objects import TARGET, a_class_object, a_policy_object

Changes = Mapping[str, Any]


def a_class(changes: Changes | None = None, **metadata: Any) -> PerformanceClass:
    """A parsed class."""
    obj = a_class_object(changes)
    obj["metadata"] |= metadata
    return parse_class(obj)


def resolved(policy: Changes | None = None, cls: Changes | None = None, facts: Facts | None = None) -> model.Policy:
    """The model of a policy under a class, both given by their changes."""
    return resolve.resolve(parse_policy(a_policy_object(policy)), a_class(cls), facts or Facts())


def problems(policy: Changes | None = None, cls: Changes | None = None, facts: Facts | None = None) -> list[Problem]:
    """What is wrong with it."""
    return resolve.check(parse_policy(a_policy_object(policy)), a_class(cls), facts or Facts())


def a_target(**changes: Any) -> dict[str, Any]:
    """A Deployment `shop` as the API server returns it; `changes` replace parts of its spec."""
    container = {
        "name": "app",
        "image": "shop",
        "ports": [{"name": "http", "containerPort": 8080}, {"name": "http-metrics", "containerPort": 9090}],
        "resources": {"requests": {"cpu": "250m"}, "limits": {"cpu": 1, "memory": "512Mi"}},
    }
    spec = {
        "selector": {"matchLabels": {"app": "shop", "version": "stable"}},
        "template": {"metadata": {"labels": {"app": "shop", "version": "stable"}}, "spec": {"containers": [container]}},
        **changes,
    }
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "shop"}, "spec": spec}


def a_raw_service(name: str = "shop", **changes: Any) -> dict[str, Any]:
    """A Service selecting `a_target`'s pods."""
    spec = {"selector": {"app": "shop"}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}], **changes}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def targeted(target: dict[str, Any] | None = None, service: dict[str, Any] | None = None, **facts: Any) -> Facts:
    """Facts of a policy that refers to `a_target` and `a_raw_service`."""
    return Facts(target=target or a_target(), services={"shop": service or a_raw_service()}, **facts)


REFERRING: Changes = {"workload": TARGET}
