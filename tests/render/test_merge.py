"""An author's template beneath ours."""

from perfpolicy.render.merge import merge, without_nulls


def test_ours_wins_and_theirs_stays() -> None:
    assert merge({"a": 1, "c": {"d": 1}}, {"a": 2, "b": 2, "c": {"d": 2, "e": 2}}) == {"a": 1, "b": 2, "c": {"d": 1, "e": 2}}


def test_containers_merge_by_name_and_others_are_kept() -> None:
    ours = {"containers": [{"name": "app", "image": "x"}]}
    theirs = {"containers": [{"name": "log", "image": "y"}, {"name": "app", "image": "z", "tty": True}]}
    assert merge(ours, theirs) == {"containers": [{"name": "app", "image": "x", "tty": True}, {"name": "log", "image": "y"}]}


def test_ports_merge_by_number_with_or_without_names() -> None:
    merged = merge({"ports": [{"containerPort": 80, "name": "http"}]}, {"ports": [{"containerPort": 80}, {"containerPort": 81}]})
    assert merged == {"ports": [{"containerPort": 80, "name": "http"}, {"containerPort": 81}]}


def test_other_lists_are_one_value() -> None:
    assert merge({"args": ["a"]}, {"args": ["b", "c"]}) == {"args": ["a"]}


def test_nulls_ask_for_nothing() -> None:
    assert without_nulls({"a": None, "b": [None, {"c": None}]}) == {"b": [{}]}
