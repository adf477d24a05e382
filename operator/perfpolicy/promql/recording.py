"""Recording rules in two tiers: steps, blocks summed from steps, and the values thresholds are judged by.

A step is the difference between a counter's newest sample now and its newest sample one rule interval ago, so neighbouring steps share a
sample and their sum is the counter's whole increase: `increase(x[5m])` every 5 m never sees what happens between two windows, and its
extrapolation loses what a failed scrape hides. The newest sample is looked for in a range, not by a plain selector: a failed scrape marks
all series of its target stale, and a plain selector then loses two whole steps. Losses that stay: what a pod counted before its first
scrape and after its last. Measured per cause in docs/metrics.md.

Longer windows are sums of steps, numerator and denominator apart, so traffic weighs them; ratios are never averaged. Recorded series are
summed over time, never over series: others can write series in a policy's name (see `summed`).
"""

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Final

from perfpolicy.policy import model
from perfpolicy.promql import names, sources
from perfpolicy.promql.buckets import INFINITE, bound_at_least, bound_patterns, one_of, recorded_bounds
from perfpolicy.promql.expr import Expr, Matcher, Selector, aggregate, binary, call, number, relabel, seconds, total_of
from perfpolicy.promql.maintenance import lateness, nothing_counted, outside
from perfpolicy.promql.rule import Rule, block_of, bucket_sum, bucket_sums, one_spelling, own, record, summed, with_bounds
from perfpolicy.promql.scope import containers

CPU_WINDOW_MIN: Final = timedelta(seconds=45)
"""The kubelet refreshes a container's CPU counter every 10 to 20 s, however often it is scraped (seen: median 14.6 s, 99 % within 20.5 s),
and a rate needs two values. In a shorter range CPU is unknown more often than not."""


def steps(policy: model.Policy) -> Iterator[Rule]:
    """Increases over one rule interval, from raw counters. An absent error series reads as 0 only where requests were counted."""
    raw = sources.requests(policy)
    yield _counted(policy, names.OFFERED_STEP, _request_step(policy, raw.offered, raw.offered))
    yield _counted(policy, names.JUDGED_STEP, _request_step(policy, raw.judged, raw.offered))
    # Counted, not summed: a NaN somebody else wrote in the policy's name would stay in its own errors for a whole window.
    nothing = aggregate("count", own(policy, names.JUDGED_STEP).instant()) * number(0)
    parts = [_request_step(policy, selector, raw.offered).otherwise(nothing) for selector in raw.bad]
    yield _counted(policy, names.ERRORS_STEP, total_of(parts) if parts else nothing)
    histogram = sources.durations(policy)
    if histogram is not None:
        yield from _duration_steps(policy, histogram)


def _duration_steps(policy: model.Policy, histogram: sources.Durations) -> Iterator[Rule]:
    """The histogram of a step as classic buckets of milliseconds, whatever the source's is."""
    bounds = recorded_bounds(policy)
    if histogram.buckets is None:
        yield from _native_steps(policy, histogram.total, bounds)
        return
    if histogram.unit == 1:
        selected = histogram.buckets.where(one_of(*bound_patterns(*bounds), INFINITE))
        yield _counted(policy, names.DURATION_BUCKET_STEP, aggregate("sum", one_spelling(_differences(policy, selected)), (names.BOUND,)))
        yield _counted(policy, names.DURATION_SUM_STEP, _step(policy, histogram.total))
        return
    for bound in bounds:
        selected = histogram.buckets.where(one_of(*bound_patterns(bound / histogram.unit)))
        yield _counted(policy, names.DURATION_BUCKET_STEP, _step(policy, selected), **{names.BOUND: f"{bound:f}"})
    yield _counted(policy, names.DURATION_BUCKET_STEP, _step(policy, histogram.buckets.where(one_of(INFINITE))), **{names.BOUND: "+Inf"})
    yield _counted(policy, names.DURATION_SUM_STEP, _step(policy, histogram.total) * number(histogram.unit))


def _native_steps(policy: model.Policy, histogram: Selector, bounds: tuple[Decimal, ...]) -> Iterator[Rule]:
    """A native histogram's difference, recorded as it is, and the shares of it below each bound (interpolated within its own buckets)."""
    now, before = _newest(policy, histogram), _newest(policy, histogram, earlier=True)
    grown = call("histogram_count", now).at_least(call("histogram_count", before))
    yield _counted(policy, names.DURATION_NATIVE_STEP, aggregate("sum", (now - before).also(grown)))
    step = own(policy, names.DURATION_NATIVE_STEP).instant()
    count = call("histogram_count", step)
    for bound in bounds:
        below = call("histogram_fraction", number(0), number(bound / 1000), step) * count
        # The fraction of nothing is NaN.
        found = below.at_least(0).otherwise(count * number(0))
        yield record(policy, names.DURATION_BUCKET_STEP, found, **{names.BOUND: f"{bound:f}"})
    yield record(policy, names.DURATION_BUCKET_STEP, count, **{names.BOUND: "+Inf"})
    yield record(policy, names.DURATION_SUM_STEP, call("histogram_sum", step) * number(1000))


def blocks(policy: model.Policy) -> Iterator[Rule]:
    """Sums of ten steps. Read one step late: a step still being written when the block is summed would be lost to every window.

    Where the block before is missing (an evaluation was missed) a block sums twenty: its steps are there, and no other block holds them.
    Missing is what half a block around the time of the one before does not show, for a group that moves within its interval.
    """
    late, length = policy.metrics.provider.rule_interval, block_of(policy.metrics.provider)
    nothing = nothing_counted(policy)

    def block(name: str, series: str, bounds: tuple[Matcher, ...] = (), *values: str) -> Rule:
        read = own(policy, series).where(*bounds).back(late)
        before = call("last_over_time", own(policy, name).where(*bounds).over(length * 3 / 2))
        twice = binary(call("sum_over_time", read.over(length * 2)), "unless", before)
        total = twice.otherwise(call("sum_over_time", read.over(length)))
        if nothing is not None:
            for zero in [relabel(nothing, names.BOUND, value) for value in values] or [nothing]:
                total = total.otherwise(zero)
        return record(policy, name, total)

    yield block(names.JUDGED_BLOCK, names.JUDGED_STEP)
    yield block(names.ERRORS_BLOCK, names.ERRORS_STEP)
    bounds = {bound_at_least(policy, objective.threshold) for objective in policy.objectives if objective.threshold is not None}
    if bounds:
        wanted, values = with_bounds(*sorted(bounds), infinite=True), (*(f"{bound:f}" for bound in sorted(bounds)), "+Inf")
        yield block(names.DURATION_BUCKET_BLOCK, names.DURATION_BUCKET_STEP, (wanted,), *values)


def window_values(policy: model.Policy) -> Iterator[Rule]:
    """What thresholds and the health score are judged by, over spec.thresholds.window. Absent, not NaN, where there were no requests."""
    window = policy.thresholds.window
    per_second = seconds(policy.metrics.provider.rule_interval)

    def mean_step(series: str) -> Expr:
        return call("avg_over_time", own(policy, series).over(window))

    yield record(policy, names.OFFERED_RATE, mean_step(names.OFFERED_STEP) / per_second)
    yield record(policy, names.JUDGED_RATE, mean_step(names.JUDGED_STEP) / per_second)
    yield record(policy, names.SERVED_RATE, (mean_step(names.JUDGED_STEP) - mean_step(names.ERRORS_STEP)) / per_second)
    judged = summed(policy, names.JUDGED_STEP, window).above(0)
    yield record(policy, names.ERROR_RATIO, summed(policy, names.ERRORS_STEP, window) / judged)
    if not policy.metrics.bounds:
        return
    counted = bucket_sum(policy, names.DURATION_BUCKET_STEP, window).above(0)
    yield record(policy, names.LATENCY_MEAN, summed(policy, names.DURATION_SUM_STEP, window) / counted / number(1000))
    fast = bucket_sum(policy, names.DURATION_BUCKET_STEP, window, bound_at_least(policy, policy.metrics.slow_request))
    yield record(policy, names.SLOW_RATIO, call("clamp_min", (counted - fast) / counted, number(0)))
    buckets = bucket_sums(policy, names.DURATION_BUCKET_STEP, window)
    for limit in policy.thresholds.latency:
        value = call("histogram_quantile", number(limit.quantile), buckets).at_least(0) / number(1000)
        yield record(policy, names.LATENCY_QUANTILE, value, **{names.QUANTILE: f"{limit.quantile.normalize():f}"})


def resources(policy: model.Policy) -> Iterator[Rule]:
    """Use of the container's limit (request where it has no limit): the mean pod for CPU, which is what scaling follows; the fullest pod
    for memory, for one pod over its limit is killed. Left out where the pod spec has neither, or no threshold asks for it.
    """
    provider, workload = policy.metrics.provider, policy.workload
    cpu = workload.limits.cpu or workload.requests.cpu
    memory = workload.limits.memory or workload.requests.memory
    if policy.thresholds.cpu is not None and cpu:
        window = max(policy.thresholds.window, provider.scrape_interval * 4, CPU_WINDOW_MIN)
        used = call("rate", containers(policy, "container_cpu_usage_seconds_total").over(window))
        mean_pod = aggregate("avg", aggregate("max", used, ("pod",))) / number(cpu)
        yield record(policy, names.CPU_RATIO, outside(policy, mean_pod, window))
    if policy.thresholds.memory is not None and memory:
        used = containers(policy, "container_memory_working_set_bytes").instant()
        yield record(policy, names.MEMORY_RATIO, aggregate("max", used) / number(memory))


def _counted(policy: model.Policy, series: str, expr: Expr, **labels: str) -> Rule:
    """A step read from raw counters."""
    return record(policy, series, outside(policy, expr), **labels)


def _request_step(policy: model.Policy, selector: Selector, offered: Selector) -> Expr:
    """The increase of request counters over one rule interval, with two cases that matter where errors are rare.

    A series that is new on a proxy we already knew was born since, so its whole value is an increase: the first error of a pod is counted.
    Where there is no difference to take (a proxy restarted, or is new itself) the samples at hand are extrapolated; what the proxy counted
    before we knew it is history and never becomes a step.
    """
    step, scrape = policy.metrics.provider.rule_interval, policy.metrics.provider.scrape_interval
    now, before = _newest(policy, selector), _newest(policy, selector, earlier=True)
    known = _newest(policy, offered, earlier=True)
    born = binary(now, "unless", before).also(known, "on (job, instance)")
    late = lateness(policy.metrics.provider)
    estimated = call("increase", selector.back(late).over(step + scrape)) * seconds(step) / seconds(step + scrape)
    return aggregate("sum", (now - before).at_least(0).otherwise(born).otherwise(estimated)).at_least(0)


def _step(policy: model.Policy, selector: Selector) -> Expr:
    """The increase over one rule interval."""
    return aggregate("sum", _differences(policy, selector))


def _differences(policy: model.Policy, selector: Selector) -> Expr:
    """Each series' increase over one rule interval. Comparing drops NaN and negative differences before they poison a sum."""
    return (_newest(policy, selector) - _newest(policy, selector, earlier=True)).at_least(0)


def _newest(policy: model.Policy, selector: Selector, earlier: bool = False) -> Expr:
    """Each series' newest sample, now or one rule interval earlier; two failed scrapes in a row are bridged."""
    step, scrape = policy.metrics.provider.rule_interval, policy.metrics.provider.scrape_interval
    late = lateness(policy.metrics.provider)
    return call("last_over_time", selector.back(late + step if earlier else late).over(step + scrape * 2))
