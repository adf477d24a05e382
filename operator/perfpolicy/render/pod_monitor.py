"""Scraping of the application's own metrics for a Prometheus run by prometheus-operator, straight at the pods' metrics port.

Pods, not their Service: the port is opened on the pods, and a Service need not list it. With a sidecar only a port that was opened on
purpose is asked (under STRICT any other is closed to a Prometheus without an identity). Istio's merged endpoint is left to whoever scrapes
the mesh: its series would be counted twice.
"""

from perfpolicy.policy.model import Policy
from perfpolicy.render.manifest import Child, ChildKind, used
from perfpolicy.units import format_duration


def build(policy: Policy) -> tuple[Child, ...]:
    """One PodMonitor where the policy asks for it."""
    scrape, port = policy.observability.scrape, policy.service.metrics_port
    if scrape is None or port is None or not scrape.pod_monitor:
        return ()
    values = {"selector": policy.workload.selector, "port": port, "path": scrape.path, "interval": format_duration(scrape.interval)}
    return (Child(policy.key.name, values, labels=policy.observability.monitor_labels),)


KIND = ChildKind(
    group="monitoring.coreos.com",
    version="v1",
    kind="PodMonitor",
    plural="podmonitors",
    template="pod_monitor.yaml.j2",
    build=build,
    asked=(
        f"has(spec.observability) && {used('spec.observability.scrape')}"
        " && has(spec.observability.scrape.podMonitor) && spec.observability.scrape.podMonitor == 'Enabled'"
    ),
    asked_by="spec.observability.scrape.podMonitor",
    essential=False,
)
