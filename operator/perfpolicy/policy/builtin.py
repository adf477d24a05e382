"""The classes that come with the program: what the chart installs, and what the command line uses without a --class-file."""

from importlib.resources import files

from perfpolicy.api.performance_class import PerformanceClass, parse_class
from perfpolicy.yaml_text import load_all


def builtin_classes() -> tuple[PerformanceClass, ...]:
    """development, testing, staging and production; the last is the default."""
    return tuple(parse_class(document) for document in load_all(builtin_classes_text()))


def builtin_classes_text() -> str:
    """The same as the YAML text shipped in the package."""
    return files("perfpolicy.policy").joinpath("builtin_classes.yaml").read_text(encoding="utf-8")
