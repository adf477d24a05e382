"""What RE2 refuses to compile is no expression of ours."""

import pytest

from perfpolicy.policy.re2 import is_re2


@pytest.mark.parametrize(
    "expression",
    ["(a{100}){11}", "((a{10}){10}){11}", "(a{2,100}b){11}", r"\p{Script=Greek}", r"\p{Alphabetic}", "[[:letter:]]", "(?=a)", "a{1001}"],
)
def test_what_re2_refuses_is_refused(expression: str) -> None:
    assert not is_re2(expression)


@pytest.mark.parametrize(
    "expression",
    ["(a{10}){100}", "a{600}b{600}", "(a{600}|b{600})", "[[:alpha:]]+", r"\p{Greek}\pL\P{Lu}", "/api/[0-9]{1,9}(/.*)?", "(?i)abc"],
)
def test_what_re2_reads_is_accepted(expression: str) -> None:
    assert is_re2(expression)
