"""What the proxies of the workload's own pods tell of requests: spans and access log lines."""

from typing import Final

from perfpolicy.policy.model import Policy
from perfpolicy.render.manifest import Child, ChildKind

_FAILED: Final = (
    "!has(response.code) || response.code >= 400"
    " || (request.headers['content-type'].startsWith('application/grpc') && response.grpc_status != 0)"
)
"""CEL over Envoy's attributes; what cannot be said of a request (it has no content-type) counts as no. A gRPC call that fails is a 200 of
HTTP, and of any other answer Envoy makes up a status of gRPC, which says nothing."""


def build(policy: Policy) -> tuple[Child, ...]:
    """One Telemetry for the workload's pods where the policy, and not only the mesh, says something about them."""
    tracing, logs = policy.observability.tracing, policy.observability.access_logs
    if tracing is None and logs is None:
        return ()
    values = {
        "selector": policy.workload.selector,
        "tracing": tracing,
        "logs": logs,
        "failed": _FAILED if logs and logs.failed_only else None,
    }
    return (Child(policy.key.name, values),)


KIND = ChildKind(
    group="telemetry.istio.io",
    version="v1",
    kind="Telemetry",
    plural="telemetries",
    template="telemetry.yaml.j2",
    build=build,
    asked="has(spec.observability) && (has(spec.observability.tracing) || has(spec.observability.accessLogs))",
    asked_by="spec.observability.tracing or accessLogs",
    essential=False,
)
