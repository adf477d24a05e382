"""The lab's backend, which every live figure is measured on, passes its own tests."""

import pytest

from lab import golang, paths


@pytest.mark.timeout(400)  # a new machine compiles the tests' own packages first, beside everything else that runs then
def test_the_backend_passes_its_own_go_tests() -> None:
    done = golang.run(["test", "./..."], paths.SOURCE / "backend")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ok" in done.stdout
