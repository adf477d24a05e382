"""What the engine refuses, and what it does with absence."""

from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import Any

import pytest
from jinja2 import DictLoader

from perfpolicy.errors import RenderError
from perfpolicy.render import ChildKind, Manifest, engine
from perfpolicy.render.manifest import ALWAYS, Child
from tests.builders import a_policy

KIND = ChildKind("example.io", "v1", "Thing", "things", "thing.yaml.j2", build=lambda _: (), asked=ALWAYS, asked_by="every policy")
HEAD = "apiVersion: example.io/v1\nkind: Thing\nmetadata: {{ metadata }}\n"

Render = Callable[..., Manifest]


@pytest.fixture
def render(monkeypatch: pytest.MonkeyPatch) -> Iterator[Render]:
    """Render a template given as text; the real environment otherwise."""

    def run(template: str, *, beneath: Mapping[str, Any] | None = None, **values: object) -> Manifest:
        engine.template.cache_clear()
        monkeypatch.setattr(engine._environment(), "loader", DictLoader({"thing.yaml.j2": template}))
        monkeypatch.setattr(engine._environment(), "cache", {})
        return engine.manifest(KIND, a_policy(uid=""), Child("thing", values, beneath=beneath or {}))

    yield run
    engine.template.cache_clear()


def body(render: Render, template: str, **values: object) -> Any:
    """What follows the head."""
    return render(HEAD + template, **values).get("spec")


def test_values_arrive_as_they_are(render: Render) -> None:
    value = {"a": ['x: "y"\n- {{ z }}', "\u2028\x85\U0001f600", 1, 0.00000001, True]}
    assert body(render, "spec: {{ value }}", value=value) == value


def test_a_value_is_a_copy(render: Render) -> None:
    value = {"a": [1]}
    body(render, "spec: {{ value }}", value=value)["a"].append(2)
    assert value == {"a": [1]}


def test_equal_shapes_do_not_share_what_they_hold(render: Render) -> None:
    first, second = (body(render, "spec: {a: {{ x }}, b: [c]}", x=x) for x in ("one", "two"))
    first["b"].append("changed")
    assert (first["a"], second) == ("one", {"a": "two", "b": ["c"]})


def test_what_is_not_asked_for_is_left_out(render: Render) -> None:
    assert body(render, "spec:\n  a: {{ x }}\n  b:\n    c: {{ x }}\n  d: 1\n  e:\n", x=None) == {"d": 1}


def test_empty_values_stay(render: Render) -> None:
    assert body(render, "spec: {a: {{ x }}, b: {{ y }}, c: {}}", x={}, y=[]) == {"a": {}, "b": [], "c": {}}


@pytest.mark.parametrize(
    ("template", "values", "message"),
    [
        ("spec: {a: x{{ x }}}", {"x": "1"}, "pasted into text at .spec.a"),
        ("spec: {a: {{ x }}{{ x }}}", {"x": "1"}, "pasted into text"),
        ("spec: {a: 1} # {{ x }}", {"x": "1"}, "2 values were put in and 1 came out"),
        ("spec: {{ '{' }}{{ x }}: 1}", {"x": "1"}, "not valid YAML"),
        ("spec:\n  {{ x }}: 1", {"x": "a"}, "is not plain text"),
        ("spec: {a: {{ y }}}", {}, "'y' is undefined"),
        ("spec: {a: {{ x.y }}}", {"x": "1"}, "no attribute 'y'"),
        ("spec: {a: {{ x.__class__ }}}", {"x": "1"}, "is unsafe"),
        ("spec: {a: 1, a: 2}", {}, "duplicate key"),
        ("spec:\n  a:\n  - b: {{ x }}", {"x": None}, "an element of the list at .spec.a came out empty"),
        ("spec: {a: {{ x }}}", {"x": Decimal(1)}, "Decimal"),
        ("spec: {a: {{ x }}}", {"x": float("nan")}, "not a finite number"),
        ("spec: {a: {{ x }}}", {"x": {1: 2}}, "is not text"),
        ("spec: {a: {{ x }}}", {"x": [None]}, "NoneType"),
        ("spec: {% if x %}", {"x": 1}, "endif"),
        ("---\nspec: 1", {}, "expected one YAML document"),
    ],
)
def test_refuses_a_wrong_template(render: Render, template: str, values: dict[str, object], message: str) -> None:
    with pytest.raises(RenderError, match=r"Thing ce-hub/thing from thing\.yaml\.j2") as raised:
        render(HEAD + template, **values)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    "head",
    [
        HEAD.replace("v1", "v2"),
        HEAD.replace("Thing", "Secret"),
        HEAD.replace("{{ metadata }}", "{name: other, namespace: kube-system}"),
        HEAD.replace("metadata: {{ metadata }}\n", ""),
    ],
)
def test_the_template_decides_neither_type_nor_name(render: Render, head: str) -> None:
    with pytest.raises(RenderError, match="must be"):
        render(head)


def test_the_authors_object_lies_beneath(render: Render) -> None:
    beneath = {"kind": "Secret", "metadata": {"namespace": "kube-system"}, "spec": {"a": 2, "b": 2}}
    result = render(HEAD + "spec: {a: 1}", beneath=beneath)
    assert (result["kind"], result["metadata"]["namespace"], result["spec"]) == ("Thing", "ce-hub", {"a": 1, "b": 2})


def test_an_authors_object_of_a_shape_nobody_thought_of_is_a_render_error(render: Render) -> None:
    with pytest.raises(RenderError, match=r"Thing ce-hub/thing from thing\.yaml\.j2: the author's part cannot be merged"):
        render(HEAD + "spec: {containers: [{name: a}]}", beneath={"spec": {"containers": ["a"]}})
