"""The workload and its Service: from the spec where the policy creates them, from the cluster's objects where it refers to them. Pure."""

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any, Final

from perfpolicy.api import workload as wire
from perfpolicy.policy import model
from perfpolicy.policy.facts import is_ambient, leads_elsewhere
from perfpolicy.policy.pod_template import application_container, checked_template
from perfpolicy.policy.resolution import Resolution
from perfpolicy.units import parse_duration, parse_quantity
from perfpolicy.vocabulary import Reason

SIDECARS: Final = frozenset({"istio-proxy", "istio-validation"})
METRICS_PORT_NAME: Final = "http-metrics"
METRICS_PORT_NAMES: Final = ("metrics", METRICS_PORT_NAME)
"""What a port is called that may take plaintext from anybody: whoever made the pods must have said so, not only the policy's author."""
_HTTP: Final = frozenset({"http", "http2", "kubernetes.io/h2c", "kubernetes.io/ws"})
_GRPC: Final = frozenset({"grpc", "grpc-web"})


def protocol(app_protocol: str | None, name: str) -> model.Protocol:
    """Istio's rule: appProtocol, else the part of the port's name before the first -, else TCP."""
    said = (app_protocol or name.split("-")[0]).lower()
    if name.startswith("grpc-web") or said in _GRPC:
        return model.Protocol.GRPC
    return model.Protocol.HTTP if said in _HTTP else model.Protocol.TCP


def resolve_workload(context: Resolution) -> tuple[model.Workload, model.Service] | None:
    """The workload and its Service; None after reporting that one cannot be had."""
    if is_ambient(context.facts.namespace_labels):
        context.report(
            "metadata.namespace",
            f"namespace {context.namespace} is in the ambient mesh: only sidecars are supported",
            Reason.TARGET_UNSUPPORTED,
        )
        return None
    spec = context.policy.spec.workload
    if spec.deployment is not None:
        return _created(context, spec.deployment)
    if spec.target_ref is None:
        raise RuntimeError("a policy without workload passed its schema")
    workload = _referred(context, spec.target_ref)
    if workload is None:
        return None
    if spec.service_ref is None:
        created = _service_for_target(context)
        return (workload, created) if created else None
    service = _existing_service(context, spec.service_ref.name)
    if service is None:
        return None
    # A Service may stand in front of several versions of the workload; what protects one must protect all.
    selector = dict(context.facts.services[service.name]["spec"]["selector"])
    return replace(workload, selector=selector), service


def pod_labels(context: Resolution) -> Mapping[str, str]:
    """Labels of the workload's pods, as far as its pod template says."""
    deployment = context.policy.spec.workload.deployment
    template = deployment.template if deployment else (context.facts.target or {}).get("spec", {}).get("template")
    metadata = (template or {}).get("metadata")
    labels = metadata.get("labels") if isinstance(metadata, Mapping) else None
    return labels if isinstance(labels, Mapping) else {}


def _created(context: Resolution, spec: wire.Deployment) -> tuple[model.Workload, model.Service]:
    name = context.policy.metadata.name
    if not context.granted.workload_creation:
        context.report(
            "spec.workload.deployment",
            f"class {context.cls.metadata.name} does not grant namespace {context.namespace} workloadCreation: use targetRef",
            Reason.NOT_GRANTED,
        )
    template = checked_template(context, spec.template)
    container = application_container(template)
    metrics_port = context.settings.service.metrics_port if context.settings.service else None
    ports = [model.Port(port.name, port.port, port.port, protocol(None, port.name)) for port in spec.ports]
    if metrics_port and all(port.number != metrics_port for port in ports):
        ports.append(model.Port(METRICS_PORT_NAME, metrics_port, metrics_port, model.Protocol.HTTP))
        if any(port.name == METRICS_PORT_NAME for port in spec.ports):
            context.report("spec.service.metricsPort", f"the port named {METRICS_PORT_NAME} has another number")
    probes = spec.probes or wire.Probes()
    resources, beneath = spec.resources or wire.ResourceAmounts(), container.get("resources") or {}
    workload = model.Workload(
        kind="Deployment",
        name=name,
        selector={"app": name},
        container=str(container.get("name", name)),
        requests=_amounts(resources.requests, beneath.get("requests")),
        limits=_amounts(resources.limits, beneath.get("limits")),
        owned=model.OwnedDeployment(
            image=spec.image,
            replicas=spec.replicas,
            container_ports=tuple(ports),
            env={variable.name: variable.value for variable in spec.env or ()},
            liveness=_probe(probes.liveness, spec.ports[0].port),
            readiness=_probe(probes.readiness, spec.ports[0].port),
            template=template,
        ),
        pod_labels={**pod_labels(context), "app": name},
    )
    _check_requests(context, workload)
    service = _created_service(context, ports, default_port=80)
    _check_metrics_port(context, service.ports, [port.name for port in ports if port.number == metrics_port])
    return workload, service


def _check_requests(context: Resolution, workload: model.Workload) -> None:
    for name in ("cpu", "memory"):
        wanted, most = getattr(workload.requests, name), getattr(workload.limits, name)
        if wanted is not None and most is not None and wanted > most:
            path = f"spec.workload.deployment.resources.requests.{name}"
            context.report(path, f"exceeds the container's limit of {name}: ask for less, or raise limits.{name}")


def _referred(context: Resolution, ref: wire.TargetRef) -> model.Workload | None:
    path, target = "spec.workload.targetRef", context.facts.target
    if target is None:
        context.report(path, f"there is no {ref.kind} {ref.name!r} in namespace {context.namespace}", Reason.TARGET_NOT_FOUND)
        return None
    spec = target.get("spec") or {}
    selector = spec.get("selector") or {}
    problem = ""
    if selector.get("matchExpressions"):
        problem = "its selector uses matchExpressions, which Istio's selectors cannot express: use matchLabels"
    elif not selector.get("matchLabels"):
        problem = "its selector has no matchLabels"
    elif not _containers(spec.get("template") or {}):
        problem = "it has no pod template with containers"
    if problem:
        context.report(path, f"{ref.kind} {ref.name!r} cannot be targeted: {problem}", Reason.TARGET_UNSUPPORTED)
        return None
    container = _application_container(spec["template"])
    resources = container.get("resources") or {}
    return model.Workload(
        kind=ref.kind,
        name=ref.name,
        selector=dict(selector["matchLabels"]),
        container=str(container["name"]),
        requests=_amounts(None, resources.get("requests")),
        limits=_amounts(None, resources.get("limits")),
        owned=None,
        pod_labels=dict(pod_labels(context)),
    )


def _existing_service(context: Resolution, name: str) -> model.Service | None:
    path, service = "spec.workload.serviceRef.name", context.facts.services.get(name)
    if service is None:
        context.report(path, f"there is no Service {name!r} in namespace {context.namespace}", Reason.TARGET_NOT_FOUND)
        return None
    spec = service.get("spec") or {}
    if problem := leads_elsewhere(spec):
        context.report(path, f"Service {name!r} {problem}", Reason.TARGET_UNSUPPORTED)
        return None
    template = (context.facts.target or {}).get("spec", {}).get("template", {})
    labels = pod_labels(context)
    if not (spec.get("selector") or {}).items() <= labels.items():
        context.report(path, f"Service {name!r} does not select the pods of the target", Reason.TARGET_UNSUPPORTED)
        return None
    found = [_service_port(context, path, port, template) for port in spec.get("ports") or ()]
    ports = tuple(port for port in found if port is not None)
    metrics_port = context.settings.service.metrics_port if context.settings.service else None
    # Whoever may make Services could call any port of the pods so: the pods must, and the Service must not call it otherwise.
    named = _container_port_names(template, metrics_port)
    _check_metrics_port(context, ports, named and [*named, *(port.name for port in ports if port.target == metrics_port)])
    return model.Service(name=name, fqdn=context.fqdn(name), owned=False, ports=ports, metrics_port=metrics_port)


def _check_metrics_port(context: Resolution, ports: tuple[model.Port, ...], names: list[str]) -> None:
    """Reports a metrics port whose `names`, on pods and Service, do not say that it is one, unless it is the only port, which stays closed.

    It would be open to plaintext and to everybody, whatever the class's limits and the other fields of `security` say.
    """
    number = context.settings.service.metrics_port if context.settings.service else None
    if number is None or (ports and all(port.target == number for port in ports)):
        return
    if not names or not set(names) <= set(METRICS_PORT_NAMES):
        wanted = " or ".join(METRICS_PORT_NAMES)
        found = f"is called {', '.join(repr(name) for name in dict.fromkeys(names))}" if names else "is none of its pods' container ports"
        message = (
            f"{number} would be open without mTLS and rules, for Prometheus, but {found}: only a container port named {wanted}, which no"
            " Service port calls otherwise, may be"
        )
        context.report("spec.service.metricsPort", message)


def _container_port_names(template: Mapping[str, Any], number: int | None) -> list[str]:
    return [
        str(port.get("name", "")) for c in _containers(template) for port in c.get("ports") or () if port.get("containerPort") == number
    ]


def _service_port(context: Resolution, path: str, port: Mapping[str, Any], template: Mapping[str, Any]) -> model.Port | None:
    name, number, target = str(port.get("name", "")), int(port["port"]), port.get("targetPort", port["port"])
    if isinstance(target, str):
        named = {p.get("name"): p.get("containerPort") for c in _containers(template) for p in c.get("ports") or ()}
        if named.get(target) is None:
            context.report(path, f"its port {number} points to a container port {target!r} the target lacks", Reason.TARGET_UNSUPPORTED)
            return None
        target = named[target]
    return model.Port(name, number, int(str(target)), protocol(port.get("appProtocol"), name))


def _service_for_target(context: Resolution) -> model.Service | None:
    template = (context.facts.target or {}).get("spec", {}).get("template", {})
    if context.settings.service is None or context.settings.service.port is None:
        context.report("spec.workload", "name the target's Service in serviceRef, or set spec.service.port to have one created")
        return None
    raw = _application_container(template).get("ports") or ()
    ports = [
        model.Port(str(p.get("name", "")), int(p["containerPort"]), int(p["containerPort"]), protocol(None, str(p.get("name", ""))))
        for p in raw
    ]
    service = _created_service(context, ports, default_port=context.settings.service.port)
    _check_metrics_port(context, service.ports, _container_port_names(template, service.metrics_port))
    return service


def _created_service(context: Resolution, container_ports: list[model.Port], default_port: int) -> model.Service:
    settings = context.settings.service or wire.ServiceSpec()
    application = [port for port in container_ports if port.number != settings.metrics_port]
    target = settings.target_port or (application[0].number if application else None)
    if target is None:
        context.report("spec.service.targetPort", "the workload declares no port besides the metrics port: name the container port")
        target = settings.port or default_port
    name = next((port.name for port in application if port.number == target), "")
    spoken = protocol(settings.app_protocol, name)
    ports = [model.Port(spoken.value, settings.port or default_port, target, spoken)]
    if settings.metrics_port:
        ports.append(model.Port(METRICS_PORT_NAME, settings.metrics_port, settings.metrics_port, model.Protocol.HTTP))
    if len({port.number for port in ports}) < len(ports):
        context.report("spec.service.metricsPort", "must differ from spec.service.port: both are ports of the same Service")
    own = context.policy.metadata.name
    return model.Service(own, context.fqdn(own), owned=True, ports=tuple(ports), metrics_port=settings.metrics_port)


def _containers(template: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return list((template.get("spec") or {}).get("containers") or [])


def _application_container(template: Mapping[str, Any]) -> Mapping[str, Any]:
    containers = _containers(template)
    return next((container for container in containers if container.get("name") not in SIDECARS), containers[0])


def _amounts(named: wire.Amounts | None, raw: Mapping[str, Any] | None) -> model.Resources:
    """What the policy names, else what a pod spec has."""
    own, beneath = named or wire.Amounts(), raw or {}
    return model.Resources(_quantity(own.cpu, beneath.get("cpu")), _quantity(own.memory, beneath.get("memory")))


def _quantity(*candidates: object) -> Decimal | None:
    return next((parse_quantity(str(text)) for text in candidates if text is not None), None)


def _probe(probe: wire.HttpProbe | None, default_port: int) -> model.Probe | None:
    if probe is None:
        return None
    return model.Probe(
        path=probe.path,
        port=probe.port or default_port,
        initial_delay=parse_duration(probe.initial_delay or "0s"),
        period=parse_duration(probe.period or "10s"),
        timeout=parse_duration(probe.timeout or "1s"),
        failure_threshold=probe.failure_threshold or 3,
    )
