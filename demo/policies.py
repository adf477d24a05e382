"""Reads policies off the lab's cluster for the demo, and waits for what they say. Writes nothing to the cluster."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from demo.story import Story
from lab.errors import NotReadyError
from lab.lab import Lab

Policy = dict[str, Any]
_POLL_SECONDS = 0.5


def condition(policy: Policy, kind: str) -> str:
    """Status of a condition; Unknown where there is none."""
    return next((c["status"] for c in policy.get("status", {}).get("conditions", ()) if c["type"] == kind), "Unknown")


def threshold(policy: Policy, name: str) -> dict[str, Any]:
    """One threshold of the status; empty where there is none."""
    return next((t for t in policy.get("status", {}).get("thresholds", ()) if t["name"] == name), {})


def violated(policy: Policy) -> list[str]:
    """Names of the violated thresholds."""
    return [t["name"] for t in policy.get("status", {}).get("thresholds", ()) if t["verdict"] == "Violated"]


def line(policy: Policy) -> str:
    """The status in one line."""
    status = policy.get("status", {})
    summary = status.get("summary", {})
    shown = ("met", "p95", "errors", "rps", "health", "severity")
    texts = [
        f"Ready={condition(policy, 'Ready')}",
        f"TargetsMet={condition(policy, 'TargetsMet')}",
        *(f"{key}={summary.get(key, '-')}" for key in shown),
    ]
    broken = violated(policy)
    return f"{policy['metadata']['name']:18} " + "  ".join(texts) + (f"  violated: {', '.join(broken)}" if broken else "")


@dataclass
class Watcher:
    """Polls the policies of one namespace and tells every change of their status line."""

    lab: Lab
    namespace: str
    story: Story

    def __post_init__(self) -> None:
        self._told: dict[str, str] = {}

    def read(self) -> dict[str, Policy]:
        """Every policy of the namespace by name."""
        policies = {item["metadata"]["name"]: item for item in self.lab.get("performancepolicies", "-n", self.namespace)["items"]}
        for name, policy in policies.items():
            text = line(policy)
            if self._told.get(name) != text:
                self._told[name] = text
                self.story.tell(text)
        return policies

    def wait(self, what: str, check: Callable[[dict[str, Policy]], bool], *, seconds: float) -> float:
        """Poll until `check` holds; returns the seconds it took. NotReadyError names `what` and the last status at the deadline."""
        start = time.monotonic()
        while not check(policies := self.read()):
            if time.monotonic() - start > seconds:
                last = "\n".join(line(policy) for policy in policies.values())
                raise NotReadyError(f"{what}: not so after {seconds:.0f} s; last seen:\n{last}")
            time.sleep(_POLL_SECONDS)
        return time.monotonic() - start
