"""The lab's backend, which every live figure is measured on, passes its own tests."""

from lab import golang, paths


def test_the_backend_passes_its_own_go_tests() -> None:
    done = golang.run(["test", "./..."], paths.SOURCE / "backend")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ok" in done.stdout
