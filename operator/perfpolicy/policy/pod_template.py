"""The part of spec.workload.deployment.template this program reads, checked; the API server checks the rest when the Deployment is applied.

The schema keeps unknown fields there, so anything may arrive: every step down looks first. Pure.
"""

from collections.abc import Mapping
from typing import Any, Final

from perfpolicy.policy.pod_security import check_annotations, check_labels, check_pod
from perfpolicy.policy.resolution import Resolution
from perfpolicy.units import parse_quantity

PATH: Final = "spec.workload.deployment.template"
_AMOUNTS: Final = ("requests", "limits")
_DEEPEST: Final = 32
"""Levels. A pod template of Kubernetes has about fifteen."""
_LARGEST: Final = 65536
"""Characters, and a few for each value."""


def checked_template(context: Resolution, template: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The template where it is one; an empty one after reporting that it is not."""
    known = dict(template or {})
    before = len(context.problems)
    if not _is_small(context, known):
        return {}
    for key in sorted(set(known) - {"metadata", "spec"}):
        context.report(f"{PATH}.{key}", "unknown field: a pod template has metadata and spec")
    metadata = _mapping(context, PATH, known, "metadata")
    _check_metadata(context, metadata)
    spec = _mapping(context, PATH, known, "spec")
    _check_containers(context, spec.get("containers"))
    if len(context.problems) == before:
        _check_security(context, metadata, spec)
    return known if len(context.problems) == before else {}


def application_container(template: Mapping[str, Any]) -> Mapping[str, Any]:
    """The first container of a checked template; empty where it has none."""
    containers: list[Mapping[str, Any]] = (template.get("spec") or {}).get("containers") or [{}]
    return containers[0]


def _check_security(context: Resolution, metadata: Mapping[str, Any], spec: Mapping[str, Any]) -> None:
    def report(path: str, message: str) -> None:
        context.report(f"{PATH}.{path}", message)

    deployment, service = context.policy.spec.workload.deployment, context.settings.service
    ports = {port.port for port in (deployment.ports if deployment else ())}
    ports |= {port for port in (service.target_port, service.metrics_port) if port} if service else set()
    check_labels(report, metadata.get("labels") or {})
    check_annotations(report, metadata.get("annotations") or {}, frozenset(ports))
    check_pod(report, spec, context.granted.service_accounts)


def _is_small(context: Resolution, template: Mapping[str, Any]) -> bool:
    """Reports a template that is too deep or too large to walk through, or has keys that are not text. Itself it never recurses."""
    size, level = 0, list[object]([template])
    for _ in range(_DEEPEST):
        below: list[object] = []
        for value in level:
            size += len(value) if isinstance(value, str) else 8
            if isinstance(value, Mapping):
                below += [*value, *value.values()]
                if not all(isinstance(key, str) for key in value):
                    context.report(PATH, "every key must be text")
                    return False
            elif isinstance(value, list):
                below += value
        if size > _LARGEST:
            context.report(PATH, f"too large: a template may have {_LARGEST} characters")
            return False
        if not below:
            return True
        level = below
    context.report(PATH, f"too deep: a template may have {_DEEPEST} levels")
    return False


def _check_metadata(context: Resolution, metadata: Mapping[str, Any]) -> None:
    for key in sorted(set(metadata) - {"labels", "annotations"}):
        context.report(f"{PATH}.metadata.{key}", "only labels and annotations are allowed here")
    for part in ("labels", "annotations"):
        for key, value in _mapping(context, f"{PATH}.metadata", metadata, part).items():
            if not isinstance(value, str):
                context.report(f"{PATH}.metadata.{part}.{key}", f"{value!r} must be text: put it in quotes")
    name = context.policy.metadata.name
    labels = metadata.get("labels")
    if isinstance(labels, Mapping) and labels.get("app", name) != name:
        context.report(f"{PATH}.metadata.labels.app", f"must be {name!r} or left out: the Deployment selects its pods by it")


def _check_containers(context: Resolution, containers: object) -> None:
    path = f"{PATH}.spec.containers"
    if containers is None:
        return
    if not isinstance(containers, list):
        context.report(path, "must be a list")
        return
    names: set[str] = set()
    for index, container in enumerate(containers):
        place = f"{path}[{index}]"
        if not isinstance(container, Mapping):
            context.report(place, "must be an object")
            continue
        name = container.get("name")
        if not isinstance(name, str) or not name or name in names:
            context.report(f"{place}.name", "every container needs a name of its own")
        names.add(str(name))
        resources = _mapping(context, place, container, "resources")
        for part in _AMOUNTS:
            _check_quantities(context, f"{place}.resources.{part}", _mapping(context, f"{place}.resources", resources, part))


def _check_quantities(context: Resolution, path: str, amounts: Mapping[str, Any]) -> None:
    for key in sorted({"cpu", "memory"} & set(amounts)):
        try:
            parse_quantity(str(amounts[key]))
        except ValueError as error:
            context.report(f"{path}.{key}", str(error))


def _mapping(context: Resolution, path: str, parent: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = parent.get(key)
    if isinstance(value, Mapping):
        return value
    if value is not None:
        context.report(f"{path}.{key}", "must be an object")
    return {}
