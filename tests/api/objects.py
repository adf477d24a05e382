"""Raw objects for tests: a small valid policy and class, changed by field path, so that a test shows only what it is about."""

import copy
from collections.abc import Mapping
from typing import Any

from perfpolicy.vocabulary import API_VERSION, CLASS_KIND, POLICY_KIND

DEPLOYMENT: Mapping[str, Any] = {"image": "localhost/backend:lab", "replicas": 1, "ports": [{"name": "http", "port": 8080}]}
TARGET: Mapping[str, Any] = {"targetRef": {"group": "apps", "kind": "Deployment", "name": "shop"}, "serviceRef": {"name": "shop"}}


def a_policy_object(changes: Mapping[str, Any] | None = None, *, name: str = "shop", namespace: str = "shops") -> dict[str, Any]:
    """A policy with a Deployment of its own; `changes` maps paths below spec (`traffic.timeout`) to values, None removes."""
    policy: dict[str, Any] = {
        "apiVersion": API_VERSION,
        "kind": POLICY_KIND,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"workload": {"deployment": copy.deepcopy(dict(DEPLOYMENT))}},
    }
    return changed(policy, changes or {})


def a_class_object(changes: Mapping[str, Any] | None = None, *, name: str = "plain") -> dict[str, Any]:
    """A class that grants workload creation and fills nothing; `changes` as for a policy."""
    grants = [{"name": "all", "workloadCreation": "Allowed"}]
    cls: dict[str, Any] = {"apiVersion": API_VERSION, "kind": CLASS_KIND, "metadata": {"name": name}, "spec": {"grants": grants}}
    return changed(cls, changes or {})


def changed(obj: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`obj` with values set at dotted paths below spec."""
    for path, value in changes.items():
        *parents, last = path.split(".")
        node = obj["spec"]
        for parent in parents:
            node = node.setdefault(parent, {})
        if value is None:
            node.pop(last, None)
        else:
            node[last] = copy.deepcopy(value)
    return obj
