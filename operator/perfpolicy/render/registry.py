"""Every kind of child, in the order they are applied, and the one function that renders a policy. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from perfpolicy import yaml_text
from perfpolicy.policy.model import Mode, Policy
from perfpolicy.render import (
    authorization_policy,
    config_map,
    deployment,
    destination_rule,
    engine,
    envoy_filter,
    horizontal_pod_autoscaler,
    network_policy,
    peer_authentication,
    pod_disruption_budget,
    pod_monitor,
    prometheus_rule,
    service,
    telemetry,
    virtual_service,
)
from perfpolicy.render.manifest import ChildKind, GroupKind, Manifest

KINDS: Final[tuple[ChildKind, ...]] = (
    # Protection before what it protects; subsets before the routes that name them (a route to an unknown subset answers 503).
    network_policy.KIND,
    peer_authentication.KIND,
    authorization_policy.KIND,
    envoy_filter.KIND,
    pod_disruption_budget.KIND,
    service.KIND,
    destination_rule.KIND,
    virtual_service.KIND,
    telemetry.KIND,
    deployment.KIND,
    horizontal_pod_autoscaler.KIND,
    pod_monitor.KIND,
    prometheus_rule.KIND,
    config_map.KIND,
)

EVERYTHING: Final[frozenset[GroupKind]] = frozenset(kind.group_kind for kind in KINDS)
"""What `served` is when no cluster is asked."""


@dataclass(frozen=True, slots=True)
class Rendering:
    """`manifests` in order of application; `missing`: kinds the policy asks for that the API server does not serve."""

    manifests: tuple[Manifest, ...]
    missing: tuple[GroupKind, ...]


def prepare() -> None:
    """Compile every template: else the first policy waits for it, a tenth of a second."""
    for kind in KINDS:
        engine.template(kind.template)


def render(policy: Policy, served: frozenset[GroupKind] = EVERYTHING, kinds: tuple[ChildKind, ...] = KINDS) -> Rendering:
    """Every child of a policy, from what the API server serves. Raises RenderError: a defect of ours."""
    manifests: list[Manifest] = []
    missing: list[GroupKind] = []
    replaceable = {kind.stands_in_for for kind in kinds if kind.group_kind in served}
    for kind in kinds:
        if policy.mode is Mode.OBSERVE and not kind.observing:
            continue
        children = kind.build(policy)
        if kind.stand_in is not None and kind.stands_in_for not in served:
            children = (*kind.stand_in(policy), *children)
        if kind.group_kind in served:
            manifests.extend(engine.manifest(kind, policy, child) for child in children)
        elif children and kind.group_kind not in replaceable and kind.stands_in_for is None:
            missing.append(kind.group_kind)
    return Rendering(tuple(manifests), tuple(missing))


def derived_names(policy_name: str) -> tuple[str, ...]:
    """Every object name derived from a policy's name, each once: the longest must fit into 63 characters."""
    return tuple(dict.fromkeys(policy_name + suffix for kind in KINDS for suffix in kind.suffixes))


def dump(manifests: Iterable[Manifest]) -> str:
    """Manifests as a YAML stream that kubectl takes."""
    return yaml_text.dump_all(manifests)
