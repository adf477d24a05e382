"""The rule groups of a policy: two recording tiers, each with the alerts that change with it."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from perfpolicy.policy import model
from perfpolicy.promql import alerts, growth, names, objectives, recording, refusals
from perfpolicy.promql.expr import call, number
from perfpolicy.promql.rule import RuleGroup, block_of, checked, record


def rule_groups(policy: model.Policy) -> tuple[RuleGroup, ...]:
    """Everything Prometheus evaluates for a policy; the first rule says which revision of the rest is loaded. Raises RenderError."""
    steps, blocks = _tiers(policy)
    loaded = record(policy, names.REVISION, call("vector", number(_revision((steps, blocks)))))
    return checked((replace(steps, rules=(loaded, *steps.rules)), blocks))


def revision(policy: model.Policy) -> int:
    """The value of the policy's `names.REVISION` series once exactly these rules are loaded: 48 bits, exact in a sample's float."""
    return _revision(_tiers(policy))


def rendered_revision(groups: Sequence[Mapping[str, Any]]) -> int:
    """The revision that groups rendered from `rule_groups` carry: reading it is a thousand times cheaper than building them again."""
    return int(groups[0]["rules"][0]["expr"].removeprefix("vector(").removesuffix(")"))


def _tiers(policy: model.Policy) -> tuple[RuleGroup, RuleGroup]:
    provider = policy.metrics.provider
    wanted = tuple(alerts.alerts(policy))
    steps = (
        *recording.steps(policy),
        *recording.window_values(policy),
        *recording.resources(policy),
        *refusals.refusals(policy),
        *objectives.burn_rates(policy, objectives.STEP_WINDOWS),
        *(alert for alert in wanted if not alerts.follow_blocks(alert)),
    )
    budgets = (
        (
            *recording.blocks(policy),
            *objectives.burn_rates(policy, objectives.BLOCK_WINDOWS),
            *objectives.periods(policy),
            *(alert for alert in wanted if alerts.follow_blocks(alert)),
        )
        if policy.objectives
        else ()
    )
    blocks = (*budgets, *growth.growth(policy), *alerts.slow_alerts(policy))
    prefix = f"perfpolicy/{policy.key}"
    return (
        RuleGroup(f"{prefix}/steps", provider.rule_interval, provider.query_offset, steps),
        RuleGroup(f"{prefix}/blocks", block_of(provider), provider.query_offset, blocks),
    )


def _revision(groups: tuple[RuleGroup, ...]) -> int:
    text = json.dumps([group.to_dict() for group in groups], sort_keys=True)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")
