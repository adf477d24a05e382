"""The recorded series tell the truth about raw counters: nothing is lost between steps, traffic weighs ratios, silence is absent."""

from datetime import timedelta
from decimal import Decimal

import pytest

from perfpolicy.policy import model
from perfpolicy.promql import names, refusals
from perfpolicy.promql.rule import RuleGroup
from perfpolicy.promql.rules import rule_groups
from tests import builders as a
from tests.promql import series
from tests.promql.conftest import Check
from tests.promql.promtool import Expect, Scenario, constant, counter

MINUTE = timedelta(minutes=1)
POLICY = a.a_policy(
    objectives=(a.an_objective(), a.an_objective(name="fast", target=Decimal("0.99"), threshold=timedelta(milliseconds=500)))
)


def steps(policy: model.Policy = POLICY) -> tuple[RuleGroup, ...]:
    return rule_groups(policy)[:1]


def blocks(policy: model.Policy = POLICY) -> tuple[RuleGroup, ...]:
    return rule_groups(policy)[1:]


def recorded(name: str, value: float, at: timedelta, **labels: str) -> Expect:
    """Exactly one series of that name, with the identity labels, has this value."""
    return Expect(name, at, {series.recorded(POLICY, name, **labels): value})


def absent(name: str, at: timedelta) -> Expect:
    return Expect(name, at, {})


def test_steps_add_up_to_the_counters_increase(check: Check) -> None:
    # 300 requests arrive between two scrapes, wherever that is against the rule's windows.
    data = {series.requests(): "1000x40 1300x40"}
    total = Expect(f"sum_over_time({names.JUDGED_STEP}[15m])", 15 * MINUTE, {series.labels_of(POLICY): 300})
    check(steps(), Scenario(data, [total]))


@pytest.mark.parametrize("jump", range(36, 44))
def test_no_jump_falls_between_two_steps(check: Check, jump: int) -> None:
    data = {series.requests(): f"1000x{jump} 1300x{80 - jump}"}
    total = Expect(f"sum_over_time({names.JUDGED_STEP}[15m])", 15 * MINUTE, {series.labels_of(POLICY): 300})
    check(steps(), Scenario(data, [total]))


def test_what_pods_of_other_namespaces_say_of_the_workload_is_not_believed(check: Check) -> None:
    forged = series.requests("500", namespace="evil", pod="forger", instance="10.0.0.66:80")
    data = {series.requests(): counter(10, 15), forged: counter(1000, 15)}
    rate = Expect(f"{names.OFFERED_RATE} > 9", 9 * MINUTE, {series.recorded(POLICY, names.OFFERED_RATE): 10})
    check(steps(), Scenario(data, [absent(f"{names.ERROR_RATIO} > 0", 9 * MINUTE), rate]))


def test_a_sample_that_may_not_be_stored_yet_is_left_to_the_next_step(check: Check) -> None:
    """Read both without delay and a step later, what came in between would be in neither step (docs/metrics.md has the measurement)."""
    data = {series.requests(): "1000x19 1300x40"}  # the jump is stamped 5m, when a step ends
    total = series.recorded(POLICY, names.JUDGED_STEP)
    expected = [Expect(names.JUDGED_STEP, 5 * MINUTE, {total: 0}), Expect(names.JUDGED_STEP, 5 * MINUTE + HALF_MINUTE, {total: 300})]
    check(steps(), Scenario(data, expected))


def test_a_counter_reset_is_not_a_negative_step(check: Check) -> None:
    data = {series.requests(): f"{counter(10, 5, 5000)} {counter(10, 5, 150)}"}
    rate = Expect(f"{names.OFFERED_RATE} > 9", 9 * MINUTE, {series.recorded(POLICY, names.OFFERED_RATE): 10})
    check(steps(), Scenario(data, [rate]))


def judged_sum(value: float) -> Expect:
    return Expect(f"sum_over_time({names.JUDGED_STEP}[15m])", 15 * MINUTE, {series.labels_of(POLICY): value})


def errors_sum(value: float) -> Expect:
    return Expect(f"sum_over_time({names.ERRORS_STEP}[15m])", 15 * MINUTE, {series.labels_of(POLICY): value})


@pytest.mark.parametrize("gap", ["_", "stale", "_ _", "stale _"])
def test_failed_scrapes_lose_nothing(check: Check, gap: str) -> None:
    data = {series.requests(): f"1000x30 1100 {gap} 1300x40"}
    check(steps(), Scenario(data, [judged_sum(300)]))


def test_a_restarted_proxys_count_since_its_start_is_an_increase(check: Check) -> None:
    data = {series.requests(): "1000x30 1100x10 40x40"}
    check(steps(), Scenario(data, [judged_sum(140)]))


def test_the_first_errors_of_a_known_pod_are_counted(check: Check) -> None:
    data = {series.requests(): "1000x80", series.requests("503"): "_x33 7x47"}
    check(steps(), Scenario(data, [errors_sum(7), judged_sum(7)]))


def test_what_a_pod_counted_before_it_was_known_is_history(check: Check) -> None:
    data = {
        series.requests(): "1000x80",
        series.requests(instance="new"): "_x33 5000x47",
        series.requests("503", instance="new"): "_x33 7x47",
    }
    check(steps(), Scenario(data, [errors_sum(0), judged_sum(0)]))


def test_what_was_counted_while_nothing_was_scraped_is_not_one_huge_step(check: Check) -> None:
    data = {series.requests(): "1000x20 _x20 9000x40", series.requests("503"): "10x20 _x20 900x40"}
    check(steps(), Scenario(data, [errors_sum(0), judged_sum(0)]))


def test_what_a_pod_counted_last_is_kept_when_it_is_gone(check: Check) -> None:
    data = {series.requests(): "1000x80", series.requests(instance="gone", pod="gone"): "500x30 520 530 stale _x40"}
    check(steps(), Scenario(data, [judged_sum(30)]))


def test_rates_tell_offered_judged_and_served_apart(check: Check) -> None:
    data = {
        series.requests(): counter(10, 12),
        series.requests("503"): counter(2, 12),
        series.requests("404"): counter(1, 12),
        series.requests("429", "RL"): counter(5, 12),
    }
    expected = [
        recorded(names.OFFERED_RATE, 18, 10 * MINUTE),
        recorded(names.JUDGED_RATE, 13, 10 * MINUTE),
        recorded(names.SERVED_RATE, 11, 10 * MINUTE),
        recorded(names.ERROR_RATIO, 2 / 13, 10 * MINUTE),
    ]
    check(steps(), Scenario(data, expected))


def test_errors_are_zero_not_absent_where_only_good_requests_are_counted(check: Check) -> None:
    check(steps(), Scenario({series.requests(): counter(10, 12)}, [recorded(names.ERROR_RATIO, 0, 10 * MINUTE)]))


def test_pods_and_codes_are_summed_not_divided_one_by_one(check: Check) -> None:
    data = {
        series.requests(pod="a"): counter(90, 12),
        series.requests("500", pod="a"): counter(1, 12),
        series.requests("500", pod="b"): counter(9, 12),
    }
    check(steps(), Scenario(data, [recorded(names.ERROR_RATIO, 0.1, 10 * MINUTE)]))


def test_without_requests_there_is_no_ratio(check: Check) -> None:
    data = {series.requests(): constant(100, 12), **series.histogram({10.0: 1.0}, 0, 12)}
    ratios = [names.ERROR_RATIO, names.SLOW_RATIO, names.LATENCY_MEAN, names.LATENCY_QUANTILE, names.BURN_RATE]
    check(steps(), Scenario(data, [absent(name, 10 * MINUTE) for name in ratios] + [recorded(names.JUDGED_RATE, 0, 10 * MINUTE)]))


def test_without_series_nothing_is_recorded_but_the_revision(check: Check) -> None:
    count = Expect('count({__name__=~"perfpolicy:.*"}) by (__name__)', 10 * MINUTE, {f'{{__name__="{names.REVISION}"}}': 1})
    check(steps(), Scenario({"unrelated": constant(1, 12)}, [count]))


FILTERED = a.a_policy(traffic=a.traffic(proxy=a.a_proxy(compress_from=1)))
V1, V2, V3 = (f"{version}" for version in (8.1e18, 8.2e18, 8.3e18))


def proxy(accepted: str, refused: str, listeners: str, clusters: str, pod: str = series.POD) -> dict[str, str]:
    """What a sidecar says of the configuration it was sent; a scrape every 15 s, a step every second one."""
    said = {
        refusals.ACCEPTED_AT: accepted,
        refusals.REFUSED: refused,
        refusals.LISTENERS: listeners,
        refusals.CLUSTERS: clusters,
    }
    return {f'{name}{{namespace="ce-hub", pod="{pod}", instance="{pod}"}}': values for name, values in said.items() if values}


SINCE = f"{V1}x20 {V2}x60"
"""A version that is new after the 20th scrape, which is the 10th step: at 5 m 15 s, seen at 5 m 30 s."""
REFUSALS: dict[str, tuple[dict[str, str], list[int | None]]] = {
    "all is accepted": (proxy("1000x20 2000x60", "0x80", SINCE, SINCE), [0, 0, 0]),
    "refused at once": (proxy("1000x80", "0x20 1x60", f"{V1}x80", SINCE), [0, 1, 1]),
    "refused with the first counter": (proxy("1000x80", "_x21 1x60", f"{V1}x80", SINCE), [0, 1, 1]),
    "accepted and then refused, both between two looks": (
        proxy("1000x20 2000x60", "0x20 1x60", f"{V1}x20 {V2}x60", f"{V1}x20 {V3}x60"),
        [0, 1, 1],
    ),
    "refused and then accepted, both between two looks": (proxy("1000x20 2000x60", "0x20 1x60", SINCE, SINCE), [0, 0, 0]),
    "refused, and later accepted": (proxy("1000x50 2000x30", "0x20 1x60", f"{V1}x50 {V3}x30", f"{V1}x20 {V2}x30 {V3}x30"), [0, 1, 0]),
    "refused long ago, and clusters have gone on": (proxy("1000x80", "3x80", f"{V1}x80", SINCE), [0, 0, 0]),
    "refused at once, and scrapes fail": (
        proxy("1000x25 stale _ 1000x51", "0x20 1x4 stale _ 1x51", f"{V1}x80", SINCE),
        [0, 1, 1],
    ),
    "a pod that never accepted any": (proxy("_x21 0x60", "_x21 3x60", "", ""), [None, 1, 1]),
    "one of two pods": (
        proxy("1000x20 2000x60", "0x80", SINCE, SINCE, "operation-service-7d9f8c6b5-bbbbb")
        | proxy("1000x80", "0x20 1x60", f"{V1}x80", SINCE),
        [0, 1, 1],
    ),
    "a pod that went": (proxy("1000x40 stale", "0x20 1x20 stale", f"{V1}x40", SINCE), [0, 1, None]),
    "a pod of somebody else": (proxy("1000x80", "0x20 1x60", f"{V1}x80", SINCE, "else-7d9f8c6b5-x2x4z"), [None, None, None]),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_proxies_that_refuse_are_counted_until_they_accept(check: Check, case: str) -> None:
    data, counts = REFUSALS[case]
    moments = (5 * MINUTE, 7 * MINUTE, 19 * MINUTE)
    expected = [
        Expect(names.REFUSED, at, {} if count is None else {series.recorded(FILTERED, names.REFUSED): count})
        for at, count in zip(moments, counts, strict=True)
    ]
    check(steps(FILTERED), Scenario(data, expected))


def test_a_policy_without_filters_counts_no_refusals() -> None:
    assert not {names.REFUSED, names.REFUSED_AT} & {rule.name for group in rule_groups(POLICY) for rule in group.rules}


def test_latency_quantiles_mean_and_slow_share(check: Check) -> None:
    data = {series.requests(): counter(10, 12), **series.histogram({50.0: 0.5, 100.0: 0.9, 500.0: 0.98, 2500.0: 1.0}, 10, 12, mean_ms=80)}
    expected = [
        recorded(names.LATENCY_MEAN, 0.08, 10 * MINUTE),
        recorded(names.SLOW_RATIO, 0.02, 10 * MINUTE),
        Expect(
            names.LATENCY_QUANTILE,
            10 * MINUTE,
            {
                series.recorded(POLICY, names.LATENCY_QUANTILE, quantile="0.5"): 0.05,
                # In the bucket (250 ms, 500 ms] at (0.95 - 0.9) / (0.98 - 0.9) of its width.
                series.recorded(POLICY, names.LATENCY_QUANTILE, quantile="0.95"): 0.25 + 0.25 * 0.625,
                series.recorded(POLICY, names.LATENCY_QUANTILE, quantile="0.99"): 1 + 1.5 * 0.5,
            },
        ),
    ]
    check(steps(), Scenario(data, expected))


def test_old_and_new_spelling_of_a_bucket_bound_are_one_bucket(check: Check) -> None:
    new = series.histogram({100.0: 0.8, 1000.0: 1.0}, 10, 12)
    old = {name.replace('.0", ', '", ').replace("pod=", 'pod="old", x='): values for name, values in new.items()}
    assert any('le="500"' in name for name in old)
    data = {series.requests(): counter(20, 12), **new, **old}
    check(steps(), Scenario(data, [recorded(names.SLOW_RATIO, 0, 10 * MINUTE), recorded(names.LATENCY_MEAN, 0.05, 10 * MINUTE)]))


def test_series_of_others_in_the_policys_name_change_none_of_its_figures(check: Check) -> None:
    """One more label makes a step of its own; a bucket needs none, for its bound is one."""
    forged = constant(1e6, 12)
    data = {
        series.requests(): counter(8, 12),
        series.requests("500"): counter(2, 12),
        **series.histogram({500.0: 0.2, 1000.0: 1.0}, 10, 12, mean_ms=600),
        series.recorded(POLICY, names.JUDGED_STEP, forged="1"): forged,
        series.recorded(POLICY, names.DURATION_BUCKET_STEP, le="500", forged="1"): forged,
        series.recorded(POLICY, names.DURATION_BUCKET_STEP, le="500.0"): forged,
        series.recorded(POLICY, names.DURATION_BUCKET_STEP, le="7"): forged,
    }
    true = [
        recorded(names.ERROR_RATIO, 0.2, 10 * MINUTE),
        Expect(f'{names.JUDGED_RATE}{{forged=""}}', 10 * MINUTE, {series.recorded(POLICY, names.JUDGED_RATE): 10}),
        Expect(
            f'{names.LATENCY_QUANTILE}{{quantile="0.5",forged=""}}',
            10 * MINUTE,
            {series.recorded(POLICY, names.LATENCY_QUANTILE, quantile="0.5"): 0.5 + 0.5 * 0.375},
        ),
    ]
    check(steps(), Scenario(data, true))


@pytest.mark.parametrize("own", [{"cluster": "a.b"}, {}], ids=["beside other clusters", "where the label is external"])
def test_the_classes_matchers_tell_clusters_apart_and_are_on_what_is_recorded(check: Check, own: dict[str, str]) -> None:
    """A Prometheus of one cluster does not have its external label on what it scrapes; one of several has others' series, too."""
    policy = a.a_policy(metrics=a.a_metrics_source(provider=a.a_provider(matchers=(("cluster", "a.b"), ("region", "")))))
    data = {
        series.requests(**own): counter(8, 12),
        series.requests("500", **own): counter(2, 12),
        series.requests(cluster="aXb"): counter(90, 12),
        series.requests(region="north"): counter(90, 12),
        series.container("container_memory_working_set_bytes", **own): constant(256 * 2**20, 12),
        series.container("container_memory_working_set_bytes", cluster="aXb"): constant(512 * 2**20, 12),
    }
    expected = {names.ERROR_RATIO: 0.2, names.JUDGED_RATE: 10, names.MEMORY_RATIO: 0.5}
    found = [Expect(name, 10 * MINUTE, {series.recorded(policy, name, cluster="a.b"): value}) for name, value in expected.items()]
    check(steps(policy), Scenario(data, found))


def test_a_nan_of_others_does_not_get_into_the_policys_own_errors(check: Check) -> None:
    """Where there are no errors yet the judged requests say that there were none: whatever else stands in the policy's name."""
    data = {series.requests(): counter(8, 12), series.recorded(POLICY, names.JUDGED_STEP, forged="1"): " ".join(["NaN"] * 12)}
    check(steps(), Scenario(data, [recorded(names.ERRORS_STEP, 0, 5 * MINUTE), recorded(names.ERROR_RATIO, 0, 10 * MINUTE)]))


def test_resources_are_shares_of_the_limit(check: Check) -> None:
    other = "operation-service-7d9f8c6b5-bbbbb"
    data = {
        series.container("container_cpu_usage_seconds_total"): counter(0.1, 12),
        series.container("container_cpu_usage_seconds_total", other): counter(0.3, 12),
        series.container("container_memory_working_set_bytes"): constant(128 * 2**20, 12),
        series.container("container_memory_working_set_bytes", other): constant(256 * 2**20, 12),
    }
    check(steps(), Scenario(data, [recorded(names.CPU_RATIO, 0.4, 10 * MINUTE), recorded(names.MEMORY_RATIO, 0.5, 10 * MINUTE)]))


def test_cpu_series_of_a_pods_former_container_are_not_added(check: Check) -> None:
    data = {
        series.container("container_cpu_usage_seconds_total", id="old"): counter(0.1, 12, 100),
        series.container("container_cpu_usage_seconds_total", id="new"): counter(0.1, 12),
    }
    check(steps(), Scenario(data, [recorded(names.CPU_RATIO, 0.2, 10 * MINUTE)]))


def test_grpc_errors_under_http_200_count_once(check: Check) -> None:
    policy = a.a_policy(service=a.a_service(ports=(a.a_port("grpc", 80, 8080, model.Protocol.GRPC),)))
    data = {
        series.requests(request_protocol="grpc", grpc_response_status="0"): counter(8, 12),
        series.requests(request_protocol="grpc", grpc_response_status="14"): counter(1, 12),
        series.requests("503", request_protocol="grpc", grpc_response_status="14"): counter(1, 12),
        series.requests(request_protocol="grpc", grpc_response_status="5"): counter(10, 12),
    }
    check(steps(policy), Scenario(data, [recorded(names.ERROR_RATIO, 0.1, 10 * MINUTE)]))


@pytest.mark.parametrize(("maximum", "ratio"), [(None, 0.1), (1, 0)])
def test_resource_exhausted_is_ours_only_with_a_limit(check: Check, maximum: int | None, ratio: float) -> None:
    proxy = a.a_proxy(concurrency=model.Concurrency(maximum, adaptive=False) if maximum else None)
    service = a.a_service(ports=(a.a_port("grpc", 80, 8080, model.Protocol.GRPC),))
    policy = a.a_policy(service=service, sli=a.an_sli(grpc_bad_codes=(8, 14)), traffic=a.traffic(proxy=proxy))
    data = {
        series.requests(request_protocol="grpc", grpc_response_status="0"): counter(9, 12),
        series.requests(request_protocol="grpc", grpc_response_status="8"): counter(1, 12),
    }
    check(steps(policy), Scenario(data, [recorded(names.ERROR_RATIO, ratio, 10 * MINUTE)]))


def test_the_source_reporter_sees_requests_that_reached_no_pod(check: Check) -> None:
    policy = a.a_policy(sli=a.an_sli(reporter=model.Reporter.SOURCE))
    lost = series.requests("503", "UH", "source", destination_workload="unknown", destination_workload_namespace="unknown")
    data = {series.requests(reporter="source"): counter(9, 12), lost: counter(1, 12), series.requests("500"): counter(50, 12)}
    check(steps(policy), Scenario(data, [recorded(names.ERROR_RATIO, 0.1, 10 * MINUTE)]))


def test_pool_overflow_is_ours_only_with_a_connection_pool(check: Check) -> None:
    source = a.an_sli(reporter=model.Reporter.SOURCE)
    data = {series.requests(reporter="source"): counter(9, 12), series.requests("503", "UO", "source"): counter(1, 12)}
    check(steps(a.a_policy(sli=source)), Scenario(data, [recorded(names.ERROR_RATIO, 0.1, 10 * MINUTE)]))
    pooled = a.a_policy(sli=source, traffic=a.traffic(connection_pool=a.a_connection_pool()))
    check(steps(pooled), Scenario(data, [recorded(names.ERROR_RATIO, 0, 10 * MINUTE)]))


HALF_MINUTE, BLOCK = timedelta(seconds=30), timedelta(minutes=5)


def recorded_steps(minutes: float, judged: float, errors: float, slow: float) -> dict[str, str]:
    """What the first tier records of so many requests a step."""
    bucket = names.DURATION_BUCKET_STEP
    return {
        series.recorded(POLICY, names.JUDGED_STEP): constant(judged, minutes, HALF_MINUTE),
        series.recorded(POLICY, names.ERRORS_STEP): constant(errors, minutes, HALF_MINUTE),
        series.recorded(POLICY, bucket, le="500"): constant(judged - slow, minutes, HALF_MINUTE),
        series.recorded(POLICY, bucket, le="+Inf"): constant(judged, minutes, HALF_MINUTE),
    }


def test_blocks_burn_rates_and_periods_follow_from_steps(check: Check) -> None:
    data = recorded_steps(190, judged=600, errors=6, slow=30)
    at = 180 * MINUTE
    both = {"availability": 360.0, "fast": 1800.0}
    expected = [
        recorded(names.JUDGED_BLOCK, 6000, at),
        recorded(names.ERRORS_BLOCK, 60, at),
        Expect(
            f'{names.BURN_RATE}{{window="2h"}}',
            at,
            {
                series.recorded(POLICY, names.BURN_RATE, objective="availability", window="2h"): 10,
                series.recorded(POLICY, names.BURN_RATE, objective="fast", window="2h"): 5,
            },
        ),
        # Blocks at 0, 5, ... 180 minutes; the first one has nothing behind it (read one step late), the rest is whole.
        Expect(names.PERIOD_BLOCKS, at, {series.recorded(POLICY, names.PERIOD_BLOCKS, objective=name): 36 for name in both}),
        Expect(names.PERIOD_TOTAL, at, {series.recorded(POLICY, names.PERIOD_TOTAL, objective=name): 36 * 6000 for name in both}),
        Expect(
            names.PERIOD_BAD,
            at,
            {
                series.recorded(POLICY, names.PERIOD_BAD, objective="availability"): 36 * 60,
                series.recorded(POLICY, names.PERIOD_BAD, objective="fast"): 36 * 300,
            },
        ),
    ]
    check(blocks(), Scenario(data, expected, interval=HALF_MINUTE, evaluation=BLOCK))


@pytest.mark.parametrize(
    ("evaluation", "share"),
    [
        pytest.param(BLOCK, 1, id="each holds its own steps"),
        pytest.param(2 * BLOCK, 1, id="every second is missed and each holds those of two"),
        pytest.param(3 * BLOCK, 2 / 3, id="of two that are missed one is lost and nothing counted twice"),
    ],
)
def test_a_block_holds_the_steps_of_one_that_was_missed_before_it(check: Check, evaluation: timedelta, share: float) -> None:
    data, at = recorded_steps(190, judged=600, errors=6, slow=30), 180 * MINUTE
    expected = [
        Expect(f"sum_over_time({name}[3h])", at, {series.labels_of(POLICY, **bound): 360 * each * share})
        for name, bound, each in (
            (names.JUDGED_BLOCK, {}, 600),
            (names.ERRORS_BLOCK, {}, 6),
            (f'{names.DURATION_BUCKET_BLOCK}{{le="500"}}', {"le": "500"}, 570),
            (f'{names.DURATION_BUCKET_BLOCK}{{le="+Inf"}}', {"le": "+Inf"}, 600),
        )
    ]
    check(blocks(), Scenario(data, expected, interval=HALF_MINUTE, evaluation=evaluation))


def test_blocks_older_than_a_day_are_counted_by_the_hour(check: Check) -> None:
    # Three days of blocks, in the middle one none for six hours: 864 - 72.
    hole = f"1x{2 * 288 - 72} _x72 1x{288 - 1}"
    data = {series.recorded(POLICY, names.ERRORS_BLOCK): hole}
    at = 72 * 60 * MINUTE - BLOCK
    rule = next(
        rule
        for group in blocks()
        for rule in group.rules
        if rule.name == names.PERIOD_BLOCKS and rule.labels["objective"] == "availability"
    )
    counted = Expect(f"abs({rule.expr} - {864 - 72}) <= bool 12", at, {series.labels_of(POLICY): 1})
    check((), Scenario(data, [counted], interval=BLOCK, evaluation=BLOCK))


def test_periods_are_weighted_by_traffic_not_means_of_ratios(check: Check) -> None:
    # A quiet hour with half the requests failing, then a busy one without errors: 60 of 72,120 is 0.083 %, the mean of ratios 25 %.
    quiet, busy = 120, 120
    data = {
        series.recorded(POLICY, names.JUDGED_STEP): f"1x{quiet} 600x{busy}",
        series.recorded(POLICY, names.ERRORS_STEP): f"0.5x{quiet} 0x{busy}",
    }
    ratio = Expect(
        f'{names.PERIOD_BAD}{{objective="availability"}} / ignoring() {names.PERIOD_TOTAL}{{objective="availability"}} < bool 0.001',
        120 * MINUTE,
        {series.labels_of(POLICY, objective="availability"): 1},
    )
    check(blocks(), Scenario(data, [ratio], interval=HALF_MINUTE, evaluation=BLOCK))


def test_a_nan_in_a_raw_series_does_not_poison_the_period(check: Check) -> None:
    data = {series.requests(): f"{counter(10, 5)} NaN NaN NaN {counter(10, 5, 4000)}"}
    finite = Expect(f"count_over_time(({names.JUDGED_STEP} != {names.JUDGED_STEP})[12m:30s])", 11 * MINUTE, {})
    check(steps(), Scenario(data, [finite]))


def test_renaming_an_objective_keeps_its_history() -> None:
    renamed = a.a_policy(objectives=(a.an_objective(name="uptime"),))
    kept = {names.JUDGED_STEP, names.ERRORS_STEP, names.JUDGED_BLOCK, names.ERRORS_BLOCK}
    assert history(renamed, kept) == history(a.a_policy(), kept)


def history(policy: model.Policy, kept: set[str]) -> list[dict[str, object]]:
    found = [rule.to_dict() for group in rule_groups(policy) for rule in group.rules if rule.name in kept]
    assert len(found) == len(kept)
    return found
