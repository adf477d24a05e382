"""The operator's own configuration, read once at start from PERFPOLICY_* environment variables.

Why environment variables only: the chart sets them, `kubectl describe pod` shows them, and nothing has to be mounted. Every problem is
reported at once. docs/settings.md is generated from the docstrings below, so each says meaning, unit and why the default is what it is.
"""

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from perfpolicy.errors import SettingsError

PREFIX = "PERFPOLICY_"
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


class LogFormat(StrEnum):
    """How log lines look."""

    JSON = "json"
    TEXT = "text"


class LogLevel(StrEnum):
    """Lowest level that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Settings(BaseSettings):
    """Settings of `perfpolicy run`."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="forbid", use_attribute_docstrings=True, env_ignore_empty=True, case_sensitive=False
    )

    namespaces: Annotated[tuple[str, ...], NoDecode] = ()
    """Namespaces whose policies are handled, separated by commas; empty means all. All is the default because classes are cluster-wide;
    several operators in one cluster must be given disjoint namespaces."""
    class_file: Path | None = None
    """YAML file, or folder of them, with the PerformanceClasses; read again when it changes. Empty means the classes of the cluster. For an
    operator with Roles only, which cannot read a cluster-scoped kind."""
    kubeconfig: Path | None = None
    """Kubeconfig file. Empty means the pod's service account, or outside a cluster $KUBECONFIG and then ~/.kube/config."""
    workers: int = Field(8, ge=1, le=256)
    """Policies reconciled at the same time. The API server takes about 300 applies a second on two cores whether 4 or 64 ask; 8 keep
    it busy, and beside a flood an edit takes half of what it takes with 16. More where its answers take over 50 ms. Of several namespaces
    none has more than three quarters of them: where the writes of one hang, the others go on."""
    api_connections: int = Field(16, ge=2, le=1024)
    """Connections kept to the API server for requests; each watch has one more of its own. Twice the workers: each policy applies several
    children at once."""
    writes_per_second: float = Field(400.0, gt=0, le=10000)
    """Budget for all writes but the Lease's; after a pause a second's worth of them goes at once. Two cores do not reach 250: it is an
    operator on a large machine, at its start or in a flood, that this keeps from crowding other clients out."""
    poll_min: float = Field(5.0, gt=0, le=3600)
    """Seconds between two evaluations of a metrics source after something changed. Below a recording-rule interval there is nothing new to
    read; 5 s is the shortest interval the built-in classes are used with."""
    poll_max: float = Field(30.0, gt=0, le=3600)
    """Seconds between two evaluations while nothing changes; 30 s is the rule interval of the built-in classes."""
    poll_factor: float = Field(1.2, ge=1, le=10)
    """Growth of the evaluation interval per quiet cycle: 5 s reach 30 s in ten cycles."""
    status_writes_per_second: float = Field(5.0, gt=0, le=1000)
    """Budget for status writes that only refresh numbers, all policies together. Verdicts and conditions are always written at once."""
    resync: float = Field(1800.0, ge=1, le=86400)
    """Seconds until every policy has been walked again although nothing was seen to change, spread evenly: the net under what nobody
    reports. It writes nothing where nothing differs."""
    relist: float = Field(600.0, ge=1, le=86400)
    """Seconds until a watch begins anew with a complete list, metadata only where that is enough: the net under missed events. Five
    thousand policies have about 100 MB of such lists, so more often than every few minutes costs more than it finds."""
    sweep: float = Field(120.0, ge=0.5, le=86400)
    """Seconds between two comparisons of the known policies with a metadata-only list: finds deletions that fell into a gap between two
    watches, which no watch reports."""
    discovery: float = Field(5.0, ge=0.1, le=600)
    """Seconds between two looks at which kinds the API server serves (one conditional request, usually answered 304): how soon an installed
    CRD is noticed."""
    retry_min: float = Field(0.5, gt=0, le=60)
    """Seconds to the first retry of a policy that failed; doubles with every further failure."""
    retry_max: float = Field(30.0, gt=0, le=3600)
    """Seconds of the longest pause between two retries: short enough that the end of an outage is noticed within half a minute."""
    request_timeout: float = Field(30.0, gt=0, le=600)
    """Seconds until one request to the API server counts as failed (watches excepted)."""
    watch_timeout: int = Field(45, ge=5, le=3600)
    """Seconds until the API server is asked to end a watch, which is then resumed where it was: five seconds later one that is silent is
    taken for a dead connection. 45 s finds it within a minute, for a request per watched kind and namespace in that time; an operator
    given dozens of namespaces may take 300."""
    lease: str = Field("", pattern=r"^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?)?$")
    """Name of the Lease that decides which of several replicas writes. Empty means no election: this process leads from the start, which is
    right for exactly one process only."""
    lease_namespace: str = Field("", pattern=r"^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)?$")
    """Namespace of the Lease. Empty means the pod's own."""
    lease_duration: int = Field(15, ge=1, le=3600)
    """Seconds without a renewal after which others may take the Lease: how long nobody leads after a leader was killed. Shorter ones cost
    leadership in every hiccup of the API server. The Lease's field takes whole seconds only."""
    lease_renew_deadline: float = Field(10.0, gt=0, le=3600)
    """Seconds after its last renewal in which a leader may still write. What is left to the Lease's duration is the margin for writes
    under way and for clocks that run unevenly."""
    lease_retry: float = Field(2.0, gt=0, le=600)
    """Seconds between two renewals. A standby looks at the Lease at least twice as often: so soon it takes one that is released."""
    health_port: int = Field(8080, ge=0, le=65535)
    """Port of /healthz, /readyz and /metrics; 0 serves none of them."""
    log_format: LogFormat = LogFormat.JSON
    """`json`: one object per line for log collectors; `text` for people."""
    log_level: LogLevel = LogLevel.INFO
    """Lowest level that is logged. At `info` a converged operator is silent; `debug` adds each request to the API server and each walk over
    a policy."""

    @field_validator("namespaces", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("namespaces")
    @classmethod
    def _named(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        wrong = [name for name in value if not _NAMESPACE.fullmatch(name)]
        if wrong:
            raise ValueError(f"{', '.join(wrong)}: not a namespace name; give names separated by commas, without patterns")
        return value

    @model_validator(mode="after")
    def _ordered(self) -> "Settings":
        problems = [
            f"{PREFIX}{low.upper()} ({getattr(self, low):g}) must not exceed {PREFIX}{high.upper()} ({getattr(self, high):g})"
            for low, high in (("poll_min", "poll_max"), ("retry_min", "retry_max"))
            if getattr(self, low) > getattr(self, high)
        ]
        problems += [
            f"{PREFIX}{low.upper()} ({getattr(self, low):g}) must be below {PREFIX}{high.upper()} ({getattr(self, high):g})"
            for low, high in (("lease_retry", "lease_renew_deadline"), ("lease_renew_deadline", "lease_duration"))
            if getattr(self, low) >= getattr(self, high)
        ]
        if problems:
            raise ValueError("; ".join(problems))
        return self


def load_settings() -> Settings:
    """Settings from the environment; raises SettingsError listing every problem by the variable's name."""
    try:
        return Settings()
    except ValidationError as error:
        raise SettingsError("; ".join(_problem(item["loc"], item["msg"]) for item in error.errors())) from None


def _problem(location: tuple[int | str, ...], message: str) -> str:
    message = message.removeprefix("Value error, ")
    return f"{PREFIX}{str(location[0]).upper()}: {message}" if location else message
