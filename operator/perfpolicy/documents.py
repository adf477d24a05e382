"""Manifests from files: for the offline commands, and mounted classes. The only place that reads users' files; problems name the file."""

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from perfpolicy import yaml_text
from perfpolicy.errors import InvalidSpec, Problem
from perfpolicy.vocabulary import API_VERSION, CLASS_KIND, GROUP, POLICY_KIND

Manifest = Mapping[str, Any]


@dataclass(frozen=True)
class Documents:
    """What the files hold: our kinds apart, everything else by (kind, namespace, name) for policies to refer to."""

    policies: list[tuple[str, Manifest]] = field(default_factory=list)
    """(file, manifest)."""
    classes: list[tuple[str, Manifest]] = field(default_factory=list)
    others: dict[tuple[str, str, str], Manifest] = field(default_factory=dict)


def read(paths: Iterable[Path]) -> Documents:
    """Every document of the files and folders. Raises InvalidSpec naming each file that is missing or is not YAML."""
    documents = Documents()
    problems: list[Problem] = []
    for path in paths:
        for source, text in _texts(path, problems):
            try:
                loaded = yaml_text.load_all(text)
            except ValueError as error:
                problems.append(Problem(source, str(error)))
                continue
            for manifest in loaded:
                problems += _sort(documents, source, manifest)
    if problems:
        raise InvalidSpec(problems)
    return documents


def _texts(path: Path, problems: list[Problem]) -> Iterator[tuple[str, str]]:
    if str(path) == "-":
        yield "standard input", sys.stdin.read()
        return
    if not path.exists():
        problems.append(Problem(str(path), "no such file or folder"))
        return
    files = sorted(p for p in path.rglob("*") if p.suffix in {".yaml", ".yml", ".json"}) if path.is_dir() else [path]
    if not files:
        problems.append(Problem(str(path), "holds no .yaml, .yml or .json file"))
    for file in files:
        yield str(file), file.read_text()


def _sort(documents: Documents, source: str, manifest: Any) -> list[Problem]:
    if not isinstance(manifest, dict) or not isinstance(manifest.get("kind"), str):
        return [Problem(source, "a document is not a Kubernetes object: it has no kind")]
    if manifest["kind"] == "List" and isinstance(manifest.get("items"), list):
        return [problem for item in manifest["items"] for problem in _sort(documents, source, item)]
    kind, version = manifest["kind"], str(manifest.get("apiVersion"))
    if version.split("/")[0] != GROUP:
        metadata = manifest.get("metadata") or {}
        documents.others[(kind, str(metadata.get("namespace", "default")), str(metadata.get("name")))] = manifest
        return []
    if version != API_VERSION or kind not in {POLICY_KIND, CLASS_KIND}:
        return [Problem(source, f"{version} {kind} is unknown: use {API_VERSION} {POLICY_KIND} or {CLASS_KIND}")]
    (documents.policies if kind == POLICY_KIND else documents.classes).append((source, manifest))
    return []
