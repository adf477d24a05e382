"""PerformanceClasses from mounted files, for an operator that may not read the cluster-scoped kind.

The same reader as the command line's --class-file. Files that cannot be read or parsed change nothing: the last good classes stay, and the
problem is reported.
"""

import asyncio
import hashlib
import json
import logging
from pathlib import Path
from typing import Any

from perfpolicy import documents
from perfpolicy.errors import InvalidSpec, Problem
from perfpolicy.reconcile.policies import Classes

_log = logging.getLogger(__name__)


class ClassFile:
    """Keeps `classes` equal to what a file or folder holds."""

    def __init__(self, path: Path, classes: Classes, interval: float) -> None:
        """`interval`: seconds between two looks."""
        self._path, self._classes, self._interval = path, classes, interval
        self.problem = ""
        """Why the files cannot be used right now; empty when they can."""

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(self._interval)
            self.look()

    def look(self) -> None:
        """Read the files once. They are few and small: what did not change is told apart by its content."""
        try:
            found = {str(raw["metadata"]["name"]): raw for raw in map(_as_if_served, documents.read([self._path]).classes)}
        except (InvalidSpec, OSError, UnicodeDecodeError) as error:
            if not self.problem:
                _log.warning("the class file cannot be used", extra={"path": str(self._path), "problem": str(error)})
            self.problem = str(error)
            return
        self.problem = ""
        for name in self._classes.names() - set(found):
            self._classes.drop(name)
        for raw in found.values():
            self._classes.put(raw)


def _as_if_served(found: tuple[str, documents.Manifest]) -> dict[str, Any]:
    """With what an API server adds: a digest of the content stands for the UID."""
    source, manifest = found
    metadata = manifest.get("metadata")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
        raise InvalidSpec([Problem(f"{source}: metadata.name", "a class needs a name")])
    content = json.dumps(manifest, sort_keys=True, default=str).encode()
    return {**manifest, "metadata": {**metadata, "uid": hashlib.blake2b(content, digest_size=16).hexdigest()}}
