"""The kernel's list format, both ways."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancerd.model.ids import format_id_list, parse_id_list


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("", set()),
        ("\n", set()),
        ("0", {0}),
        ("0-3\n", {0, 1, 2, 3}),
        ("0-1,8,10-11", {0, 1, 8, 10, 11}),
        ("0-15:2/8", {0, 1, 8, 9}),
        ("3-3", {3}),
    ],
)
def test_parses_what_the_kernel_prints(text: str, numbers: set[int]) -> None:
    assert parse_id_list(text) == numbers


@pytest.mark.parametrize("text", ["a", "3-1", "1,,2", "-1", "0-3:1/0", "1-", "0x1"])
def test_refuses_anything_else(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a number|backwards|no size"):
        parse_id_list(text)


@pytest.mark.parametrize("text", ["65536", "0-65536", "0-18446744073709551615", "70000-70001:1/2"])
def test_no_list_goes_beyond_what_any_kernel_has(text: str) -> None:
    with pytest.raises(ValueError, match="goes beyond 65535"):
        parse_id_list(text)


@given(st.frozensets(st.integers(0, 2000)))
def test_what_is_written_reads_back(numbers: frozenset[int]) -> None:
    assert parse_id_list(format_id_list(numbers)) == numbers


def test_runs_are_written_as_ranges() -> None:
    assert format_id_list({0, 1, 2, 8, 10, 11}) == "0-2,8,10-11"
