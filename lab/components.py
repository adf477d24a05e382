"""Builds the lab's components from the Go module proxy, once, into the cache.

Each tool has a module of its own under components/ (their dependency versions clash in one), with go.mod and go.sum
committed: what is built is pinned. A binary's place in the cache is keyed by everything that decides its content, so a
changed pin builds anew and an old one stays usable. May touch: the cache, the network through `go`.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from lab import golang, paths
from lab.errors import BuildError
from lab.progress import activity

KUBERNETES_VERSION = "v1.36.3"
_STAMP = "k8s.io/component-base/version."


@dataclass(frozen=True)
class Tool:
    """One Go module of components/ and the binaries it gives: `packages` maps binary name to main package."""

    name: str
    packages: Mapping[str, str]
    tags: tuple[str, ...] = ()
    stamps: Mapping[str, str] = field(default_factory=dict)
    lacking: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Files (name to content) that a module embeds and does not hold, because its authors generate them; by module."""

    @property
    def directory(self) -> Path:
        """The folder with the tool's go.mod and go.sum."""
        return paths.COMPONENTS / self.name

    @property
    def ldflags(self) -> str:
        """Linker flags: no symbol tables (a third smaller), and the version stamps."""
        return " ".join(["-s -w", *(f"-X {key}={value}" for key, value in self.stamps.items())])

    @property
    def key(self) -> str:
        """Hash of everything that decides the binaries' content."""
        digest = hashlib.sha256()
        for name in ("go.mod", "go.sum"):
            digest.update((self.directory / name).read_bytes())
        lacking = [{module: dict(files)} for module, files in self.lacking.items()]
        digest.update(json.dumps([dict(self.packages), self.tags, self.ldflags, *lacking], sort_keys=True).encode())
        return digest.hexdigest()[:16]

    @property
    def output(self) -> Path:
        """The cache folder that holds the tool's binaries once built."""
        return paths.CACHE / "bin" / f"{self.name}-{self.key}"


def _kubernetes(*commands: str) -> dict[str, str]:
    return {command: f"k8s.io/kubernetes/cmd/{command}" for command in commands}


# Unstamped, kubectl cannot parse the server's version.
_KUBERNETES_STAMPS = {
    f"{_STAMP}gitVersion": KUBERNETES_VERSION,
    f"{_STAMP}gitMajor": KUBERNETES_VERSION[1:].split(".")[0],
    f"{_STAMP}gitMinor": KUBERNETES_VERSION.split(".")[1],
}

# In the order in which `up` needs them.
TOOLS: dict[str, Tool] = {
    tool.name: tool
    for tool in (
        Tool(
            "kubernetes",
            _kubernetes("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl"),
            stamps=_KUBERNETES_STAMPS,
        ),
        Tool("etcd", {"etcd": "go.etcd.io/etcd/server/v3"}),
        Tool("helm", {"helm": "helm.sh/helm/v4/cmd/helm"}),
        Tool(
            "istio",
            {
                "pilot-discovery": "istio.io/istio/pilot/cmd/pilot-discovery",
                "istioctl": "istio.io/istio/istioctl/cmd/istioctl",
                "pilot-agent": "istio.io/istio/pilot/cmd/pilot-agent",
            },
            tags=("vtprotobuf", "disable_pgv"),
        ),
        Tool(
            "prometheus",
            {
                "prometheus": "github.com/prometheus/prometheus/cmd/prometheus",
                "promtool": "github.com/prometheus/prometheus/cmd/promtool",
            },
            # Only Kubernetes, file and HTTP discovery: the other clouds' clients are most of the build.
            tags=("netgo", "remove_all_sd", "enable_kubernetes_sd"),
        ),
        Tool("coredns", {"coredns": "github.com/coredns/coredns"}),
        Tool("k6", {"k6": "go.k6.io/k6"}),
        Tool("ratelimit", {"ratelimit": "github.com/envoyproxy/ratelimit/src/service_cmd"}),
        Tool("kwok", {"kwok": "sigs.k8s.io/kwok/cmd/kwok"}),
        Tool("metrics-server", {"metrics-server": "sigs.k8s.io/metrics-server/cmd/metrics-server"}),
        # Only tests/promql/test_inhibition.py runs it, and asks its API: npm, which makes its pages, is not needed.
        Tool(
            "alertmanager",
            {"alertmanager": "github.com/prometheus/alertmanager/cmd/alertmanager"},
            lacking={"github.com/prometheus/alertmanager": {"ui/app/dist/index.html": "The lab's Alertmanager has no pages.\n"}},
        ),
        # Only bench/rival_controller.py runs it.
        Tool("sloth", {"sloth": "github.com/slok/sloth/cmd/sloth"}),
    )
}
_OWNER = {binary: tool for tool in TOOLS.values() for binary in tool.packages}


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on `path`; the kernel frees it if the holder dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def binary(name: str) -> Path:
    """The path of a component's binary, e.g. "kube-apiserver"; builds its tool when it is not in the cache.

    Raises KeyError for an unknown name and BuildError, naming the log, when it does not build.
    """
    tool = _OWNER[name]
    build(tool)
    return tool.output / name


def build(tool: Tool) -> None:
    """Build all binaries of `tool` unless the cache has them; a second caller waits for the first one's build."""
    if (tool.output / "built.json").exists():
        return
    with file_lock(paths.CACHE / "locks" / tool.name):
        if not (tool.output / "built.json").exists():
            _build(tool)


def build_all(names: Sequence[str]) -> None:
    """Build these tools, one after the other (one build keeps all cores busy), saying which of how many."""
    missing = [TOOLS[name] for name in names if not (TOOLS[name].output / "built.json").exists()]
    for number, tool in enumerate(missing, start=1):
        with activity(f"component {number} of {len(missing)}: {tool.name}"):
            build(tool)


def build_local(directory: Path, name: str) -> Path:
    """Build the main package in `directory` (a module of the lab's own, e.g. pause/) and return the binary `name`.

    The cache is keyed by the content of its Go files, so an edit builds anew.
    """
    digest = hashlib.sha256()
    for source in sorted([*directory.rglob("*.go"), *directory.glob("go.*")]):
        digest.update(source.read_bytes())
    target = paths.CACHE / "bin" / f"local-{name}-{digest.hexdigest()[:16]}" / name
    with file_lock(paths.CACHE / "locks" / f"local-{name}"):
        if not target.exists():
            with activity(f"build {name}"):
                partial = target.with_name(f".{name}.partial")
                built = golang.run(["build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", f"-o={partial}", "."], directory)
                if built.returncode:
                    raise BuildError(f"go build in {directory} failed: {built.stderr[-2000:]}")
                partial.rename(target)
    return target


def build_seconds() -> dict[str, float]:
    """Seconds each built tool took, as measured when this cache was filled."""
    found: dict[str, float] = {}
    for tool in TOOLS.values():
        record = tool.output / "built.json"
        if record.exists():
            found[tool.name] = float(json.loads(record.read_text())["seconds"])
    return found


def _build(tool: Tool) -> None:
    log = paths.CACHE / "logs" / f"build-{tool.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    temporary = tool.output.with_name(f".{tool.output.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    started = time.monotonic()
    with activity(f"build {tool.name}") as shown, log.open("w") as out, TemporaryDirectory() as copies:
        shown.update("listing packages")
        flags = ["-mod=readonly", f"-tags={','.join(tool.tags)}", *_completed(tool, Path(copies))]
        total = _package_count(tool, flags, log)
        # -v names each package as it is compiled: that is the progress.
        command = [str(golang.go()), "build", "-v", "-trimpath", "-buildvcs=false", *flags]
        command += [f"-ldflags={tool.ldflags}", f"-o={temporary}/", *tool.packages.values()]
        with subprocess.Popen(
            command, cwd=tool.directory, env=golang.environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            compiled = 0
            for line in process.stdout or ():
                out.write(line)
                compiled += 0 if line.startswith(("#", "go:", "\t")) else 1
                shown.update(f"{min(compiled, total)}/{total} packages")
    if process.returncode:
        raise BuildError(f"go build of {tool.name} ended with {process.returncode}; see {log}")
    for name, package in tool.packages.items():
        (temporary / _default_name(package)).rename(temporary / name)
    (temporary / "built.json").write_text(json.dumps({"seconds": round(time.monotonic() - started, 1)}))
    shutil.rmtree(tool.output, ignore_errors=True)
    temporary.rename(tool.output)


def _default_name(package: str) -> str:
    """The file name `go build -o folder/` gives a main package: its last element that is not a major version."""
    elements = package.split("/")
    return elements[-2] if elements[-1][:1] == "v" and elements[-1][1:].isdigit() else elements[-1]


def _completed(tool: Tool, folder: Path) -> list[str]:
    """Options of `go` by which a tool is built from copies of its modules, in `folder`, that hold what they lack."""
    if not tool.lacking:
        return []
    for name in ("go.mod", "go.sum"):
        shutil.copyfile(tool.directory / name, folder / name)
    # Not by -overlay: `go` refuses one over the module cache.
    for number, (module, files) in enumerate(tool.lacking.items()):
        copy = folder / str(number)
        shutil.copytree(module_dir(tool.name, module), copy, copy_function=shutil.copyfile)
        # The module cache is read-only, and so are the copies of its folders.
        for each in (copy, *copy.rglob("*/")):
            each.chmod(0o755)
        for name, text in files.items():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_text(text)
        edited = golang.run(["mod", "edit", f"-replace={module}={copy}", str(folder / "go.mod")], tool.directory)
        if edited.returncode:
            raise BuildError(f"go mod edit for {tool.name} failed: {edited.stderr[-2000:]}")
    return [f"-modfile={folder / 'go.mod'}"]


def _package_count(tool: Tool, flags: Sequence[str], log: Path) -> int:
    listed = golang.run(["list", *flags, "-deps", *tool.packages.values()], tool.directory)
    if listed.returncode:
        raise BuildError(f"go list of {tool.name} failed; see {log}: {listed.stderr[-2000:]}")
    return len(listed.stdout.splitlines())


def module_dir(tool: str, module: str) -> Path:
    """The folder with the source of `module` at the version `tool`'s go.mod pins; downloads it when absent.

    Charts and CRDs are read from there, so that they are never copied into this repository.
    """
    directory = paths.COMPONENTS / tool
    downloaded = golang.run(["mod", "download", "-json", module], directory)
    if downloaded.returncode:
        raise BuildError(f"go mod download {module} in {directory} failed: {downloaded.stdout[-1000:]}{downloaded.stderr[-1000:]}")
    return Path(json.loads(downloaded.stdout)["Dir"])
