"""A folder of examples/ on the real cluster: applied with kubectl, as a user does it, with an operator for its namespace."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from e2e.cluster import Cluster
from e2e.waiting import eventually
from e2e.world import operator
from lab import load

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


@contextmanager
def applied(real: Cluster, name: str, log: Path, *others: str) -> Iterator[Cluster]:
    """The folder `name`, whose namespace has the same name, as long as the block lasts; `others`: further namespaces it makes."""
    load.ensure(real.lab)
    real.kubectl("delete", "namespace", name, *others, "--ignore-not-found", "--timeout=60s")
    with operator(real.lab, log, name):
        real.kubectl("apply", "-f", str(EXAMPLES / name))
        yield real
        real.kubectl("delete", "-f", str(EXAMPLES / name), "--wait=false", "--ignore-not-found")


def await_ready(real: Cluster, namespace: str, policies: Iterable[str], seconds: float = 60) -> None:
    """Wait until each of the policies is Ready."""
    for name in policies:
        eventually(lambda name=name: real.condition(name, namespace, "Ready") == ("True", "Ready"), seconds)  # type: ignore[misc]
