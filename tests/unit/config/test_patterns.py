"""Which regular expressions the configuration takes."""

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balancerd.config.patterns import LONGEST_PATTERN, check_pattern, count_wildcards

GOOD = [
    "postgres",
    "",
    "kube-system/.*",
    "java|postgres",
    r"([0-9]{1,3}\.){3}[0-9]{1,3}",
    r"(-[a-z]++)*",
    r"(?>a+)*",
    r"(?:(?>a+))*",
    r"(ab){20}c*",
    r"a+(b+)?c",
    r"[(]+a*[*+]*",
    r"\(a+\)*",
    r"(?#a+ (b+)x*",
    r"(?i:node)-?[0-9]+",
    r"(?P<name>a)+",
    r"(a[+]b[*])*",
    r"(\+)*",
    r"(a{3})*",
]
NESTED = [
    ("(a+)+b", 5),
    ("(a*)*", 5),
    ("(?:a+)*", 7),
    ("((a+))+", 7),
    ("(a+b)*c", 6),
    ("(a|b+)*", 7),
    ("(.*,){20}x", 6),
    ("([a-z]+[0-9]?)*", 15),
    ("(?P<name>a+)+", 13),
    ("(a+){2,}", 5),
    ("(a{2,40})*", 10),
    ("(a+?)*?", 6),
    ("(?=a+)*", 7),
]


@pytest.mark.parametrize("pattern", GOOD)
def test_patterns_that_end_soon_are_taken(pattern: str) -> None:
    assert check_pattern(pattern) == pattern


@pytest.mark.parametrize(("pattern", "character"), NESTED)
def test_a_repeat_inside_a_repeat_is_refused_where_it_stands(pattern: str, character: int) -> None:
    with pytest.raises(ValueError, match=rf"a repeat inside a repeat may take for ever, at character {character} of "):
        check_pattern(pattern)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("a(b", "no regular expression: missing ), unterminated subpattern at character 2 of 'a(b'"),
        ("*", "no regular expression: nothing to repeat at character 1 of '*'"),
        ("[[a]", "no regular expression: Possible nested set at position 1, in '[[a]'"),
        ("a{99999999999}", "no regular expression: the repetition number is too large, in 'a{99999999999}'"),
        ("a" * 513, "a pattern has at most 512 characters, this one has 513"),
    ],
)
def test_what_is_wrong_with_a_pattern_is_said(pattern: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        check_pattern(pattern)


def test_deep_parentheses_are_no_trouble() -> None:
    deep = "(" * (LONGEST_PATTERN // 2) + ")" * (LONGEST_PATTERN // 2)
    try:
        assert check_pattern(deep) == deep
    except ValueError as error:
        assert "no regular expression" in str(error)  # noqa: PT017 -- how deep Python goes is Python's affair


@settings(deadline=None, max_examples=300)
@given(st.text(alphabet="ab()[]{}*+?|\\^$.,0129<>=!:P#", max_size=24))
def test_a_pattern_is_taken_or_refused_with_a_sentence(pattern: str) -> None:
    try:
        check_pattern(pattern)
    except ValueError as error:
        assert str(error)  # noqa: PT017 -- as above


@settings(deadline=None, max_examples=100)
@given(st.from_regex(r"(\((a|b|ab|a\+|b\*|\.|c\?)(a\+|b|\.\*)?\)[*+]?){1,3}c", fullmatch=True))
def test_no_accepted_pattern_of_repeats_takes_long(pattern: str) -> None:
    try:
        check_pattern(pattern)
    except ValueError:
        return
    begin = time.process_time()
    re.fullmatch(pattern, "ab" * 20 + "a" * 20, re.DOTALL)
    assert time.process_time() - begin < 1.0


@pytest.mark.parametrize(
    ("pattern", "count"),
    [("", 0), (".*", 0), (".*a", 1), (".*a.*b.*", 2), (r"\.*a\.+b", 0), (".*+a.++b", 0), (".+?a", 1)],
)
def test_wildcards_before_the_end_are_counted(pattern: str, count: int) -> None:
    assert count_wildcards(pattern) == count
