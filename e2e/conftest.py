"""What every end-to-end test stands on: kubectl against the lab's real cluster, with the committed CRDs, and a namespace of its own.

Tests of the operator process use `cluster`, the lab named by `--lab` (the one of fake nodes unless told): they need no pods that run.
"""

import json
import os
import secrets
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from e2e.cluster import Cluster, apply_crds
from e2e.operator_process import OperatorProcess
from e2e.policies import a_class
from e2e.world import World
from e2e.world import operator as an_operator
from lab.__main__ import find
from lab.errors import CommandError
from lab.lab import Lab
from perfpolicy.yaml_text import dump_all

ROOT = Path(__file__).resolve().parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    """The lab for tests that need no running pods."""
    parser.addoption("--lab", default="fake", help="name of the lab (or of a cluster of yours) that is up, for these tests")
    parser.addoption("--trust", action="store_true", help="play every fault and change every leaf, not a sample of them: make trust")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs the lab of fake nodes only: `-m fake` can run beside `-m "not fake"`."""
    for item in items:
        if isinstance(item, pytest.Function) and "cluster" in item.fixturenames:
            item.add_marker("fake")


@dataclass(frozen=True)
class Kubectl:
    """kubectl with the environment of the lab."""

    environment: Mapping[str, str]

    def run(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """The finished process, whatever its exit code."""
        return subprocess.run(
            ["kubectl", *arguments], input=stdin, env=dict(self.environment), capture_output=True, text=True, check=False, timeout=120
        )

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        """Its output; CommandError where it fails."""
        done = self.run(*arguments, stdin=stdin)
        if done.returncode:
            raise CommandError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def apply(self, *objects: Mapping[str, Any]) -> subprocess.CompletedProcess[str]:
        """`kubectl apply` of objects, as a user does it."""
        return self.run("apply", "-f", "-", stdin=dump_all(objects))

    def get(self, *arguments: str) -> Any:
        """An object, or a list of them."""
        return json.loads(self("get", *arguments, "-o", "json"))


@pytest.fixture(scope="session")
def kubectl() -> Kubectl:
    """kubectl of $KUBECONFIG, else of the running lab; the CRDs of this checkout are applied."""
    environment = dict(os.environ)
    if "KUBECONFIG" not in environment:
        environment |= _lab_environment()
    ready = Kubectl(environment)
    apply_crds(ready)
    return ready


@pytest.fixture
def namespace(kubectl: Kubectl) -> Iterator[str]:
    """An empty namespace, gone after the test."""
    name = f"e2e-{secrets.token_hex(4)}"
    kubectl("create", "namespace", name)
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Cluster:
    """The lab of fake nodes, or the one named, with our CRDs."""
    name = request.config.getoption("--lab")
    lab = find(name)
    assert lab is not None, f"no lab named {name}: bring it up with `python -m lab up --node fake`"
    found = Cluster(lab)
    apply_crds(found.kubectl)
    return found


@pytest.fixture(scope="module")
def operator(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[OperatorProcess]:
    """A running operator with short clocks; its log is shown when a test of the module failed."""
    cluster.apply(a_class())
    before = request.session.testsfailed
    log = tmp_path_factory.mktemp("operator") / "operator.log"
    with OperatorProcess(cluster.lab, log, retry_max="5", sweep="5", discovery="1") as process:
        yield process
    if request.session.testsfailed > before:
        print(f"--- operator log\n{log.read_text()[-20000:]}")


@pytest.fixture
def trust(request: pytest.FixtureRequest) -> bool:
    """Everything is to be tried, not a sample."""
    return bool(request.config.getoption("--trust"))


@pytest.fixture
def mesh_namespace(cluster: Cluster) -> Iterator[str]:
    """An empty namespace with sidecar injection in the lab of fake nodes, gone after the test."""
    name = f"e2e-{secrets.token_hex(4)}"
    cluster.kubectl("create", "namespace", name)
    cluster.kubectl("label", "namespace", name, "istio-injection=enabled")
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")


@pytest.fixture(scope="session")
def real(kubectl: Kubectl) -> Cluster:
    """The lab with real pods, sidecars, an ingress gateway and Prometheus, with our CRDs."""
    found = Cluster(Lab("real", "real"))
    assert found.lab.kubeconfig.exists(), "the real lab is not up: bring it up with `python -m lab up`"
    apply_crds(found.kubectl)
    return found


@pytest.fixture(scope="module")
def world(real: Cluster) -> Iterator[World]:
    """A namespace of the real lab with the workloads of the proofs; see e2e/world.py. The policies come with `real_operator`."""
    with World.new(real) as made:
        yield made


@pytest.fixture(scope="module")
def real_operator(world: World, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[OperatorProcess]:
    """An operator for the world's namespace, with both policies Ready; its log is shown when a test of the module failed."""
    before = request.session.testsfailed
    log = tmp_path_factory.mktemp("operator") / "operator.log"
    with an_operator(world.lab, log, world.namespace) as process:
        world.apply_policies()
        yield process
    if request.session.testsfailed > before:
        print(f"--- operator log\n{log.read_text()[-20000:]}")


def _lab_environment() -> dict[str, str]:
    """The exports `python -m lab env` prints, with this process's PATH behind the lab's."""
    printed = subprocess.run([sys.executable, "-m", "lab", "env"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout
    exports = (shlex.split(line.replace('"$PATH"', os.environ["PATH"])) for line in printed.splitlines() if line.startswith("export "))
    return dict(export[1].split("=", 1) for export in exports)
