"""Snapshots as a backend would answer them, built by naming only what a test is about."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from perfpolicy.evaluate.observation import Rows, Snapshot, add_series
from perfpolicy.policy import model
from perfpolicy.promql import names
from perfpolicy.promql.rules import revision

NOW = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)
STEP = timedelta(seconds=30)

GOOD: Mapping[str, float] = {
    names.OFFERED_RATE: 1500,
    names.JUDGED_RATE: 1500,
    names.SERVED_RATE: 1490,
    names.ERROR_RATIO: 0.005,
    names.SLOW_RATIO: 0.01,
    names.LATENCY_MEAN: 0.1,
    names.CPU_RATIO: 0.5,
    names.MEMORY_RATIO: 0.5,
    f"{names.LATENCY_QUANTILE}/quantile=0.5": 0.05,
    f"{names.LATENCY_QUANTILE}/quantile=0.95": 0.4,
    f"{names.LATENCY_QUANTILE}/quantile=0.99": 0.9,
    f"{names.PERIOD_BAD}/objective=availability": 10,
    f"{names.PERIOD_TOTAL}/objective=availability": 100_000,
    f"{names.PERIOD_BLOCKS}/objective=availability": 8640,
    f"{names.BURN_RATE}/objective=availability/window=1h": 2,
}
"""Values by series, with distinguishing labels after slashes: everything is met, a tenth of the budget is spent."""


def answer(
    policy: model.Policy,
    changes: Mapping[str, float | Sequence[Any] | None] | None = None,
    at: datetime = NOW,
    uid: str | None = None,
    samples: int = 4,
) -> Snapshot:
    """A snapshot of one policy: GOOD with changes. None leaves a series out; a list gives raw samples as they are."""
    rows: Rows = {}
    wanted: dict[str, Any] = {names.REVISION: revision(policy), **GOOD, **(changes or {})}
    for text, value in wanted.items():
        if value is not None:
            series, *labels = text.split("/")
            raw = (
                value if isinstance(value, list) else [[(at - STEP * n).timestamp(), repr(float(value))] for n in reversed(range(samples))]
            )
            add_series(rows, labels_of(policy, series, uid, **dict(label.split("=") for label in labels)), raw)
    return Snapshot(rows)


def labels_of(policy: model.Policy, series: str, uid: str | None = None, **labels: str) -> dict[str, str]:
    """The labels a backend puts on a recorded series."""
    return {
        "__name__": series,
        names.POLICY: policy.key.name,
        names.NAMESPACE: policy.key.namespace,
        names.UID: policy.identity.uid if uid is None else uid,
        **labels,
    }
