"""The wire form of PerformancePolicy.status: bounded, described, without floats. The CRD's status schema is generated from it.

Numbers are texts in the field's own unit (`412ms`, `0.52%`, `1.2k`), rounded to what can be trusted; full-rate values are on /metrics. What
must survive a restart or a change of leader (verdict, since, sampleTime, limit) is here, so the next process goes on from the last word
said.
"""

from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer
from pydantic.alias_generators import to_camel

from perfpolicy.vocabulary import ConditionStatus, ConditionType, Reason, Severity, Verdict

MESSAGE_MAX: Final = 1024
TEXT_MAX: Final = 256
MAX_CONDITIONS: Final = 16
MAX_THRESHOLDS: Final = 32
MAX_OBJECTIVES: Final = 16
MAX_RESOURCES: Final = 64
MAX_ANTIPATTERNS: Final = 32
MAX_BURN_RATES: Final = 8


def wire_time(moment: datetime) -> str:
    """RFC 3339 in UTC, whole seconds, as Kubernetes writes times."""
    return f"{moment.astimezone(UTC).isoformat()[:19]}Z"


Time = Annotated[datetime, PlainSerializer(wire_time, return_type=str, when_used="json"), Field(json_schema_extra={"format": "date-time"})]
Name = Annotated[str, Field(max_length=63)]
Figure = Annotated[str, Field(max_length=32)]
Message = Annotated[str, Field(max_length=MESSAGE_MAX)]


class StatusModel(BaseModel):
    """Base of the status models: camelCase; unknown fields of a newer or older operator are dropped, not refused."""

    model_config = ConfigDict(
        extra="ignore", frozen=True, alias_generator=to_camel, validate_by_name=True, validate_by_alias=True, use_attribute_docstrings=True
    )


def _list_map(key: str, most: int) -> Any:
    return Field(default=(), max_length=most, json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]})


def _atomic(most: int) -> Any:
    return Field(default=(), max_length=most, json_schema_extra={"x-kubernetes-list-type": "atomic"})


class Condition(StatusModel):
    """One aspect of the policy's state."""

    type: ConditionType
    """Which aspect."""
    status: ConditionStatus
    """True, False or Unknown."""
    reason: Reason
    """Why, from a closed set."""
    message: Message = ""
    """Why, in words."""
    observed_generation: Annotated[int, Field(ge=0)] = 0
    """The metadata.generation this condition speaks about."""
    last_transition_time: Time
    """When `status` last changed."""


class ThresholdStatus(StatusModel):
    """One threshold and its verdict."""

    name: Name
    """Which threshold: a quantile such as p95, or errorRate, throughputMin, throughputTarget, throughputMax, cpu, memory."""
    limit: Figure
    """The limit the verdict was judged against."""
    observed: Figure | None = None
    """The newest value, two to three significant digits. Absent while nothing can be said."""
    interval: Figure | None = None
    """Quantiles only: the histogram bucket the value was interpolated in."""
    verdict: Verdict
    """Met, Violated or Unknown; changes after 3 bad or 5 good samples in a row."""
    reason: Reason | None = None
    """Why the verdict is Unknown or held."""
    since: Time
    """When the verdict last changed."""
    sample_time: Time | None = None
    """When the newest value was measured."""


class BurnRate(StatusModel):
    """How fast an error budget goes over one window."""

    window: Figure
    """The window, such as 1h."""
    rate: Figure
    """1 spends the budget exactly in the objective's window."""


class ObjectiveStatus(StatusModel):
    """One objective and its error budget."""

    name: Name
    """Name of the objective in the spec."""
    target: Figure
    """The target."""
    observed: Figure | None = None
    """The share of good requests over the objective's window."""
    budget_remaining: Figure | None = None
    """The share of the error budget that is left; negative when overspent."""
    coverage: Figure | None = None
    """The share of the window with recorded data."""
    exhausted_at: Time | None = None
    """When the budget runs out at the rate of the last hour; left out below 99 % coverage, or when it does not run out in the window."""
    burn_rates: Annotated[tuple[BurnRate, ...], _atomic(MAX_BURN_RATES)] = ()
    """Burn rates by window."""
    verdict: Verdict
    """Met: budget is left. Violated: it is spent. Unknown: no data."""
    reason: Reason | None = None
    """Why the verdict is Unknown, or that the window is partial."""
    since: Time
    """When the verdict last changed."""
    sample_time: Time | None = None
    """When the newest value was measured."""


class HealthStatus(StatusModel):
    """Health score of 0 to 100: 40 for errors, 40 for mean latency, 20 for slow requests."""

    score: Annotated[int, Field(ge=0, le=100)]
    """The sum of the parts."""
    errors: Annotated[int, Field(ge=0, le=40)]
    """40 less 8 for each per cent of failed requests."""
    latency: Annotated[int, Field(ge=0, le=40)]
    """40 less 1 for each 25 ms of mean latency."""
    slow: Annotated[int, Field(ge=0, le=20)]
    """20 less 2 for each per cent of slow requests."""
    level: Literal["Healthy", "Acceptable", "Degraded"]
    """Degraded below 70, Acceptable below 90."""


class ClassStatus(StatusModel):
    """The class that filled the policy."""

    name: Annotated[str, Field(max_length=253)]
    """Name of the PerformanceClass."""
    generation: Annotated[int, Field(ge=0)]
    """Its metadata.generation."""


class ResourceStatus(StatusModel):
    """One object the policy has applied."""

    group: Annotated[str, Field(max_length=253)] = ""
    """API group; empty for the core group."""
    version: Name
    """API version."""
    kind: Name
    """Kind."""
    name: Annotated[str, Field(max_length=253)]
    """Name, in the policy's namespace."""
    uid: Annotated[str, Field(max_length=64)] = ""
    """UID, so that an object somebody replaced is recognised."""


class SettledStatus(StatusModel):
    """For an operator that starts: while it finds the same, there is nothing to render."""

    digest: Annotated[str, Field(max_length=64)]
    """Digest of the spec as resolved, of the operator's program, and of the objects as they were when last found as wanted."""
    revision: Annotated[int, Field(ge=0)]
    """Revision of the rules written."""


class AntiPatternStatus(StatusModel):
    """A known bad practice found in the policy."""

    name: Name
    """Which one."""
    path: Annotated[str, Field(max_length=253)]
    """The field to look at."""
    symptom: Annotated[str, Field(max_length=TEXT_MAX)]
    """What in the policy shows it."""
    impact: Annotated[str, Field(max_length=TEXT_MAX)]
    """What it leads to."""
    solution: Annotated[str, Field(max_length=TEXT_MAX)]
    """What to change."""


class Summary(StatusModel):
    """Texts for the printer columns of `kubectl get`; `-` where nothing can be said."""

    met: Figure = "-"
    """Thresholds met of all, such as 5/6; unknown ones are not met."""
    p95: Figure = "-"
    """The observed p95 latency."""
    errors: Figure = "-"
    """The observed error rate."""
    budget: Figure = "-"
    """The least budget left of all objectives; `~` marks a partial window."""
    health: Figure = "-"
    """Health score."""
    severity: Figure = "-"
    """Severity of the worst violated threshold."""
    rps: Figure = "-"
    """Served requests per second."""
    workload: Annotated[str, Field(max_length=128)] = "-"
    """Kind and name of the workload."""


class Status(StatusModel):
    """What the operator last saw and concluded."""

    observed_generation: Annotated[int, Field(ge=0)] = 0
    """The metadata.generation this status speaks about."""
    conditions: Annotated[tuple[Condition, ...], _list_map("type", MAX_CONDITIONS)] = ()
    """Accepted, Programmed, WorkloadAvailable, MetricsAvailable, TargetsMet, BudgetHealthy and Ready from the first write; others when they
    say something.
    """
    thresholds: Annotated[tuple[ThresholdStatus, ...], _list_map("name", MAX_THRESHOLDS)] = ()
    """Every threshold with its verdict."""
    objectives: Annotated[tuple[ObjectiveStatus, ...], _list_map("name", MAX_OBJECTIVES)] = ()
    """Every objective with its error budget."""
    health: HealthStatus | None = None
    """Absent while its inputs are unknown."""
    severity: Severity | None = None
    """Severity of the worst violated threshold; absent while nothing is known."""
    class_: Annotated[ClassStatus | None, Field(alias="class")] = None
    """The class that filled the policy."""
    resources: Annotated[tuple[ResourceStatus, ...], _atomic(MAX_RESOURCES)] = ()
    """The inventory: every object the policy has applied."""
    settled: SettledStatus | None = None
    """Absent where not all objects were found as wanted; may be of an earlier look."""
    anti_patterns: Annotated[tuple[AntiPatternStatus, ...], _atomic(MAX_ANTIPATTERNS)] = ()
    """Bad practices found in the policy."""
    summary: Summary = Summary()
    """Texts for the printer columns."""

    def condition(self, kind: ConditionType) -> Condition | None:
        """The condition of that type, if present."""
        return next((condition for condition in self.conditions if condition.type is kind), None)

    def to_wire(self) -> dict[str, Any]:
        """The status as the API server takes it."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def parse_status(text: bytes) -> Status | None:
    """A status read from the cluster, as JSON; None where there is none, or where its form is not ours."""
    try:
        return Status.model_validate_json(text) if text != b"{}" else None
    except ValueError:
        return None
