"""Changes how the lab's backends behave while they run: latency, errors, CPU, memory, readiness.

Every pod has a control port of its own (backend/faults.go) that its sidecar leaves alone by annotation, so this machine
reaches it whatever mTLS or authorization a policy puts on the application's port. Faults are per process: a pod that
starts later starts healthy (or with the faults its environment variable FAULTS names). May touch: pods of the backend.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

from lab.errors import CommandError
from lab.lab import Lab

CONTROL_PORT = 8081


def set_fault(lab: Lab, namespace: str, selector: str, **faults: float | bool) -> list[str]:
    """Set the named faults on every running pod that `selector` (e.g. "app=api-gateway,version=canary") matches.

    Faults that are not named stay as they are: latency_ms, latency_jitter_ms, error_ratio (0..1), error_code, fail_first_n,
    cpu_burn_ms (per request), memory_mib, not_ready, workers. Returns the pods' names; raises CommandError when there is no pod or
    one refuses.
    """
    return [name for name, _ in _each(lab, namespace, selector, "POST", faults)]


def clear_faults(lab: Lab, namespace: str, selector: str) -> list[str]:
    """Make every matching pod as it was when it started; returns their names."""
    return [name for name, _ in _each(lab, namespace, selector, "DELETE", None)]


def read_faults(lab: Lab, namespace: str, selector: str) -> dict[str, dict[str, Any]]:
    """The faults of every matching pod, by its name."""
    return dict(_each(lab, namespace, selector, "GET", None))


def pod_addresses(lab: Lab, namespace: str, selector: str) -> dict[str, str]:
    """Addresses of the running, not terminating pods that `selector` matches, by name; raises CommandError for none."""
    pods = lab.get("pods", "-n", namespace, "-l", selector)["items"]
    found = {
        pod["metadata"]["name"]: pod["status"]["podIP"]
        for pod in pods
        if pod["status"].get("phase") == "Running" and pod["status"].get("podIP") and "deletionTimestamp" not in pod["metadata"]
    }
    if not found:
        raise CommandError(f"no running pod in {namespace} matches {selector}")
    return found


def _each(lab: Lab, namespace: str, selector: str, method: str, body: object) -> list[tuple[str, dict[str, Any]]]:
    return [(name, _call(name, address, method, body)) for name, address in pod_addresses(lab, namespace, selector).items()]


def _call(pod: str, address: str, method: str, body: object) -> dict[str, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://{address}:{CONTROL_PORT}/control", data=data, method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=5) as answer:
            return dict(json.load(answer))
    except urllib.error.HTTPError as error:
        raise CommandError(f"{method} /control of pod {pod} was answered {error.code}: {error.read().decode().strip()}") from error
    except OSError as error:
        raise CommandError(f"{method} /control of pod {pod} at {address}:{CONTROL_PORT}: {error}") from error
