"""Wire format of the pods a policy speaks about and the Service in front of them."""

from typing import Annotated, Any, Literal

from pydantic import Field

from perfpolicy.api.base import (
    Named,
    ObjectName,
    PortName,
    PortNumber,
    PositiveSeconds,
    Quantity,
    Rule,
    Seconds,
    ServiceName,
    UrlPath,
    Wire,
)


class TargetRef(Wire):
    """An existing workload. It is read, never edited; its selector may use matchLabels only."""

    group: Literal["apps", "argoproj.io"]
    """API group of the kind: apps, or argoproj.io for a Rollout."""
    kind: Literal["Deployment", "StatefulSet", "DaemonSet", "Rollout"]
    """Kind of the workload."""
    name: ObjectName
    """Name of the workload, in the policy's namespace."""

    RULES = (
        Rule(
            cel="(self.kind == 'Rollout') == (self.group == 'argoproj.io')",
            holds=lambda ref: (ref.kind == "Rollout") == (ref.group == "argoproj.io"),
            message="group is apps for Deployment, StatefulSet and DaemonSet, and argoproj.io for Rollout",
            field="group",
        ),
    )


class ServiceRef(Wire):
    """An existing Service. It is read, never edited."""

    name: ServiceName
    """Name of the Service, in the policy's namespace."""


class ContainerPort(Wire):
    """A port the application listens on."""

    name: PortName
    """Name of the port. Its first part says the protocol, as in Istio: http, http-api, grpc-orders, tcp-sql. Anything else is TCP."""
    port: PortNumber
    """Number the container listens on."""


class Amounts(Wire):
    """CPU and memory."""

    cpu: Quantity | None = None
    """CPU cores, for example 500m or 2."""
    memory: Quantity | None = None
    """Memory in bytes, for example 512Mi."""


class ResourceAmounts(Wire):
    """What the application container asks for and may use at most."""

    requests: Amounts | None = None
    """What the scheduler keeps free for the container."""
    limits: Amounts | None = None
    """What the container may use at most."""


class HttpProbe(Wire):
    """An HTTP GET the kubelet makes."""

    path: UrlPath
    """Path asked for."""
    port: PortNumber | None = None
    """Container port asked. Left out: the first of the deployment's ports."""
    initial_delay: Seconds | None = None
    """Wait after the container starts. Left out: 0s."""
    period: PositiveSeconds | None = None
    """Time between two probes. Left out: 10s."""
    timeout: PositiveSeconds | None = None
    """An answer slower than this fails the probe. Left out: 1s."""
    failure_threshold: Annotated[int, Field(ge=1, le=100)] | None = None
    """Failures in a row after which the kubelet acts. Left out: 3."""


class Probes(Wire):
    """Health checks of the application container."""

    liveness: HttpProbe | None = None
    """Restarts the container when it fails."""
    readiness: HttpProbe | None = None
    """Takes the pod out of the Service while it fails."""


class EnvVar(Wire):
    """An environment variable with a plain value; use `template` for values from elsewhere."""

    name: Annotated[str, Field(pattern="^[A-Za-z_][A-Za-z0-9_.-]*$", max_length=128)]
    """Name of the variable."""
    value: Annotated[str, Field(max_length=4096)]
    """Its value. `$(OTHER)` is replaced as in any pod."""


class Deployment(Wire):
    """A Deployment the policy creates under its own name."""

    image: Annotated[str, Field(pattern="^[A-Za-z0-9][A-Za-z0-9._/:@-]*$", max_length=512)]
    """Container image of the application."""
    replicas: Annotated[int, Field(ge=0, le=1000)]
    """Number of pods."""
    ports: Annotated[Named[ContainerPort], Field(min_length=1)]
    """Ports the application listens on; the first is its main port."""
    resources: ResourceAmounts | None = None
    """CPU and memory of the application container."""
    probes: Probes | None = None
    """Health checks of the application container."""
    env: Annotated[Named[EnvVar], Field(max_length=64)] | None = None
    """Environment of the application container."""
    template: Annotated[dict[str, Any], Field(max_length=8, json_schema_extra={"x-kubernetes-preserve-unknown-fields": True})] | None = None
    """The rest of the pod, as a PodTemplateSpec; the fields above win over it. Its first container is the application's."""


class Workload(Wire):
    """Exactly one of targetRef (an existing workload) and deployment (one the policy creates)."""

    target_ref: TargetRef | None = None
    """An existing workload, which the policy observes and shapes the traffic of."""
    service_ref: ServiceRef | None = None
    """The existing workload's Service. Left out: the policy creates one from spec.service."""
    deployment: Deployment | None = None
    """A Deployment the policy creates, together with its Service."""

    RULES = (
        Rule(
            cel="has(self.targetRef) != has(self.deployment)",
            holds=lambda workload: (workload.target_ref is None) != (workload.deployment is None),
            message="set exactly one of targetRef (an existing workload) and deployment (one the policy creates)",
        ),
        Rule(
            cel="!has(self.serviceRef) || has(self.targetRef)",
            holds=lambda workload: workload.service_ref is None or workload.target_ref is not None,
            message="serviceRef goes with targetRef: with deployment the policy creates its own Service",
            field="serviceRef",
        ),
    )


class ServiceSpec(Wire):
    """The Service the policy creates, and where the application's own metrics are."""

    port: PortNumber | None = None
    """Port clients use. Left out: 80 for a Deployment the policy creates."""
    target_port: PortNumber | None = None
    """Container port behind it. Left out: the workload's first port that is not the metrics port."""
    app_protocol: Literal["Http", "Grpc", "Tcp"] | None = None
    """What is spoken on the port. Left out: said by the first part of the container port's name, else Tcp."""
    metrics_port: PortNumber | None = None
    """Container port of the application's own metrics endpoint, named metrics or http-metrics. It stays scrapable when mTLS is Strict."""
