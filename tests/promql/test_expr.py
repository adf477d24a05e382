"""Expressions are built, quoted in one place, and parsed before they leave."""

import contextlib
import re
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import promql_parser
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from perfpolicy.errors import RenderError
from perfpolicy.policy import model
from perfpolicy.policy.sources import ISTIO_BOUNDS_MS
from perfpolicy.promql import buckets, expr, names, scope
from perfpolicy.promql.expr import Expr, Matcher, Op, Selector, duration
from perfpolicy.promql.queries import SHARES, Query, budget_queries, share_of, threshold_queries
from perfpolicy.promql.rule import RuleGroup, checked, record
from perfpolicy.promql.rules import rendered_revision, revision, rule_groups
from tests import builders as a
from tests.promql import promtool

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")) | st.sampled_from('"\\\n{}[]()|.*+?^$'), max_size=40)


_EDGES = ["", "a", "a.b", "a[", "a(b", "(", ".", "-", ".*", "a|", r"\\", r"\"", r"\n", r"a\"", '"', "A", "é"]
SHAPES = [
    'x{{a=~"{}"}}',
    '{{a=~"{}"}}',
    '{{a="{}"}}',
    'x{{a="{}",b="y"}}',
    'x{{a="{}"',
    '"{}"x',
    'x{{a=~"{}-[b]{{1,2}}"}}',
    'x{{a=~"{}-[b"}}',
    "vector({})",
    "({})",
]


@given(TEXT)
def test_any_label_value_stays_one_label_value(value: str) -> None:
    selector = promql_parser.parse(str(Selector("up", (Matcher("a", Op.EQ, value),)).instant()))
    assert isinstance(selector, promql_parser.VectorSelector)
    assert [(matcher.name, matcher.value) for matcher in selector.matchers.matchers] == [("a", value)]


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40))
def test_a_literal_pattern_parses_whatever_the_text(value: str) -> None:
    selector = promql_parser.parse(str(Selector("up", (Matcher("a", Op.RE, expr.literal_pattern(value)),)).instant()))
    assert isinstance(selector, promql_parser.VectorSelector)
    assert [re.fullmatch(matcher.value, value) is not None for matcher in selector.matchers.matchers] == [True]


def test_binary_operators_do_not_depend_on_precedence() -> None:
    one, two, three = Expr("1"), Expr("2"), Expr("3")
    assert str((one + two) * three) == "((1 + 2) * 3)"
    assert str(one + two * three) == "(1 + (2 * 3))"


@pytest.mark.parametrize(("value", "text"), [(Decimal("0.1"), "0.1"), (10**12, "1000000000000"), (Decimal("1E-7"), "0.0000001")])
def test_numbers_have_no_exponent(value: Decimal | int, text: str) -> None:
    assert str(expr.number(value)) == text


def test_a_rule_that_does_not_parse_is_our_defect() -> None:
    broken = RuleGroup("g", timedelta(seconds=30), None, (record(a.a_policy(), "perfpolicy:x", Expr("sum(rate(x))")),))
    with pytest.raises(RenderError, match=r"perfpolicy:x in group g does not parse"):
        checked((broken,))


@given(st.sampled_from(SHAPES), st.lists(st.one_of(st.sampled_from(_EDGES), TEXT), max_size=8))
@example(SHAPES[0], ["a", *_EDGES])
@example(SHAPES[1], ["a", *_EDGES])
@example(SHAPES[6], ["a", *_EDGES])
@example(SHAPES[7], ["a", *_EDGES])
@example(SHAPES[8], ["1", "", "1.", ".", "01", "1e", *_EDGES])
def test_what_was_parsed_before_changes_no_answer(shape: str, contents: list[str]) -> None:
    for content in contents:
        text, parses = shape.format(content), True
        try:
            promql_parser.parse(text)
        except ValueError:
            parses = False
        with contextlib.nullcontext() if parses else pytest.raises(RenderError):
            expr.check(Expr(text), "x")


def test_an_expression_of_another_policy_is_not_parsed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    first = rule_groups(a.a_full_policy(name="first", uid="1-a"))
    parsed: list[str] = []
    monkeypatch.setattr(promql_parser, "parse", parsed.append)
    second = rule_groups(a.a_full_policy(name="second", uid="2-b"))
    assert len(first[0].rules) == len(second[0].rules) > 10
    assert parsed == []


def test_what_is_known_to_parse_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expr, "_REMEMBERED", 10)
    for number in range(50):
        expr.check(expr.number(number), "x")
    assert len(expr._parsed) <= 10


def test_every_expression_of_a_full_policy_parses() -> None:
    groups = rule_groups(a.a_full_policy())
    for group in groups:
        for rule in group.rules:
            promql_parser.parse(str(rule.expr))
    assert [group.name for group in groups] == ["perfpolicy/ce-hub/operation-service/steps", "perfpolicy/ce-hub/operation-service/blocks"]


def test_a_policy_without_objectives_proxies_and_a_limit_of_memory_has_no_second_tier() -> None:
    policy = a.a_policy(objectives=(), in_mesh=False, thresholds=a.thresholds(memory=None))
    assert [group.interval for group in rule_groups(policy)] == [timedelta(seconds=30)]


def test_every_series_carries_the_identity_and_nothing_else_unexpected() -> None:
    for group in rule_groups(a.a_full_policy()):
        for rule in group.rules:
            if not rule.alert:
                assert {"policy", "policy_namespace", "policy_uid"} <= rule.labels.keys()
                assert rule.labels.keys() <= {"policy", "policy_namespace", "policy_uid", "quantile", "objective", "window"}


def test_recorded_series_are_unique_by_name_and_labels() -> None:
    rules = [rule for group in rule_groups(a.a_full_policy()) for rule in group.rules if not rule.alert]
    assert len({(rule.name, tuple(sorted(rule.labels.items()))) for rule in rules}) == len(rules)


def test_the_revision_changes_with_the_rules_and_with_nothing_else() -> None:
    policy = a.a_policy()
    assert revision(policy) == revision(replace(policy, identity=replace(policy.identity, generation=9)))
    assert revision(policy) != revision(replace(policy, thresholds=a.thresholds(window=timedelta(minutes=1))))
    assert rendered_revision([group.to_dict() for group in rule_groups(policy)]) == revision(policy)
    assert revision(policy) < 2**53


def cycle_queries(provider: model.Provider, *shares: int | None) -> tuple[Query, ...]:
    """Those of a cycle that asks share by share, and about the budgets of the first."""
    asked = shares or (None,)
    return (*(query for share in asked for query in threshold_queries(provider, share)), *budget_queries(provider, asked[0]))


@pytest.mark.parametrize("shares", [(), range(len(SHARES))])
def test_a_cycle_asks_at_most_six_queries_and_puts_the_classes_matchers_into_each(shares: Iterable[int]) -> None:
    queries = cycle_queries(a.a_provider(matchers=(("cluster", 'a"b'),)), *shares)
    assert len(queries) <= 6
    for query in queries:
        parsed = promql_parser.parse(query.text)
        assert isinstance(parsed, promql_parser.MatrixSelector)
        matchers = {matcher.name: matcher for matcher in parsed.vector_selector.matchers.matchers}
        assert matchers["cluster"].value == 'a"b'
        assert not _fits(matchers["policy_uid"], {}), "series of nobody"


@given(st.uuids().map(str) | TEXT)
def test_each_policy_is_asked_for_in_one_share(uid: str) -> None:
    policy = a.a_policy(uid=uid)
    for share in range(len(SHARES)):
        for query in cycle_queries(policy.metrics.provider, share):
            parsed = promql_parser.parse(query.text)
            assert isinstance(parsed, promql_parser.MatrixSelector)
            wanted = next(matcher for matcher in parsed.vector_selector.matchers.matchers if matcher.name == "policy_uid")
            assert _fits(wanted, {"policy_uid": uid}) == (share == share_of(policy) and uid != "")


@pytest.mark.parametrize("late", [None, timedelta(0), timedelta(minutes=1)])
def test_a_cycle_asks_for_four_samples_of_each_series_and_for_none_twice(late: timedelta | None) -> None:
    policy = a.a_full_policy()
    policy = replace(policy, metrics=replace(policy.metrics, provider=replace(policy.metrics.provider, query_offset=late)))
    parsed = (promql_parser.parse(query.text) for query in cycle_queries(policy.metrics.provider))
    asked = [each for each in parsed if isinstance(each, promql_parser.MatrixSelector)]
    for group in rule_groups(policy):
        for rule in (rule for rule in group.rules if not rule.alert and not rule.name.endswith((":step", ":block"))):
            series = {"__name__": rule.name, **rule.labels}
            found = [each for each in asked if all(_fits(matcher, series) for matcher in each.vector_selector.matchers.matchers)]
            wanted = [group.interval * 4 + (late or timedelta())] if rule.name != names.BUDGET_LEFT else []
            assert [each.range for each in found] == wanted, series
        assert group.to_dict().get("query_offset") == (None if late is None else duration(late))


def _fits(matcher: promql_parser.Matcher, labels: Mapping[str, str]) -> bool:
    value = labels.get(matcher.name, "")
    return value != matcher.value if str(matcher.op) == "MatchOp.NotEqual" else re.fullmatch(matcher.value, value, re.DOTALL) is not None


def test_the_cycle_reads_every_derived_series_but_what_is_for_people_and_no_step_or_block() -> None:
    asked = " ".join(query.text for query in cycle_queries(a.a_provider()))
    derived = {rule.name for group in rule_groups(a.a_full_policy()) for rule in group.rules if not rule.alert}
    inner = {name for name in derived if name.endswith((":step", ":block"))}
    assert {name for name in derived if name not in asked} == inner | {names.BUDGET_LEFT}


@pytest.mark.parametrize(
    ("kind", "name", "pod", "own"),
    [
        ("Deployment", "api", "api-7d9f8c6b5-x2x4z", True),
        ("Deployment", "api", "api-gateway-7d9f8c6b5-x2x4z", False),
        ("Rollout", "api", "api-7d9f8c6b5-x2x4z", True),
        ("StatefulSet", "db", "db-12", True),
        ("StatefulSet", "db", "db-replica-0", False),
        ("DaemonSet", "agent", "agent-x2x4z", True),
        ("DaemonSet", "agent", "agent-windows-x2x4z", False),
        ("Deployment", "a" * 60, "a" * 57 + "x2x4z", True),
        ("Deployment", "a.b", "axb-7d9f8c6b5-x2x4z", False),
    ],
)
def test_pods_are_recognised_by_the_generated_part_of_their_name(kind: str, name: str, pod: str, own: bool) -> None:
    import re

    selector = scope.containers(a.a_policy(workload=a.a_workload(kind=kind, name=name)), "m")
    pattern = next(matcher.value for matcher in selector.matchers if matcher.label == "pod")
    assert (re.fullmatch(pattern, pod) is not None) is own


def test_recorded_buckets_reach_beyond_ten_times_the_largest_limit() -> None:
    bounds = buckets.recorded_bounds(a.a_policy())
    assert bounds[0] <= 10
    assert bounds[-1] > 10_000
    assert len(bounds) < len(ISTIO_BOUNDS_MS)


@given(st.floats(min_value=0, allow_nan=False, allow_infinity=False))
def test_a_quantile_lies_in_its_interval(value: float) -> None:
    lower, upper = buckets.interval(a.a_policy(), value)
    assert lower <= value or value == 0
    assert upper is None or value <= upper


def test_promtool_finds_nothing_to_say_about_a_full_policys_rules(tmp_path: Path) -> None:
    tool = promtool.required()
    groups = [group.to_dict() for group in rule_groups(a.a_full_policy())]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": groups}))
    done = subprocess.run([tool, "check", "rules", "--lint-fatal", "rules.yaml"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
