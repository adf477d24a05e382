"""Follows the container logs a kubelet writes, through rotation and restarts, and gives whole lines.

Layout: <root>/<namespace>_<pod>_<uid>/<container>/<restart>.log, each line "<time> stdout|stderr F|P <text>" (CRI). The
kubelet rotates by renaming N.log and then telling the runtime to reopen it, so lines keep coming into the renamed file
for a moment: it is read to its end again after the new file exists. May touch: reads files only.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

# Read at most this much of one file at a time, so that one busy pod does not delay the others.
_CHUNK = 1 << 20


def parse_line(line: bytes) -> tuple[bytes, bool] | None:
    """Text of one CRI log line, and whether it is complete (tag F); None for stderr and for what is not CRI format."""
    parts = line.split(b" ", 3)
    if len(parts) != 4 or parts[1] != b"stdout":
        return None
    return parts[3], parts[2] == b"F"


class Tail:
    """One open file and what is left of its last line and of a line the runtime split."""

    def __init__(self, path: Path, *, from_end: bool) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.inode = os.fstat(self._descriptor).st_ino
        self._rest = b""
        self._partial = b""
        if from_end:
            os.lseek(self._descriptor, 0, os.SEEK_END)

    def drain(self) -> Iterator[bytes]:
        """Texts of the complete stdout lines up to the file's present end."""
        while chunk := os.read(self._descriptor, _CHUNK):
            lines = (self._rest + chunk).split(b"\n")
            self._rest = lines.pop()
            for line in lines:
                if (text := self._whole(line)) is not None:
                    yield text

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._descriptor)

    def _whole(self, line: bytes) -> bytes | None:
        """The text of a line once its last part has come: the runtime splits what is longer than its buffer."""
        parsed = parse_line(line)
        if parsed is None:
            return None
        text, complete = parsed
        text, self._partial = self._partial + text, b""
        if not complete:
            self._partial = text
            return None
        return text


class LogFile:
    """A log file by its path, across rotation. `from_end` skips what is there at first."""

    def __init__(self, path: Path, *, from_end: bool = False) -> None:
        self._path = path
        self._from_end = from_end
        self._current: Tail | None = None
        # The file that was rotated away: the runtime may still write to it a moment after the new one exists.
        self._previous: Tail | None = None

    def read(self) -> Iterator[bytes]:
        """Texts of the lines that are new since the last call; none while the file does not exist."""
        if self._previous is not None:
            yield from self._previous.drain()
            self._previous.close()
            self._previous = None
        if self._current is None:
            self._open()
        if self._current is not None:
            yield from self._current.drain()
            if self._rotated(self._current):
                self._previous, self._current = self._current, None
                self._open()
                if self._current is not None:
                    yield from self._current.drain()

    def close(self) -> None:
        """Let go of the files."""
        for tail in (self._previous, self._current):
            if tail is not None:
                tail.close()
        self._previous = self._current = None

    def _open(self) -> None:
        try:
            self._current = Tail(self._path, from_end=self._from_end)
        except FileNotFoundError:
            return
        self._from_end = False

    def _rotated(self, tail: Tail) -> bool:
        try:
            return self._path.stat().st_ino != tail.inode
        except FileNotFoundError:
            # Renamed, and not made anew yet.
            return False


def pod_directories(root: Path) -> Iterator[tuple[str, str, str]]:
    """Namespace, name and uid of every pod with a log folder under `root`."""
    try:
        entries = [entry.name for entry in root.iterdir()]
    except FileNotFoundError:
        return
    for entry in entries:
        parts = entry.split("_")
        if len(parts) == 3:
            yield parts[0], parts[1], parts[2]


@dataclass
class ContainerLog:
    """All restarts of one container of one pod. `from_end` skips what was written before the first `read`."""

    directory: Path
    from_end: bool = False
    _file: LogFile | None = field(default=None)
    _restart: int = -1

    def read(self) -> Iterator[bytes]:
        """Texts of all complete lines since the last call, oldest restart first."""
        if self._file is not None:
            yield from self._file.read()
        for restart in self._restarts():
            if restart > self._restart:
                if self._file is not None:
                    # The last lines of the container that ended, also where its file was rotated just before.
                    yield from self._file.read()
                    yield from self._file.read()
                    self._file.close()
                self._restart = restart
                self._file = LogFile(self.directory / f"{restart}.log", from_end=self.from_end)
                yield from self._file.read()
        self.from_end = False

    def close(self) -> None:
        """Let go of the open file."""
        if self._file is not None:
            self._file.close()

    def _restarts(self) -> list[int]:
        try:
            names = [entry.name for entry in self.directory.iterdir()]
        except FileNotFoundError:
            return []
        return sorted(int(name.removesuffix(".log")) for name in names if name.removesuffix(".log").isdigit() and name.endswith(".log"))
