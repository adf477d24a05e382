"""What the lab changes on the machine outside its own folders, what it needs there, and how both are noticed.

`prerequisites` installs Debian packages; `Footprint` records interfaces, mounts, netfilter tables, network namespaces,
control groups and kernel settings before the first change, so that `down` can restore them and prove that nothing is left.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from lab.errors import CommandError, MissingPrerequisiteError
from lab.lab import Lab, run
from lab.progress import activity

# Program looked for → Debian package that has it.
_ALWAYS = {"openssl": "openssl"}
_FOR_NODE = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "nft": "nftables",
    "ip": "iproute2",
    "mount": "mount",
    "debootstrap": "debootstrap",
}
CNI_PLUGINS = Path("/usr/lib/cni")

# kubelet and kube-proxy set these; `down` puts the recorded values back.
_SETTINGS = (
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxbytes",
    "kernel/keys/root_maxkeys",
    "net/ipv4/conf/all/forwarding",
    "net/ipv4/conf/all/route_localnet",
    "net/ipv4/ip_forward",
    "net/ipv6/conf/all/forwarding",
    "net/ipv4/vs/conntrack",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
)


def prerequisites(lab: Lab) -> None:
    """Install what the lab needs from the machine's package manager; raises MissingPrerequisiteError saying what is missing."""
    if lab.node == "real" and os.geteuid() != 0:
        raise MissingPrerequisiteError("a real node needs root (containerd, mounts, network); use `--node fake`, or run as root")
    need({**_ALWAYS, **(_FOR_NODE if lab.node == "real" else {})})
    if lab.node == "real" and not (CNI_PLUGINS / "ptp").exists():
        _install(["containernetworking-plugins"])


def need(programs: Mapping[str, str]) -> None:
    """Install the Debian packages of those `programs` (program → package) that are not there; raises MissingPrerequisiteError."""
    missing = {package for program, package in programs.items() if not _has(program)}
    if missing:
        _install(sorted(missing))


def _has(program: str) -> bool:
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is not None


def _install(packages: list[str]) -> None:
    by_hand = f"install {', '.join(packages)} (names of Debian packages) and run this again"
    if not shutil.which("apt-get"):
        raise MissingPrerequisiteError(f"this machine has no apt-get: {by_hand}")
    if os.geteuid() != 0:
        raise MissingPrerequisiteError(f"apt-get needs root: {by_hand}")
    # Starting Debian's own containerd service is not wanted: the lab runs one of its own.
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    with activity(f"apt-get install {' '.join(packages)}"):
        try:
            run(["apt-get", "update", "-qq"], env=environment)
            run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages], env=environment)
        except CommandError as error:
            raise MissingPrerequisiteError(f"{error}\n{by_hand}") from error


@dataclass(frozen=True)
class Footprint:
    """What of the machine a lab could leave behind, as sorted names; `settings` are kernel settings and their values."""

    links: list[str]
    mounts: list[str]
    tables: list[str]
    namespaces: list[str]
    cgroups: list[str]
    settings: dict[str, str]

    def left_over(self, before: Footprint, *, own: tuple[str, ...]) -> list[str]:
        """What is there now and was not `before`, one line each; of mounts only those below one of the `own` folders count,
        because the machine's other programs mount things too."""
        found = [
            f"{kind} {name}"
            for kind in ("links", "tables", "namespaces", "cgroups")
            for name in sorted(set(getattr(self, kind)) - set(getattr(before, kind)))
        ]
        found += [f"mount {name}" for name in sorted(set(self.mounts) - set(before.mounts)) if name.startswith(own)]
        found += [
            f"setting {key}: {before.settings[key]} → {value}"
            for key, value in self.settings.items()
            if before.settings.get(key, value) != value
        ]
        return found


def footprint() -> Footprint:
    """The machine's present footprint. Works without root, with less in it."""
    return Footprint(
        links=sorted(name for _, name in socket.if_nameindex()),
        mounts=sorted(line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()),
        tables=_tables(),
        namespaces=sorted(path.name for path in Path("/run/netns").iterdir()) if Path("/run/netns").exists() else [],
        cgroups=[str(path) for path in pod_cgroups()],
        settings={key: path.read_text().strip() for key in _SETTINGS if (path := Path("/proc/sys") / key).exists()},
    )


# kubelet keeps its pods' control groups below one of the lab's own: another kubelet of this machine would otherwise take
# them for orphans and end them, and the other way round.
CGROUP = "perfpolicy-lab"
_HIERARCHIES = Path("/sys/fs/cgroup")


def pod_cgroups() -> list[Path]:
    """The lab's control group in every hierarchy that has it (version 1 has one per controller, version 2 one in all)."""
    return sorted(path for path in (_HIERARCHIES / CGROUP, *_HIERARCHIES.glob(f"*/{CGROUP}")) if path.is_dir())


def make_cgroups() -> None:
    """Make the lab's control group in every hierarchy: kubelet wants its root to exist."""
    if (_HIERARCHIES / "cgroup.controllers").exists():
        (_HIERARCHIES / CGROUP).mkdir(exist_ok=True)
        return
    for hierarchy in _HIERARCHIES.iterdir():
        if (hierarchy / "tasks").exists() and not hierarchy.is_symlink():
            (hierarchy / CGROUP).mkdir(exist_ok=True)


def _tables() -> list[str]:
    if not _has("nft"):
        return []
    listed = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=False)
    return sorted(listed.stdout.splitlines())


def remember(lab: Lab) -> None:
    """Record the footprint before this lab's first change; a record that is already there is kept."""
    path = lab.directory / "before.json"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(".before.partial")
        partial.write_text(json.dumps(asdict(footprint())))
        partial.rename(path)


def remembered(lab: Lab) -> Footprint | None:
    """The record `remember` made; None when this lab has never been up."""
    path = lab.directory / "before.json"
    return Footprint(**json.loads(path.read_text())) if path.exists() else None


def restore_settings(before: Footprint) -> None:
    """Put the kernel settings back to what they were."""
    for key, value in before.settings.items():
        path = Path("/proc/sys") / key
        if path.exists() and path.read_text().strip() != value:
            path.write_text(value)
