"""The exception tree. Transient or permanent is decided by class, here and nowhere else.

PerfPolicyError
├── PermanentError            retrying without a change is useless
│   ├── InvalidSpec           every problem of a policy or class, with field paths
│   ├── RenderError           a template or its output is wrong: a defect of ours
│   ├── ApiRejected           the Kubernetes API server refused a request as such
│   └── SettingsError         the operator's own configuration
└── TransientError            worth another try with back-off
    ├── ApiUnavailable        the Kubernetes API server did not answer or asked us to wait
    │   └── NotLeading        a write that was not sent, because another replica leads
    └── MetricsUnavailable    a metrics source did not answer
"""

from collections.abc import Iterable
from dataclasses import dataclass

from perfpolicy.vocabulary import Reason


class PerfPolicyError(Exception):
    """Base of every error this package raises on purpose."""


class PermanentError(PerfPolicyError):
    """Retrying without a change is useless."""


class TransientError(PerfPolicyError):
    """Worth another try with back-off."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        """`retry_after`: seconds the other side asked us to wait, if it did."""
        super().__init__(message)
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing wrong with one field: `path` like `spec.thresholds.latency[2].max`, and a message that says what is allowed."""

    path: str
    message: str
    reason: Reason = Reason.INVALID

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


class InvalidSpec(PermanentError):
    """A policy or class breaks rules; carries all problems at once."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(map(str, self.problems)))


class RenderError(PermanentError):
    """A template or its output is wrong: a defect of ours, never of the policy's author."""


class ApiRejected(PermanentError):
    """The Kubernetes API server refused a request as such (4xx): the same request will be refused again until something changes."""

    def __init__(self, message: str, status: int, reason: str = "") -> None:
        """`status`: the HTTP status; `reason`: the machine-readable reason of the answer (`Invalid`, `Conflict`), empty if it gave none."""
        super().__init__(message)
        self.status = status
        self.reason = reason


class SettingsError(PermanentError):
    """The operator's own configuration is wrong; lists every problem."""


class ApiUnavailable(TransientError):
    """The Kubernetes API server did not answer or asked us to wait."""


class NotLeading(ApiUnavailable):
    """This process does not hold the Lease (any more): the write was not sent."""


class MetricsUnavailable(TransientError):
    """A metrics source did not answer in time or answered garbage."""
