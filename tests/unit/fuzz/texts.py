"""Texts for parsers: what a machine has written, hurt in a few places, or anything at all."""

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from math import isfinite
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

MACHINES = Path(__file__).parents[2] / "machines"

TOKENS = (
    *(
        b"",
        b" ",
        b"\n",
        b"\t",
        b"\0",
        b",",
        b":",
        b"=",
        b"-",
        b"(",
        b")",
        b"/",
        b"[",
        b"]",
        b"{",
        b"}",
        b'"',
        b"<",
        b">",
    ),
    *(b"-1", b"0", b"1_0", b"0123", b"18446744073709551616", b"9" * 5000, b"1e999", b"nan", b"inf", b"0x", b"Infinity"),
    *(
        b"3-1",
        b"0-1999999",
        b"0-63",
        b"\xff\xfe",
        "\u0669".encode(),
        b"\x1b[2J",
        b"null",
        b"true",
        b"[1]",
        b"{}",
        b"N0=1",
    ),
    *(b"[" * 100_000, b'{"a":' * 100_000, b"kB", b"Node ", b" - ", b"x" * 5000),
)
"""What parsers have been known to trip over: numbers too large, ranges too long, nesting too deep."""

_NUMBER = re.compile(rb"\d+")


@st.composite
def hurt(draw: st.DrawFn, seeds: Sequence[bytes]) -> bytes:
    """One of the seeds with up to four injuries."""
    text = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(0, 4))):
        text = _injure(draw, text)
    return text


def _injure(draw: st.DrawFn, text: bytes) -> bytes:
    numbers = list(_NUMBER.finditer(text))
    kind = draw(st.integers(0, 3 if numbers else 2))
    if kind == 3:
        found = draw(st.sampled_from(numbers))
        return text[: found.start()] + draw(st.sampled_from(TOKENS)) + text[found.end() :]
    start = draw(st.integers(0, len(text)))
    end = draw(st.integers(start, min(len(text), start + 40)))
    if kind == 2:
        return text[:end] + text[start:end] + text[end:]
    return text[:start] + (draw(st.sampled_from(TOKENS)) if kind else b"") + text[end:]


def anything(seeds: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Mostly what is nearly right."""
    return hurt(seeds) | hurt(seeds) | hurt(seeds) | st.binary(max_size=60)


def captured(name: str, most_lines: int = 30) -> bytes:
    """The beginning of a file of tests/machines."""
    with (MACHINES / name).open("rb") as file:
        return b"".join(islice(file, most_lines))


def leaves(value: object) -> Iterable[object]:
    """Every value that is in a result, through containers and records."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield key
            yield from leaves(each)
    elif isinstance(value, tuple | list | frozenset | set):
        for each in value:
            yield from leaves(each)
    elif hasattr(value, "__dataclass_fields__"):
        fields: Any = value.__dataclass_fields__
        for name in fields:
            yield from leaves(getattr(value, name))
    else:
        yield value


def check_result(value: object, text: bytes) -> None:
    """What was understood is of bounded size, and every fraction in it is a number."""
    n = 0
    for leaf in leaves(value):
        n += 1
        assert not isinstance(leaf, float) or isfinite(leaf)
        assert not isinstance(leaf, str | bytes) or len(leaf) <= 4 * len(text) + 100  # an escape has four characters
    assert n <= 2 * (1 << 16) + len(text)
