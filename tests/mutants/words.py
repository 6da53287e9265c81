"""A change of a source in a line."""

from collections.abc import Iterable
from itertools import takewhile


def told(source: str, mutated: str) -> str:
    """Return the number of the changed line, the line, and in brackets what it was and what it is."""
    start = _same(zip(source, mutated, strict=False))
    end = _same(zip(source[start:][::-1], mutated[start:][::-1], strict=False))
    while start and _is_word(source[start - 1]):
        start -= 1
    while end and _is_word(source[len(source) - end]):
        end -= 1
    while start < len(source) - end and source[start].isspace():
        start += 1
    line = source.count("\n", 0, start)
    was, now = (" ".join(text[start : len(text) - end].split()) for text in (source, mutated))
    return f"{line + 1}: {source.splitlines()[line].strip()} [{was or 'nothing'} -> {now or 'nothing'}]"


def _same(pairs: Iterable[tuple[str, str]]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _is_word(letter: str) -> bool:
    return not letter.isspace() and letter not in "()[]{},:"
