"""Where the lab keeps what it builds and what it runs; the only module that reads the environment for places.

CACHE holds what is expensive and shared (binaries, images, a Go toolchain); it can be deleted at any time and costs one
cold build. STATE holds what belongs to one running lab (etcd's data, certificates, logs, pids) and is removed by `down`.
Neither is inside the source tree, so that building an image or a wheel never picks them up.
"""

from __future__ import annotations

import os
from pathlib import Path

SOURCE = Path(__file__).resolve().parent
COMPONENTS = SOURCE / "components"


def cache_dir() -> Path:
    """The shared build cache: $PERFPOLICY_LAB_CACHE, else perfpolicy-lab under the user's cache directory."""
    explicit = os.environ.get("PERFPOLICY_LAB_CACHE")
    if explicit:
        return Path(explicit)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "perfpolicy-lab"


def state_root() -> Path:
    """The parent of every lab's state: $PERFPOLICY_LAB_STATE, else ~/.local/state/perfpolicy-lab."""
    explicit = os.environ.get("PERFPOLICY_LAB_STATE")
    if explicit:
        return Path(explicit)
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "perfpolicy-lab"


CACHE = cache_dir()
STATE = state_root()
# Sockets and network namespaces of real nodes. One place per machine whatever STATE is: it shows who has the machine's node.
RUN = Path("/run/perfpolicy-lab")
