"""Container logs are followed without losing or repeating a line."""

from __future__ import annotations

from pathlib import Path

from lab.crilog import ContainerLog, LogFile, parse_line, pod_directories

TIME = b"2026-11-21T09:00:00.000000001Z"


def write(path: Path, *texts: bytes, tag: bytes = b"F", stream: bytes = b"stdout") -> None:
    with path.open("ab") as handle:
        handle.writelines(b"%s %s %s %s\n" % (TIME, stream, tag, text) for text in texts)


def test_a_line_is_split_into_text_and_completeness() -> None:
    assert parse_line(TIME + b" stdout F a b c") == (b"a b c", True)
    assert parse_line(TIME + b" stdout P part") == (b"part", False)


def test_stderr_and_other_formats_are_no_lines() -> None:
    assert parse_line(TIME + b" stderr F oops") is None
    assert parse_line(b"plain text") is None
    assert parse_line(b"") is None


def test_new_lines_come_once(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    followed = LogFile(path)
    assert list(followed.read()) == []
    write(path, b"one")
    assert list(followed.read()) == [b"one"]
    write(path, b"two", b"three")
    assert list(followed.read()) == [b"two", b"three"]
    assert list(followed.read()) == []


def test_a_half_written_line_waits_for_its_end(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    followed = LogFile(path)
    path.write_bytes(TIME + b" stdout F fir")
    assert list(followed.read()) == []
    with path.open("ab") as handle:
        handle.write(b"st\n")
    assert list(followed.read()) == [b"first"]


def test_a_line_the_runtime_split_is_joined(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    write(path, b"abc", tag=b"P")
    write(path, b"def", tag=b"F")
    assert list(LogFile(path).read()) == [b"abcdef"]


def test_lines_before_the_start_are_skipped_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    write(path, b"old")
    followed = LogFile(path, from_end=True)
    assert list(followed.read()) == []
    write(path, b"new")
    assert list(followed.read()) == [b"new"]


def test_rotation_loses_nothing_that_is_still_written_to_the_renamed_file(tmp_path: Path) -> None:
    path, rotated = tmp_path / "0.log", tmp_path / "0.log.20261121-090000"
    followed = LogFile(path)
    write(path, b"one")
    assert list(followed.read()) == [b"one"]
    write(path, b"two")
    path.rename(rotated)
    write(rotated, b"three")
    assert list(followed.read()) == [b"two", b"three"]
    write(rotated, b"four")
    write(path, b"five")
    assert list(followed.read()) == [b"four", b"five"]
    write(path, b"six")
    assert list(followed.read()) == [b"six"]


def test_a_line_that_comes_into_the_renamed_file_after_the_new_one_exists_is_not_lost(tmp_path: Path) -> None:
    path, rotated = tmp_path / "0.log", tmp_path / "0.log.20261121-090000"
    followed = LogFile(path)
    write(path, b"one")
    assert list(followed.read()) == [b"one"]
    path.rename(rotated)
    write(path, b"two")
    assert list(followed.read()) == [b"two"]
    write(rotated, b"late")
    assert list(followed.read()) == [b"late"]


def test_files_are_let_go(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    write(path, b"one")
    before = sum(1 for _ in Path("/proc/self/fd").iterdir())
    followed = LogFile(path)
    for turn in range(3):
        list(followed.read())
        path.rename(tmp_path / f"0.log.{turn}")
        write(path, b"more")
    list(followed.read())
    followed.close()
    assert sum(1 for _ in Path("/proc/self/fd").iterdir()) == before


def test_a_restarted_container_goes_on_in_its_next_file(tmp_path: Path) -> None:
    followed = ContainerLog(tmp_path)
    write(tmp_path / "0.log", b"one")
    assert list(followed.read()) == [b"one"]
    write(tmp_path / "0.log", b"last words")
    write(tmp_path / "1.log", b"again")
    assert list(followed.read()) == [b"last words", b"again"]


def test_a_container_without_log_yet_has_no_lines(tmp_path: Path) -> None:
    assert list(ContainerLog(tmp_path / "istio-proxy").read()) == []


def test_from_the_end_holds_only_for_what_was_there_at_the_start(tmp_path: Path) -> None:
    write(tmp_path / "0.log", b"old")
    followed = ContainerLog(tmp_path, from_end=True)
    assert list(followed.read()) == []
    write(tmp_path / "1.log", b"after the restart")
    assert list(followed.read()) == [b"after the restart"]


def test_rotated_and_foreign_files_are_no_restarts(tmp_path: Path) -> None:
    write(tmp_path / "0.log.20261121-090000", b"rotated")
    write(tmp_path / "note.log", b"foreign")
    write(tmp_path / "0.log", b"one")
    assert list(ContainerLog(tmp_path).read()) == [b"one"]


def test_pod_directories_are_named_by_namespace_pod_and_uid(tmp_path: Path) -> None:
    (tmp_path / "ce-hub_web-5f6b-x1_0a1b-2c").mkdir()
    (tmp_path / "stray").mkdir()
    assert list(pod_directories(tmp_path)) == [("ce-hub", "web-5f6b-x1", "0a1b-2c")]
    assert list(pod_directories(tmp_path / "missing")) == []
