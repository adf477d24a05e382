"""Pick rendered objects by kind and name."""

from perfpolicy.policy.model import Policy
from perfpolicy.render import Manifest, render


def all_of(policy: Policy, kind: str) -> dict[str, Manifest]:
    """Rendered objects of one kind by name."""
    return {manifest["metadata"]["name"]: manifest for manifest in render(policy).manifests if manifest["kind"] == kind}


def spec_of(policy: Policy, kind: str, name: str = "operation-service") -> Manifest:
    """The spec of one rendered object."""
    spec: Manifest = all_of(policy, kind)[name]["spec"]
    return spec
