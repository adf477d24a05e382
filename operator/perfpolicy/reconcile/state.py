"""What is remembered of each policy between two passes. Everything here can be lost: a restart rebuilds it from the cluster."""

import zlib
from dataclasses import dataclass, field
from functools import lru_cache

from perfpolicy.api.status import SettledStatus, Status, parse_status
from perfpolicy.evaluate.conditions import AcceptedState, ProgrammedState
from perfpolicy.evaluate.evaluation import Evaluation, EvaluationMemory
from perfpolicy.evaluate.observation import Direct
from perfpolicy.policy.model import Policy
from perfpolicy.reconcile.applier import Held


@dataclass(slots=True)
class PolicyState:
    """One policy of one UID."""

    uid: str
    accepted: AcceptedState = field(default_factory=AcceptedState)
    programmed: ProgrammedState = field(default_factory=lambda: ProgrammedState(pending=True))
    """Without its resources: `held` is the inventory, in less memory."""
    held: tuple[Held, ...] = ()
    settled: SettledStatus | None = None
    """The children as this process last found them as wanted; None while they are not, or nobody has looked yet."""
    resolved: Policy | None = None
    """The policy as last accepted; None while it is not."""
    evaluation: Evaluation | None = None
    memory: EvaluationMemory = field(default_factory=EvaluationMemory)
    direct: Direct | None = None
    """What raw metrics say of it while its rules are not loaded."""
    packed_status: bytes = b""
    """The status in the cluster as far as we know, packed: as an object it would be half of a policy's memory, and is seldom looked at."""
    said: tuple[tuple[str, str], ...] = ()
    """(type, status) of each condition of that status, which most policies have in common."""
    written_at: float = 0.0
    """Loop time of the last status write."""
    judged: bool = False
    """The spec has been looked at since this process started."""
    generation: int = 0
    """Of the spec that `accepted` and `programmed` speak of; 0: of none yet."""
    awaited: int = 0
    """How often its namespace was not known yet."""

    @property
    def status(self) -> Status | None:
        """The status in the cluster, as far as we know."""
        return Status.model_validate_json(zlib.decompress(self.packed_status)) if self.packed_status else None

    def begin(self, packed: bytes) -> Status | None:
        """Start from the status in the cluster, packed; from none where its form is not ours (it is then rebuilt)."""
        status = parse_status(zlib.decompress(packed)) if packed else None
        self.packed_status, self.said = packed if status is not None else b"", _said(status)
        return status

    def keep_status(self, status: Status | None) -> None:
        """Remember a status that was written."""
        self.packed_status = b"" if status is None else zlib.compress(status.model_dump_json(by_alias=True, exclude_none=True).encode(), 1)
        self.said = _said(status)


def _said(status: Status | None) -> tuple[tuple[str, str], ...]:
    return () if status is None else _shared(tuple((str(each.type), str(each.status)) for each in status.conditions))


@lru_cache(maxsize=1024)
def _shared(said: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """The same object for equal ones."""
    return said
