"""Legal specs, and traffic, that experience advises against: each with symptom, impact and solution. Pure; `lint` prints those of the
spec, the status lists all.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from math import ceil
from typing import Final

from perfpolicy.policy import model
from perfpolicy.units import format_duration


@dataclass(frozen=True, slots=True, order=True)
class AntiPattern:
    """One finding. `name` is stable and CamelCase, `path` is the field to look at."""

    name: str
    path: str
    symptom: str
    impact: str
    solution: str


AGGRESSIVE_POLLING: Final = AntiPattern(
    name="AggressivePolling",
    path="spec.traffic.rateLimit",
    symptom="more than a fifth of the requests are refused by limits (429), and callers send them all the same",
    impact="callers that ask again at once get no answer sooner, and the proxies' work for them is taken from all others",
    solution="let callers wait as Retry-After says, longer each time, or be told of changes instead of asking; raise a limit too low",
)
"""Of the traffic, so found where samples are judged (evaluate/polling.py). Without figures, each of which would be a status write."""
MEMORY_GROWTH: Final = AntiPattern(
    name="MemoryGrowth",
    path="spec.workload",
    symptom="memory was above the day before all day long, and at this pace fills its limit within two days",
    impact="pods are killed at the limit, one after the other and with the requests they have, and begin anew to grow",
    solution="let a heap profile tell what is kept and never freed: caches without a bound, sessions, listeners; till then restart in time",
)
"""Of what was measured, likewise (evaluate/growing.py)."""


def antipatterns(policy: model.Policy) -> tuple[AntiPattern, ...]:
    """What the policy does against advice, in the order of the rules below; each name once, at its first occurrence."""
    found = (next(rule(policy), None) for rule in _RULES)
    return tuple(finding for finding in found if finding is not None)


def _retries_outlast_timeout(policy: model.Policy) -> Iterator[AntiPattern]:
    for index, route in enumerate(policy.traffic.routes):
        if not route.timeout or not route.retries or not route.retries.attempts:
            continue
        tries = route.retries.attempts + 1
        total = route.retries.per_try_timeout * tries
        if total > route.timeout:
            each, limit = format_duration(route.retries.per_try_timeout), format_duration(route.timeout)
            yield AntiPattern(
                name="RetriesOutlastTimeout",
                path=f"spec.traffic.routes[{index}].retries" if len(policy.traffic.routes) > 1 else "spec.traffic.retries",
                symptom=f"{tries} tries of {each} take {format_duration(total)}, but the route {route.name} ends after {limit}",
                impact="the last tries are cut off: they load the workload and cannot succeed",
                solution=f"make perTryTimeout at most {format_duration(route.timeout / tries)}, attempts fewer, or timeout longer",
            )


def _unlimited_concurrency(policy: model.Policy) -> Iterator[AntiPattern]:
    pool = policy.traffic.connection_pool
    if policy.traffic.proxy.concurrency is None and (pool is None or not (pool.max_connections or pool.max_requests)):
        yield AntiPattern(
            name="UnlimitedConcurrency",
            path="spec.traffic.concurrency",
            symptom="callers may open any number of connections and requests",
            impact="a slow workload collects requests until it runs out of memory",
            solution="set spec.traffic.concurrency.max, or limit each caller by connectionPool.maxConnections or maxRequests",
        )


def _missing_rate_limit(policy: model.Policy) -> Iterator[AntiPattern]:
    proxy = policy.traffic.proxy
    if policy.service.speaks_http and policy.in_mesh and not (proxy.rate_limits or proxy.global_limits):
        yield AntiPattern(
            name="MissingRateLimit",
            path="spec.traffic.rateLimit",
            symptom="one client may send any number of requests",
            impact="a client in a loop takes the capacity of all others",
            solution="set spec.traffic.rateLimit.local with by: [{type: RemoteAddress}]",
        )


def _unbounded_wait(policy: model.Policy) -> Iterator[AntiPattern]:
    for index, route in enumerate(policy.traffic.routes):
        if route.redirect is None and not route.timeout:
            yield AntiPattern(
                name="UnboundedWait",
                path=f"spec.traffic.routes[{index}].timeout",
                symptom=f"requests of route {route.name} may take for ever",
                impact="callers and connections pile up behind one slow dependency",
                solution="set spec.traffic.timeout",
            )


def _memory_accumulation(policy: model.Policy) -> Iterator[AntiPattern]:
    if policy.workload.limits.memory is None:
        yield AntiPattern(
            name="MemoryAccumulation",
            path="spec.workload",
            symptom=f"container {policy.workload.container} has no memory limit",
            impact="a leak takes the node's memory and evicts its neighbours instead of restarting the leaking pod",
            solution="set resources.limits.memory",
        )


def _blocked_drains(policy: model.Policy) -> Iterator[AntiPattern]:
    budget = policy.disruption_budget
    if budget is None or _lets_go(budget, _fewest(policy)):
        return
    yield AntiPattern(
        name="BlockedDrains",
        path="spec.disruptionBudget",
        symptom="with the fewest pods it may have, the workload cannot spare one",
        impact="nodes under its pods cannot be drained: upgrades of the cluster hang until somebody deletes pods by hand",
        solution='set maxUnavailable: "1", or run more pods than minAvailable',
    )


def _fewest(policy: model.Policy) -> int | None:
    """Pods the workload has at least; None where only its owner knows."""
    if policy.scaling is not None:
        return policy.scaling.minimum
    return policy.workload.owned.replicas if policy.workload.owned is not None else None


def _lets_go(budget: model.DisruptionBudget, pods: int | None) -> bool:
    """Whether one of so many pods may be evicted. Shares round up, as Kubernetes rounds them."""
    if budget.max_unavailable is not None:
        return budget.max_unavailable > 0
    least = budget.min_available or 0
    if isinstance(least, Decimal):
        return least < 1 and (pods is None or ceil(pods * least) < max(pods, 1))
    return pods is None or least < max(pods, 1)


_RULES: tuple[Callable[[model.Policy], Iterator[AntiPattern]], ...] = (
    _retries_outlast_timeout,
    _unbounded_wait,
    _unlimited_concurrency,
    _missing_rate_limit,
    _memory_accumulation,
    _blocked_drains,
)
