"""The Deployment a policy creates when `spec.workload.deployment` asks for one.

Hardening that no image breaks on is the default and yields to the author's template: the runtime's seccomp profile, no privilege
escalation. runAsNonRoot, a read-only root and dropped capabilities are left to the author: official images (nginx, redis, postgres) start
as root, chown and drop rights themselves, and would crash.
"""

from collections.abc import Mapping
from typing import Any, Final

from perfpolicy.policy.model import Policy
from perfpolicy.promql.proxies import STATS_MATCHER
from perfpolicy.render.manifest import Child, ChildKind
from perfpolicy.render.merge import without_nulls
from perfpolicy.render.ports import targets

_POD_SECURITY: Final = {"seccompProfile": {"type": "RuntimeDefault"}}
_CONTAINER_SECURITY: Final = {"allowPrivilegeEscalation": False}
_INJECT: Final = "sidecar.istio.io/inject"


def build(policy: Policy) -> tuple[Child, ...]:
    """One Deployment where the policy owns it."""
    owned = policy.workload.owned
    if owned is None:
        return ()
    beneath = without_nulls(owned.template)
    container = _container(beneath, policy.workload.container)
    values = {
        "workload": policy.workload,
        "owned": owned,
        "pull_policy": container.get("imagePullPolicy", "Always" if _is_latest(owned.image) else "IfNotPresent"),
        "env": list(owned.env.items()),  # in the author's order: $(NAME) reads only what stands before it
        "ports": [port for n, port in enumerate(owned.container_ports) if port.target not in targets(owned.container_ports[:n])],
        "labels": _labels(policy, beneath),
        "annotations": _annotations(policy),
        "pod_security": {**_POD_SECURITY, **_spec(beneath).get("securityContext", {})},
        "container_security": {**_CONTAINER_SECURITY, **container.get("securityContext", {})},
    }
    return (Child(policy.workload.name, values, beneath={"spec": {"template": beneath}}),)


def _labels(policy: Policy, beneath: Mapping[str, Any]) -> dict[str, str]:
    """Pod labels: the selector, injection, and a subset's labels, since a subset no pod belongs to answers 503."""
    labels = dict(policy.workload.selector)
    if policy.in_mesh:
        labels[_INJECT] = "true"
    written = {**beneath.get("metadata", {}).get("labels", {}), **labels}
    subsets = [subset.labels for subset in policy.traffic.subsets]
    if subsets and not any(written.items() >= subset.items() for subset in subsets):
        labels = {**subsets[0], **labels}
    return labels


def _annotations(policy: Policy) -> dict[str, str] | None:
    """What the pods' proxies count, and the prometheus.io annotations: with a sidecar, Istio's injector makes its merged endpoint of those.

    The former depends on the mesh alone: no pod is replaced because somebody disables an alert.
    """
    scrape, port = policy.observability.scrape, policy.service.metrics_port
    found = dict((STATS_MATCHER,)) if policy.in_mesh else {}
    if scrape is not None and port is not None:
        found |= {"prometheus.io/scrape": "true", "prometheus.io/port": str(port), "prometheus.io/path": scrape.path}
    return found or None


def _is_latest(image: str) -> bool:
    """Whether the image may be another one tomorrow under the same name: neither tag nor digest, or the tag `latest`."""
    name, _, digest = image.rpartition("/")[2].partition("@")
    tag = name.partition(":")[2]
    return tag == "latest" or not (tag or digest)


def _spec(template: Mapping[str, Any]) -> Mapping[str, Any]:
    spec: Mapping[str, Any] = template.get("spec", {})
    return spec


def _container(template: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    containers: list[Mapping[str, Any]] = _spec(template).get("containers", [])
    return next((container for container in containers if container.get("name") == name), {})


KIND = ChildKind(
    group="apps",
    version="v1",
    kind="Deployment",
    plural="deployments",
    template="deployment.yaml.j2",
    build=build,
    asked="has(spec.workload.deployment)",
    asked_by="spec.workload.deployment",
    suffixes=(),
)
