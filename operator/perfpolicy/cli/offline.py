"""`render` and `lint`: the operator's own code up to the API server, fed from files."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import click

from perfpolicy import documents, yaml_text
from perfpolicy.api.performance_class import PerformanceClass, parse_class
from perfpolicy.api.policy import PerformancePolicy, parse_policy
from perfpolicy.documents import Documents
from perfpolicy.errors import InvalidSpec, Problem
from perfpolicy.policy.builtin import builtin_classes
from perfpolicy.policy.classes import select_class
from perfpolicy.policy.facts import Facts, in_mesh, needed_facts
from perfpolicy.policy.model import Policy
from perfpolicy.policy.resolve import check, resolve
from perfpolicy.vocabulary import API_VERSION, CLASS_KIND, Reason


@dataclass(frozen=True)
class Checked:
    """One policy of the files: resolved, or the problems it has."""

    source: str
    name: str
    wire: PerformancePolicy | None
    cls: PerformanceClass | None
    policy: Policy | None
    problems: tuple[Problem, ...]


def check_files(filenames: Iterable[Path], class_files: Iterable[Path]) -> list[Checked]:
    """Every policy of the files under its class. Raises InvalidSpec where files or classes themselves are wrong."""
    found = documents.read(filenames)
    given = documents.read(class_files).classes
    base = [_class(source, manifest) for source, manifest in given] if given else list(builtin_classes())
    classes = {cls.metadata.name: cls for cls in [*base, *(_class(source, manifest) for source, manifest in found.classes)]}
    return [_check(source, manifest, list(classes.values()), found) for source, manifest in found.policies]


def _class(source: str, manifest: documents.Manifest) -> PerformanceClass:
    try:
        return parse_class(manifest)
    except InvalidSpec as error:
        raise InvalidSpec(Problem(f"{source}: {problem.path}", problem.message, problem.reason) for problem in error.problems) from error


def _check(source: str, manifest: documents.Manifest, classes: list[PerformanceClass], found: Documents) -> Checked:
    metadata = manifest.get("metadata") or {}
    name = f"{metadata.get('namespace', 'default')}/{metadata.get('name')}"
    wire = cls = None
    try:
        wire = parse_policy(manifest)
        try:
            cls = select_class(wire, classes)
        except InvalidSpec as error:
            return Checked(source, name, wire, None, None, (*error.problems, *_without_class(wire, found)))
        return Checked(source, name, wire, cls, resolve(wire, cls, _facts(wire, found)), ())
    except InvalidSpec as error:
        return Checked(source, name, wire, cls, None, error.problems)


def _without_class(wire: PerformancePolicy, found: Documents) -> list[Problem]:
    """What is wrong whatever the class: what only a class can permit is not held against a policy whose class is unknown."""
    empty = parse_class({"apiVersion": API_VERSION, "kind": CLASS_KIND, "metadata": {"name": "none"}, "spec": {}})
    return [problem for problem in check(wire, empty, _facts(wire, found)) if problem.reason is Reason.INVALID]


def _facts(wire: PerformancePolicy, found: Documents) -> Facts:
    """What the operator would read from the cluster, from the same files. A namespace that is not among them counts as in the mesh."""
    needed = needed_facts(wire)
    namespace = found.others.get(("Namespace", "default", needed.namespace))
    labels = (namespace or {}).get("metadata", {}).get("labels") or {}
    target = found.others.get((needed.target.kind, needed.namespace, needed.target.name)) if needed.target else None
    services = {name: found.others[key] for name in needed.services if (key := ("Service", needed.namespace, name)) in found.others}
    return Facts(labels, target, services, in_mesh(labels) if namespace else True)


def render_command(
    filenames: tuple[Path, ...], class_files: tuple[Path, ...], kinds: tuple[str, ...], show_origin: bool, output: str
) -> int:
    """Exit code of `perfpolicy render`."""
    try:
        checked = check_files(filenames, class_files)
    except InvalidSpec as error:
        return _complain(error.problems)
    if any(one.problems for one in checked):
        return _complain(Problem(f"{one.source}: {one.name}: {p.path}", p.message) for one in checked for p in one.problems)
    if not checked:
        return _complain([_no_policy(filenames)])
    results = _origins(checked) if show_origin else list(_objects(checked, kinds))
    if not results:
        return _complain([Problem("--only", f"no policy has a child of kind {', '.join(kinds)}")])
    if output == "json":
        click.echo(json.dumps(results[0] if len(results) == 1 else {"apiVersion": "v1", "kind": "List", "items": results}, indent=2))
    else:
        click.echo(yaml_text.dump_all(results), nl=False)
    return 0


def _objects(checked: list[Checked], kinds: tuple[str, ...]) -> Iterator[dict[str, object]]:
    from perfpolicy.promql.rules import rule_groups
    from perfpolicy.render import KINDS, render

    known = {kind.kind for kind in KINDS}
    if unknown := [kind for kind in kinds if kind not in known | {"rules"}]:
        raise click.BadParameter(f"{', '.join(unknown)}: use one of {', '.join(sorted(known))}, rules", param_hint="--only")
    policies = [one.policy for one in checked if one.policy]
    if "rules" in kinds:
        yield {"groups": [group.to_dict() for policy in policies for group in rule_groups(policy)]}
    for policy in policies:
        yield from (manifest for manifest in render(policy).manifests if not kinds or manifest["kind"] in kinds)


def _origins(checked: list[Checked]) -> list[dict[str, object]]:
    from perfpolicy.policy.layers import merge

    out: list[dict[str, object]] = []
    for one in checked:
        if one.wire and one.cls:
            layered = merge(one.wire, one.cls)
            fields = {
                path: {"value": value, "from": layered.origins[path]} for path, value in _fields(layered.values, "spec", layered.origins)
            }
            out.append({"policy": one.name, "class": one.cls.metadata.name, "fields": fields})
    return out


def _fields(value: object, path: str, origins: Mapping[str, str]) -> Iterator[tuple[str, object]]:
    """(path, value) of every value that has an origin of its own. Keys may hold dots, so paths are built downwards and never split."""
    if path in origins:
        yield path, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _fields(inner, f"{path}.{key}", origins)


def lint_command(filenames: tuple[Path, ...], class_files: tuple[Path, ...], output: str) -> int:
    """Exit code of `perfpolicy lint`: 1 when anything is wrong; anti-patterns alone are advice and exit 0."""
    from perfpolicy.policy.antipatterns import antipatterns
    from perfpolicy.promql.alerts import left_out
    from perfpolicy.promql.rules import rule_groups

    try:
        checked = check_files(filenames, class_files)
    except InvalidSpec as error:
        return _complain(error.problems)
    if not checked:
        return _complain([_no_policy(filenames)])
    found = {one.name: antipatterns(one.policy) if one.policy else () for one in checked}
    for one in checked:
        if one.policy:
            rule_groups(one.policy)  # parses every expression: one that does not parse is our defect and ends here
    notes = {one.name: left_out(one.policy) if one.policy else () for one in checked}
    if output == "json":
        report = [
            {
                "policy": one.name,
                "file": one.source,
                "problems": [{"path": p.path, "message": p.message, "reason": p.reason.value} for p in one.problems],
                "antiPatterns": [
                    {"name": a.name, "symptom": a.symptom, "impact": a.impact, "solution": a.solution} for a in found[one.name]
                ],
                "notes": list(notes[one.name]),
            }
            for one in checked
        ]
        click.echo(json.dumps(report, indent=2))
    else:
        for one in checked:
            for problem in one.problems:
                click.echo(f"{one.source}: {one.name}: {problem}")
            for pattern in found[one.name]:
                click.echo(f"{one.source}: {one.name}: advice: {pattern.name}: {pattern.symptom}; {pattern.solution}")
            for note in notes[one.name]:
                click.echo(f"{one.source}: {one.name}: note: {note}")
        broken = sum(bool(one.problems) for one in checked)
        click.echo(f"{len(checked)} policies checked, {broken} with problems", err=True)
    return 1 if any(one.problems for one in checked) else 0


def _no_policy(filenames: Iterable[Path]) -> Problem:
    return Problem(", ".join(map(str, filenames)), "holds no PerformancePolicy")


def _complain(problems: Iterable[Problem]) -> int:
    for problem in problems:
        click.echo(str(problem), err=True)
    return 1
