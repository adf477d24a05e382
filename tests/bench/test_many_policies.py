"""The series bench/many_policies.py makes up are those the rules record and the operator reads: else it would measure something else."""

import re

from bench import many_policies
from perfpolicy.promql import names
from perfpolicy.promql.rules import rule_groups

POLICY = many_policies.policies(1)[0]


def test_it_makes_up_what_the_rules_record_and_the_operator_reads() -> None:
    made_up = {(one.text.partition("{")[0], frozenset(re.findall(r'(\w+)="([^"]*)"', one.text))) for one in many_policies.series(POLICY)}
    recorded = {(rule.name, frozenset(rule.labels.items())) for group in rule_groups(POLICY) for rule in group.rules if not rule.alert}
    read = {(name, labels) for name, labels in recorded if not name.endswith((":step", ":block")) and name != names.BUDGET_LEFT}
    assert made_up == read


def test_it_tells_every_sample_a_query_reaches_once_and_goes_on_from_there() -> None:
    told = [*many_policies.lines([POLICY], 0, 1_000_010), *many_policies.lines([POLICY], 1_000_010, 1_000_100)]
    for one in many_policies.series(POLICY):
        times = [int(line.rsplit(" ", 1)[1]) // 1000 for line in told if line.startswith(f"{one.text} ")]
        assert times == list(range(times[0], times[-1] + 1, one.spacing))
        assert 1_000_100 - times[-1] < one.spacing
        assert times[0] <= 1_000_010 - 3 * one.spacing
