"""Which callers' transport the workload accepts. STRICT leaves one door: the separate metrics port, for a Prometheus without a sidecar."""

from perfpolicy.policy.model import Mtls, Policy
from perfpolicy.render.manifest import OPENS_METRICS, Child, ChildKind
from perfpolicy.render.ports import open_metrics_port


def build(policy: Policy) -> tuple[Child, ...]:
    """One PeerAuthentication for the workload's pods where mTLS is asked for."""
    mtls = policy.security.mtls
    if mtls is None:
        return ()
    port = open_metrics_port(policy)
    exceptions = {str(port): {"mode": Mtls.PERMISSIVE}} if mtls is Mtls.STRICT and port is not None else None
    return (Child(policy.key.name, {"selector": policy.workload.selector, "mode": mtls, "exceptions": exceptions}),)


KIND = ChildKind(
    group="security.istio.io",
    version="v1",
    kind="PeerAuthentication",
    plural="peerauthentications",
    template="peer_authentication.yaml.j2",
    build=build,
    asked=f"(has(spec.security) && has(spec.security.mtls) && spec.security.mtls != 'Inherit') || {OPENS_METRICS}",
    asked_by="spec.security.mtls or service.metricsPort",
)
