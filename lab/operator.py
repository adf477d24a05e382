"""Runs the operator under test as one of the lab's daemons, on this machine, against the lab's cluster.

It is started as a user would start it (`perfpolicy run`), with text logs in the lab's log folder. May touch: that one process.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from lab.lab import Lab
from lab.processes import http_ok

NAME = "operator"
_CLI = Path(sys.executable).parent / "perfpolicy"


def start(lab: Lab, **settings: str) -> None:
    """Start the operator and wait until it is ready. `settings`: PERFPOLICY_* by their lower-case names, e.g. poll_min="1"."""
    lab.supervisor.start(NAME, [_CLI, "run"], env=_environment(lab, settings))
    lab.supervisor.await_ready(NAME, lambda: http_ok(f"http://127.0.0.1:{lab.port(NAME)}/readyz"), seconds=60)


def stop(lab: Lab) -> None:
    """End the operator (SIGTERM) and wait for it."""
    lab.supervisor.stop(NAME)


def log(lab: Lab) -> Path:
    """What the operator printed."""
    return lab.supervisor.log(NAME)


def _environment(lab: Lab, settings: Mapping[str, str]) -> dict[str, str]:
    known = {"kubeconfig": str(lab.kubeconfig), "log_format": "text", "health_port": str(lab.port(NAME)), **settings}
    return {f"PERFPOLICY_{key.upper()}": value for key, value in known.items()}
