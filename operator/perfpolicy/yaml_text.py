"""YAML in and out, one way for the whole package. Pure text work: touches no file.

Duplicate keys are refused: PyYAML keeps the last one silently, which is how half of a spec gets lost. Plain words mean what they mean to
kubectl: `y` and `N` are booleans, `1e3` and `0o17` are numbers, and `10:20` is text. PyYAML by itself says the opposite of each, so what it
writes plainly kubectl would read as something else, and a file it accepts kubectl would refuse.
"""

import re
from collections.abc import Hashable, Iterable
from typing import Any, ClassVar

import yaml

try:  # libyaml is about ten times faster; the pure loader reads the same language
    from yaml import CSafeDumper as _BaseDumper
    from yaml import CSafeLoader as _BaseLoader
except ImportError:  # pragma: no cover - wheels of PyYAML carry libyaml on every platform we test
    from yaml import SafeDumper as _BaseDumper  # type: ignore[assignment]
    from yaml import SafeLoader as _BaseLoader  # type: ignore[assignment]


_BOOL = "tag:yaml.org,2002:bool"
_INT = "tag:yaml.org,2002:int"
_FLOAT = "tag:yaml.org,2002:float"
_WORDS = "y|yes|n|no|true|false|on|off"
_KUBECTL = (
    (_BOOL, "|".join(f"{word}|{word.capitalize()}|{word.upper()}" for word in _WORDS.split("|")), "yYnNtTfFoO"),
    (_INT, r"[-+]?(?:0b[01_]+|0o[0-7_]+|0x[0-9a-fA-F_]+|[0-9][0-9_]*)", "-+0123456789"),
    (_FLOAT, r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", "-+.0123456789"),
)
"""Tag, form and first characters of plain words, in the order they are tried."""


class _Loader(_BaseLoader):
    """Safe loader that refuses duplicate keys."""

    bool_values: ClassVar = {**_BaseLoader.bool_values, "y": True, "n": False}
    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's stub declares an instance variable
        first: [(tag, form) for tag, form in forms if tag not in (_BOOL, _INT, _FLOAT)]
        for first, forms in _BaseLoader.yaml_implicit_resolvers.items()
    }


class _Dumper(_BaseDumper):
    """Safe dumper without anchors: kubectl users read and paste the output."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - PyYAML's signature
        return True


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Hashable, Any]:
    seen: set[Hashable] = set()
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
        key = loader.construct_object(key_node, deep=True)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"duplicate key {key!r}", key_node.start_mark)
        seen.add(key)
    loader.flatten_mapping(node)
    return {loader.construct_object(k, deep=True): loader.construct_object(v, deep=True) for k, v in node.value}


def _text(loader: _Loader, node: yaml.ScalarNode) -> Any:
    return loader.construct_scalar(node)


for _tag, _form, _first in _KUBECTL:
    # The dumper keeps PyYAML's own forms, too: quoting a word that needs no quotes does no harm.
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(_tag, re.compile(f"^(?:{_form})$"), list(_first))
_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
# Timestamps stay text: Kubernetes has no YAML timestamp type.
_Loader.add_constructor("tag:yaml.org,2002:timestamp", _text)


def load_all(text: str) -> list[Any]:
    """Every document of a YAML stream. Raises ValueError with line and column, also for duplicate keys."""
    try:
        return [document for document in yaml.load_all(text, Loader=_Loader) if document is not None]
    except yaml.YAMLError as error:
        raise ValueError(f"not valid YAML: {' '.join(str(error).split())}") from error


def load(text: str) -> Any:
    """The single document of a YAML text; ValueError where there is none or more than one."""
    documents = load_all(text)
    if len(documents) != 1:
        raise ValueError(f"expected one YAML document, found {len(documents)}")
    return documents[0]


def dump_all(documents: Iterable[Any]) -> str:
    """Documents as a YAML stream, keys in the order given, no anchors."""
    return yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=140, explicit_start=True)


def dump(document: Any) -> str:
    """One document as YAML, without the leading `---`."""
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=140)
