"""Alerts that read series of the other group, in a real Prometheus: promtool evaluates all groups at one interval and sees none of it.

bench/alert_chains.py plays it with the intervals policies have; here a third of a second stands for half a minute.
"""

from datetime import timedelta
from pathlib import Path

import pytest

from bench import alert_chains
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
        assert (chain.silent, chain.held > 1) == (0, True), chain
        # Resolved because less burns, not because nothing is recorded.
        assert all(0 < rate < 1 for rate in chain.burning.values()), chain
    # Every step is in one block, the steps of a block that was missed are in the next.
    assert max(block.missing for block in story.blocks) > 0, story.blocks
    assert [block.requests for block in story.blocks] == pytest.approx([block.steps for block in story.blocks]), story.blocks


def test_no_other_alert_reads_what_another_group_records() -> None:
    """Whoever writes one plays it above, where a policy with every alert has it."""
    crossing = alert_chains.crossing(rule_groups(a.a_full_policy()))
    assert {rule.name for rules in crossing.values() for rule in rules} == {"ErrorBudgetBurn"}
