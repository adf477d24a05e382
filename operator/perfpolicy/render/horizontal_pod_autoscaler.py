"""The HorizontalPodAutoscaler: pods by the use of the application's container.

ContainerResource, not Resource: a sidecar's use says nothing about the application, and where one container of a pod has no request the
whole pod has no figure.
"""

from typing import Final

from perfpolicy.policy.model import Policy
from perfpolicy.render.manifest import Child, ChildKind, used

_VERSIONS: Final = {"argoproj.io": "v1alpha1", "apps": "v1"}
"""Of the groups whose workloads are scaled."""


def build(policy: Policy) -> tuple[Child, ...]:
    """One where the policy scales."""
    scaling, workload = policy.scaling, policy.workload
    if scaling is None:
        return ()
    use = (("cpu", scaling.cpu_percent), ("memory", scaling.memory_percent))
    values = {
        "workload": workload,
        "api_version": f"{workload.group}/{_VERSIONS[workload.group]}",
        "scaling": scaling,
        "metrics": [(name, percent) for name, percent in use if percent is not None],
    }
    return (Child(policy.key.name, values),)


KIND = ChildKind(
    group="autoscaling",
    version="v2",
    kind="HorizontalPodAutoscaler",
    plural="horizontalpodautoscalers",
    template="horizontal_pod_autoscaler.yaml.j2",
    build=build,
    asked=used("spec.scaling"),
    asked_by="spec.scaling",
)
