"""Undoes everything a lab did to the machine, in an order in which nothing comes back, and says what is left.

Works from what is found on the machine rather than from a list of what was done, so that it also cleans up after a crash
of the lab, of containerd, or of a former `down`. Ends only processes the lab started or that hang on its containerd.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from lab import host
from lab.lab import Lab, wait
from lab.node import LINK
from lab.progress import activity

# Tables of kube-proxy; the network plugins make none, see node.py.
_TABLES = ("ip kube-proxy", "ip6 kube-proxy")
_CNI_RESULTS = Path("/var/lib/cni/results")
_CONTAINER_LOGS = Path("/var/log/containers")
_GRACE_SECONDS = 2.0
_KEPT = ("lock", "times.json")
# Removed last, so that a `down` that was cut short can be repeated.
_RECORDS = ("before.json", "lab.json")


def down(lab: Lab) -> list[str]:
    """Stop the lab and remove its state except for logs/; returns what is left over, an empty list when nothing is."""
    before = host.remembered(lab)
    with activity(f"stop {lab.name}") as shown:
        shown.update("daemons")
        # kubelet and the controllers first: what is removed next must not be made again.
        for name in sorted(lab.supervisor.names(), key=_stop_order):
            # What they would save is removed a moment later: no reason to wait for long.
            lab.supervisor.stop(name, grace_seconds=_GRACE_SECONDS)
        shown.update("containers")
        _end_containers(lab)
        if lab.node == "real" or lab.run_dir.exists():
            shown.update("mounts and interfaces")
            _unmount(lab)
            _network(lab)
            _cgroups()
            if before is not None:
                host.restore_settings(before)
        shown.update("files")
        _files(lab)
    left = [f"process {pid} {command}" for pid, command in processes_of(lab)]
    if before is not None and lab.node == "real":
        # Fake nodes touch nothing outside their folder, and another lab may be changing the machine right now.
        left += host.footprint().left_over(before, own=_own(lab))
    return left


def _stop_order(name: str) -> int:
    first = ("kubelet", "kwok", "kube-controller-manager", "kube-scheduler", "kube-proxy")
    last = ("containerd", "kube-apiserver", "etcd")
    return first.index(name) if name in first else 100 + last.index(name) if name in last else 50


def _own(lab: Lab) -> tuple[str, ...]:
    return (f"{lab.directory}/", f"{lab.run_dir}/")


def processes_of(lab: Lab) -> list[tuple[int, str]]:
    """Pid and command line of every process that works with this lab's folders, apart from the one that asks."""
    found: list[tuple[int, str]] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            command = _command(int(entry.name))
            if command and _is_ours(lab, command):
                found.append((int(entry.name), " ".join(command)[:160]))
    return found


def _is_ours(lab: Lab, command: list[str]) -> bool:
    """Whether a command line is a daemon's or a shim's of this lab: its program is one of the lab's or its shims, and it
    names one of the lab's folders. A user's `tail -f` of a log is not ours."""
    program = Path(command[0]).name
    known = program.startswith(("containerd", "kube", "etcd", "kwok", "prometheus"))
    return known and any(own in word for word in command[1:] for own in _own(lab))


def _command(pid: int) -> list[str]:
    try:
        return [word for word in Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0") if word]
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return []


def _end_containers(lab: Lab) -> None:
    """Kill the shims of this lab's containerd and everything below them, and daemons whose record a crash has lost."""
    ours = [pid for pid, _ in processes_of(lab)]
    doomed = (*_descendants(ours), *ours)
    for pid in doomed:
        _kill(pid)
    wait("the end of the containers' processes", lambda: not any(_alive(pid) for pid in doomed), seconds=20)


def _descendants(roots: list[int]) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            parent = _parent(int(entry.name))
            if parent is not None:
                children.setdefault(parent, []).append(int(entry.name))
    found: list[int] = []
    todo = list(roots)
    while todo:
        for child in children.get(todo.pop(), []):
            found.append(child)
            todo.append(child)
    return found


def _parent(pid: int) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return None


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _unmount(lab: Lab) -> None:
    """Unmount everything below the lab's folders, innermost first; a network namespace goes with its mount, and with it
    the pod's interfaces."""
    for _ in range(5):
        mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        ours = [mount.replace("\\040", " ") for mount in mounts if mount.startswith(_own(lab))]
        if not ours:
            return
        for mount in reversed(ours):
            subprocess.run(["umount", mount], capture_output=True, check=False)
        time.sleep(0.05)
    for mount in reversed(ours):
        subprocess.run(["umount", "--lazy", mount], capture_output=True, check=False)


def _network(lab: Lab) -> None:
    if LINK in (name for _, name in socket.if_nameindex()):
        subprocess.run(["ip", "link", "delete", LINK], capture_output=True, check=False)
    if shutil.which("nft"):
        for table in _TABLES:
            subprocess.run(["nft", "delete", "table", *table.split()], capture_output=True, check=False)
    for result in _CNI_RESULTS.glob(f"perfpolicy-lab-{lab.name}-*"):
        result.unlink()
    if _CONTAINER_LOGS.is_dir():
        for log in _CONTAINER_LOGS.iterdir():
            if log.is_symlink() and str(log.readlink()).startswith(_own(lab)):
                log.unlink()


def _cgroups() -> None:
    """Remove kubelet's control groups, leaves first; one with a living process stays and is reported."""
    for root in host.pod_cgroups():
        for folder, _, _ in os.walk(root, topdown=False):
            try:
                Path(folder).rmdir()
            except OSError:
                continue


def _files(lab: Lab) -> None:
    shutil.rmtree(lab.run_dir, ignore_errors=True)
    parent = lab.run_dir.parent
    if parent.is_dir() and not any(parent.iterdir()):
        parent.rmdir()
    if lab.directory.is_dir():
        for entry in sorted(lab.directory.iterdir(), key=lambda entry: entry.name in _RECORDS):
            if entry == lab.logs or entry.name in _KEPT:
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
