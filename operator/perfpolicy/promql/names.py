"""Names of the recorded series: what the rules write and what the operator reads. The one place both sides agree on.

Every series carries `policy`, `policy_namespace` and `policy_uid`. Not `namespace`: prometheus-operator's enforcedNamespaceLabel rewrites
that one. The labels hold the object's identity and no display field, so renaming an objective or a quantile never cuts a policy off its
history (only derived series carry `objective`, `quantile` or `window`; the steps and blocks they are summed from do not).

Two tiers. A *step* is one rule interval (30 s) read from raw counters; a *block* is ten steps (5 m) summed from steps. Steps serve
thresholds and page alerts, blocks serve windows of hours and days.
"""

from typing import Final

POLICY: Final = "policy"
NAMESPACE: Final = "policy_namespace"
UID: Final = "policy_uid"
IDENTITY: Final = (POLICY, NAMESPACE, UID)

QUANTILE: Final = "quantile"
OBJECTIVE: Final = "objective"
WINDOW: Final = "window"
BOUND: Final = "le"

REVISION: Final = "perfpolicy:rules:revision"
"""Always present while the rules are loaded; the value says which rules."""

OFFERED_STEP: Final = "perfpolicy:offered:step"
JUDGED_STEP: Final = "perfpolicy:judged:step"
ERRORS_STEP: Final = "perfpolicy:errors:step"
DURATION_BUCKET_STEP: Final = "perfpolicy:duration_milliseconds_bucket:step"
DURATION_NATIVE_STEP: Final = "perfpolicy:duration_seconds:step"
"""A native histogram; only where the source is one."""
DURATION_SUM_STEP: Final = "perfpolicy:duration_milliseconds_sum:step"

JUDGED_BLOCK: Final = "perfpolicy:judged:block"
ERRORS_BLOCK: Final = "perfpolicy:errors:block"
DURATION_BUCKET_BLOCK: Final = "perfpolicy:duration_milliseconds_bucket:block"

OFFERED_RATE: Final = "perfpolicy:offered:rate"
SERVED_RATE: Final = "perfpolicy:served:rate"
JUDGED_RATE: Final = "perfpolicy:judged:rate"
ERROR_RATIO: Final = "perfpolicy:errors:ratio"
SLOW_RATIO: Final = "perfpolicy:slow:ratio"
LATENCY_MEAN: Final = "perfpolicy:latency_seconds:mean"
LATENCY_QUANTILE: Final = "perfpolicy:latency_seconds:quantile"
CPU_RATIO: Final = "perfpolicy:cpu:ratio"
MEMORY_RATIO: Final = "perfpolicy:memory:ratio"

MEMORY_FLOOR: Final = "perfpolicy:memory_floor:block"
"""The least memory of the last hour, of the limit."""
MEMORY_GAIN: Final = "perfpolicy:memory_gain:block"
"""By how much that is more than a day before."""
MEMORY_GROWTH: Final = "perfpolicy:memory_growth:ratio"
"""What it is expected to gain in two days more, of the room that is left."""

REFUSED_AT: Final = "perfpolicy:proxy_refused:step"
"""By `pod`: there while the proxy goes on with listeners it accepted before it refused others; the value is when it accepted them (ms)."""
REFUSED: Final = "perfpolicy:proxies_refused:count"
"""How many such proxies there are, of a policy that configures them."""

BURN_RATE: Final = "perfpolicy:budget_burn:rate"
BUDGET_LEFT: Final = "perfpolicy:budget_left:ratio"
"""For people and dashboards; the operator computes its own, with the window's coverage."""
PERIOD_BAD: Final = "perfpolicy:budget_bad:period"
PERIOD_TOTAL: Final = "perfpolicy:budget_total:period"
PERIOD_BLOCKS: Final = "perfpolicy:budget_blocks:period"
