"""Alerts that read series of the other group, in a real Prometheus: promtool evaluates all groups at one interval and sees none of it.

bench/alert_chains.py plays it with the intervals policies have; here a third of a second stands for half a minute.
"""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from bench import alert_chains
from perfpolicy.promql.rule import Rule
from perfpolicy.promql.rules import rule_groups
from tests import builders as a
from tests import lab_tools

STEP = timedelta(milliseconds=300)


@pytest.mark.timeout(300)  # 25 s of an idle machine
def test_alerts_over_groups_of_different_intervals_fire_resolve_and_outlive_a_restart(tmp_path: Path) -> None:
    story = alert_chains.play(tmp_path, lab_tools.required("prometheus", "prometheus"), STEP)
    seen = {(chain.rule.labels["objective"], chain.rule.labels["long"], chain.every) for chain in story.chains}
    block = STEP * 10
    assert seen == {
        (objective, window, every)
        for objective in ("availability", "fast")
        for window, every in (("6h", STEP), ("24h", block), ("72h", block))
    }
    for chain in story.chains:
        assert story.begun < chain.fired < story.repaired < chain.resolved
        assert chain.held > 1, chain
        # Resolved because less burns, not because nothing is recorded.
        assert all(0 < rate < 1 for rate in chain.burning.values()), chain
    # The bench holds the blocks to their steps, and lets no evaluation be silent: with these steps a busy machine misses some.
    assert max(block.missing for block in story.blocks) > 0, story.blocks


def test_silent_alerts_and_blocks_unlike_their_steps_are_told() -> None:
    chain = alert_chains.Chain(a_rule(), STEP, 1.0, 5, 0, 2.0, {"5m": 0.5})
    kept, lost = alert_chains.Block(100.0, 100.0, 0), alert_chains.Block(90.0, 100.0, 1)
    assert alert_chains.Story(0, 1, (chain,), (kept,)).problems() == []
    found = alert_chains.Story(0, 1, (replace(chain, silent=2),), (kept, lost)).problems()
    assert found == ["availability 30m & 6h: silent at 2 of 5 evaluations", "a block of 90 requests, but its steps have 100"]


def a_rule() -> Rule:
    """An alert of two windows."""
    rules = [rule for group in rule_groups(a.a_policy(objectives=(a.an_objective(),))) for rule in group.rules if rule.alert]
    return next(rule for rule in rules if rule.labels.get("long") == "6h" and rule.labels["objective"] == "availability")


def test_no_other_alert_reads_what_another_group_records() -> None:
    """Whoever writes one plays it above, where a policy with every alert has it."""
    crossing = alert_chains.crossing(rule_groups(a.a_full_policy()))
    assert {rule.name for rules in crossing.values() for rule in rules} == {"ErrorBudgetBurn"}
