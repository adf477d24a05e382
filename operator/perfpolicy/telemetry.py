"""What the operator measures of itself, by the names Prometheus sees. Each is written in one place only, named beside it.

Values that are looked up rather than counted (queue, watches, policies, leader) are asked for when Prometheus scrapes: handlers/gauges.py.
Labels are bounded: verbs, kinds, codes and results, never a name or a namespace. What it says of each policy is in evaluate/exposition.py.
"""

from enum import StrEnum
from typing import Final

from prometheus_client import Counter, Histogram, disable_created_metrics

disable_created_metrics()  # type: ignore[no-untyped-call] # a second series for each counter, which nobody reads


class Result(StrEnum):
    """How a walk over a policy ended."""

    APPLIED = "applied"
    """Children were written."""
    UNCHANGED = "unchanged"
    """Nothing had to be."""
    REJECTED = "rejected"
    """The spec is not accepted."""
    ERROR = "error"
    """Something could not be done, and is tried again."""


RECONCILES: Final = Counter("perfpolicy_reconcile", "Walks over a policy from its spec to its children, by how they ended.", ["result"])
"""runtime.py"""
RECONCILE_SECONDS: Final = Histogram("perfpolicy_reconcile_duration_seconds", "Duration of a walk over a policy.")
"""runtime.py"""
API_REQUESTS: Final = Counter(
    "perfpolicy_api_requests", "Requests to the API server (kopf's own left out); code `error`: no answer.", ["verb", "kind", "code"]
)
"""cluster/client.py"""
QUERIES: Final = Counter("perfpolicy_prometheus_queries", "Queries to metrics sources, by how they ended.", ["result"])
"""metrics/source.py"""
QUERY_SECONDS: Final = Histogram("perfpolicy_prometheus_query_duration_seconds", "Duration of a query to a metrics source.")
"""metrics/source.py"""

for _result in Result:
    RECONCILES.labels(_result)
for _outcome in ("ok", "error"):
    QUERIES.labels(_outcome)
