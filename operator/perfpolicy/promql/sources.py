"""The raw series of a policy's requests and durations, whatever its source: what the steps are read from.

Requests are offered (all that was counted), judged (without what our own limits answered) and bad. Istio's are in istio.py; here are the
others. Envoy's upstream statistics never see what a limit of the same proxy refuses, so only code 429 is left out there; an application
tells its own 429, likewise left out. Custom counters are taken as they are.
"""

from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from perfpolicy.policy import model
from perfpolicy.promql import istio
from perfpolicy.promql.expr import Matcher, Op, Selector, literal_pattern
from perfpolicy.promql.scope import code_pattern, of_pods, own_namespace, there

ENVOY_REQUESTS: Final = "envoy_cluster_upstream_rq"
ENVOY_CODE: Final = "envoy_response_code"
ENVOY_DURATION: Final = "envoy_cluster_upstream_rq_time"
_SECOND: Final = Decimal(1000)
_TOO_MANY: Final = "429"


@dataclass(frozen=True, slots=True)
class Requests:
    """Counters of requests; `bad` are disjoint selectors."""

    offered: Selector
    judged: Selector
    bad: tuple[Selector, ...]


@dataclass(frozen=True, slots=True)
class Durations:
    """The histogram of how long judged requests took. `unit`: milliseconds in one of what it counts."""

    unit: Decimal
    total: Selector
    """Its sum; of a native histogram the histogram itself."""
    buckets: Selector | None
    """Its buckets; None: it is native."""


def requests(policy: model.Policy) -> Requests:
    """The counters of a policy's requests."""
    source = policy.metrics.source
    match source:
        case model.IstioSource():
            return Requests(istio.offered(policy), istio.judged(policy), istio.bad(policy))
        case model.EnvoySource():
            return _by_code(policy, _envoy(policy, source, ENVOY_REQUESTS), ENVOY_CODE)
        case model.HttpSource():
            return _by_code(policy, _http(policy, source, source.requests), source.code_label)
        case model.CustomSource():
            every = _custom(policy, source.requests)
            return Requests(every, every, (_custom(policy, source.bad),))


def durations(policy: model.Policy) -> Durations | None:
    """The histogram of a policy's durations; None where the source has none."""
    source = policy.metrics.source
    match source:
        case model.IstioSource():
            return Durations(Decimal(1), istio.judged(policy, istio.DURATION_SUM), istio.judged(policy, istio.DURATION_BUCKET))
        case model.EnvoySource():
            total, buckets = (_envoy(policy, source, f"{ENVOY_DURATION}_{part}") for part in ("sum", "bucket"))
            return Durations(Decimal(1), total, buckets)
        case model.HttpSource():
            kept = Matcher(source.code_label, Op.NE, _TOO_MANY)
            if source.native:
                return Durations(_SECOND, _http(policy, source, source.durations).where(kept), None)
            total, buckets = (_http(policy, source, f"{source.durations}_{part}").where(kept) for part in ("sum", "bucket"))
            return Durations(_SECOND, total, buckets)
        case model.CustomSource():
            return None


def _by_code(policy: model.Policy, offered: Selector, label: str) -> Requests:
    judged = offered.where(Matcher(label, Op.NE, _TOO_MANY))
    codes = code_pattern(policy.sli.bad_codes, classes=True)
    return Requests(offered, judged, (judged.where(Matcher(label, Op.RE, codes)),) if codes else ())


def _envoy(policy: model.Policy, source: model.EnvoySource, metric: str) -> Selector:
    return Selector(metric, (own_namespace(policy), Matcher("envoy_cluster_name", Op.EQ, source.cluster), *there(policy)))


def _http(policy: model.Policy, source: model.HttpSource, metric: str) -> Selector:
    paths = "|".join(map(literal_pattern, source.excluded_paths))
    excluded = (Matcher(source.path_label, Op.NRE, paths),) if paths else ()
    return of_pods(policy, metric, *excluded)


def _custom(policy: model.Policy, counters: model.Counters) -> Selector:
    theirs = (Matcher(label, Op(operator), value) for label, operator, value in counters.matchers if label != "namespace")
    return Selector(counters.name, (*theirs, own_namespace(policy), *there(policy)))
