"""Wire format of what is promised and how it is measured: SLI, thresholds, objectives, metrics source."""

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field

from perfpolicy.api.base import (
    Block,
    DnsLabel,
    MatchText,
    MetricName,
    Named,
    Number,
    Percent,
    PositiveDuration,
    PromLabelName,
    Rule,
    Selector,
    SetOf,
    Wire,
)
from perfpolicy.units import parse_duration, parse_percent

GrpcCode = Literal[
    "Cancelled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
]


class Sli(Wire):
    """What counts as a bad request, and whose proxy counts."""

    reporter: Literal["Destination", "Source"] | None = None
    """Destination: the workload's own proxies count every try. Source: the callers' proxies count. Left out: Destination."""
    bad_codes: SetOf[Annotated[str, Field(pattern="^[1-5]([0-9][0-9]|xx)$", max_length=3)]] | None = None
    """HTTP codes (503) or classes (5xx) that are bad. Left out: 5xx."""
    grpc_bad_codes: SetOf[GrpcCode] | None = None
    """gRPC codes that are bad, where Istio measures. Left out: Unknown, DeadlineExceeded, Internal, Unavailable, DataLoss."""
    exclude_paths: SetOf[MatchText] | None = None
    """Paths whose requests do not count, for example /healthz: values of metrics.http.pathLabel, each compared as a whole. Only where
    metrics.source is HTTP, for the others have no path."""


class LatencyThreshold(Wire):
    """An upper limit of one latency quantile."""

    quantile: Annotated[str, Field(pattern=r"^p([1-9]|[1-9][0-9](\.[0-9]{0,2}[1-9])?)$", max_length=6)]
    """The quantile: p50 is the median, p99.9 leaves one request in a thousand above it."""
    max: PositiveDuration
    """Longest latency at that quantile."""


class ErrorRateThreshold(Block):
    """An upper limit of the share of bad requests."""

    max: Percent | None = None
    """Largest share of bad requests, for example 5%."""


class ThroughputThreshold(Block):
    """Requests per second the service is made for."""

    min: Number | None = None
    """Requests per second it must manage: violated only when at least this many are offered and fewer are served well."""
    target: Number | None = None
    """Requests per second it is planned for: violated, like min, only when at least this many are offered and fewer are served well."""
    max: Number | None = None
    """Requests per second above which it is overloaded."""

    RULES = (
        Rule(
            cel="(!has(self.min) || !has(self.max) || double(self.min) <= double(self.max))"
            " && (!has(self.min) || !has(self.target) || double(self.min) <= double(self.target))"
            " && (!has(self.target) || !has(self.max) || double(self.target) <= double(self.max))",
            holds=lambda rate: (known := [float(v) for v in (rate.min, rate.target, rate.max) if v is not None]) == sorted(known),
            message="min, target and max must not fall: min <= target <= max",
        ),
    )


class ResourceThreshold(Block):
    """Upper limits of use, as shares of the container's limits (of its requests where it has no limits)."""

    cpu: Percent | None = None
    """Largest share of the CPU limit in use."""
    memory: Percent | None = None
    """Largest share of the memory limit in use."""


def _quantiles_ordered(thresholds: "Thresholds") -> bool:
    known = sorted((float(item.quantile[1:]), parse_duration(item.max)) for item in thresholds.latency or ())
    return all(low[1] <= high[1] for low, high in pairwise(known))


class Thresholds(Wire):
    """Limits that hold at every moment, judged over `window`."""

    window: PositiveDuration | None = None
    """Span the values are computed over. Left out: 5m."""
    latency: (
        Annotated[
            list[LatencyThreshold],
            Field(
                max_length=8,
                json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["quantile"]},
            ),
        ]
        | None
    ) = None
    """Latency limits, one for each quantile."""
    error_rate: ErrorRateThreshold | None = None
    """Limit of the share of bad requests."""
    throughput: ThroughputThreshold | None = None
    """Requests per second the service is made for."""
    resources: ResourceThreshold | None = None
    """CPU and memory use."""

    RULES = (
        Rule(
            cel="!has(self.latency) || self.latency.all(a, self.latency.all(b,"
            " double(a.quantile.substring(1)) <= double(b.quantile.substring(1)) || duration(a.max) >= duration(b.max)))",
            holds=_quantiles_ordered,
            message="a higher quantile cannot have a smaller limit: p50 <= p95 <= p99",
            field="latency",
        ),
        Rule(
            cel="!has(self.window) || (duration(self.window) >= duration('10s') && duration(self.window) <= duration('24h'))",
            holds=lambda t: t.window is None or parse_duration("10s") <= parse_duration(t.window) <= parse_duration("24h"),
            message="window must be between 10s and 24h",
            field="window",
        ),
    )


class Objective(Wire):
    """A service level objective: the share of good requests over a long window. What is left to 100% is the error budget."""

    name: DnsLabel
    """Name of the objective, part of its alerts and of the status."""
    sli: Literal["Availability", "Latency"]
    """Availability: a request without a bad code is good. Latency: one faster than `threshold` is good."""
    threshold: PositiveDuration | None = None
    """For Latency: requests faster than this are good. It must be a bucket boundary of the metrics source (with native histograms: any)."""
    target: Percent
    """Share of good requests that is promised, above 0% and below 100%."""
    window_days: Annotated[int, Field(ge=1, le=90)]
    """Length of the rolling window in days."""

    RULES = (
        Rule(
            cel="(self.sli == 'Latency') == has(self.threshold)",
            holds=lambda o: (o.sli == "Latency") == (o.threshold is not None),
            message="threshold is required for sli: Latency and not allowed for sli: Availability",
            field="threshold",
        ),
        Rule(
            cel="double(self.target.replace('%', '')) < 100.0 && double(self.target.replace('%', '')) > 0.0",
            holds=lambda o: 0 < parse_percent(o.target) < 1,
            message="target must be above 0% and below 100%: an objective of 100% leaves no error budget",
            field="target",
        ),
    )


class EnvoySource(Wire):
    """Upstream statistics of Envoy proxies in the namespace (envoy_cluster_upstream_rq, envoy_cluster_upstream_rq_time)."""

    atomic = True

    cluster: MatchText
    """Name of the Envoy cluster that stands for the workload, as the label envoy_cluster_name has it."""


class HttpSource(Wire):
    """Metrics of the application itself, of the workload's pods. All names may be left out: {} takes the usual ones."""

    requests: MetricName | None = None
    """Counter of requests. Left out: http_requests_total."""
    durations: MetricName | None = None
    """Histogram of durations in seconds, without _bucket. Left out: http_request_duration_seconds."""
    histogram: Literal["Classic", "Native"] | None = None
    """Kind of the histogram. Left out: Classic."""
    code_label: PromLabelName | None = None
    """Label with the HTTP code, or its class as 5xx. Left out: code."""
    path_label: PromLabelName | None = None
    """Label with the path, read for sli.excludePaths only. Left out: path."""
    buckets: Annotated[SetOf[PositiveDuration], Field(max_length=32)] | None = None
    """Upper bounds of the classic histogram's buckets, without the infinite one. Left out: those of most client libraries, 5ms, 10ms,
    25ms, 50ms, 100ms, 250ms, 500ms, 1s, 2s500ms, 5s, 10s."""


class CustomSource(Wire):
    """Counters of any name, one for each request or other unit of work. The class must grant it."""

    atomic = True

    requests: Selector
    """PromQL selector of counters of all requests, for example jobs_total{queue="mail"}. The policy's namespace is put into it."""
    bad: Selector
    """PromQL selector of those that count as bad, for example jobs_failed_total{queue="mail"}."""


class Metrics(Wire):
    """Where the measurements come from, and what their absence means. Address and access come from the class."""

    source: Literal["Istio", "Envoy", "HTTP", "Custom"] | None = None
    """Istio: the standard metrics of the sidecar proxies. Envoy: upstream statistics of Envoy proxies. HTTP: the application's own
    metrics. Custom: counters of any name, without durations. Left out: Istio."""
    envoy: EnvoySource | None = None
    """For source Envoy."""
    http: HttpSource | None = None
    """For source HTTP; {} takes the usual names."""
    custom: CustomSource | None = None
    """For source Custom."""
    no_data: Literal["Unknown", "Hold"] | None = None
    """Verdict while there is no data. Unknown: none. Hold: the last one stays. Left out: Unknown."""
    no_traffic: Literal["Unknown", "Met"] | None = None
    """Verdict while there are fewer requests than minimumRate. Left out: Unknown."""
    minimum_rate: Number | None = None
    """Requests per second below which nothing is judged. Left out: 0.1."""
    slow_request: PositiveDuration | None = None
    """A request slower than this is slow for the health score. Left out: 1s."""


Objectives = Named[Objective]
