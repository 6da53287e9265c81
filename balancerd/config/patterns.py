"""Regular expressions in the configuration: which are accepted, and what is wrong with the others.

Owns the guard against patterns that take for ever. Python's engine tries one way after the other, and a repeat inside a
repeat has more ways than anyone can wait for, on a text that any user of the machine may choose. So such patterns are
refused; which texts they are tried on is bounded where they are used. Pure. It must not know what is matched.
"""

import re
import warnings
from typing import Final

from balancerd.config.units import shorten

LONGEST_PATTERN: Final = 512
_MANY: Final = 16
"""A repeat of less than so many times stays affordable inside another one, as in ([0-9]{1,3}\\.){3}."""
_QUANTIFIER = re.compile(r"(?:[*+?]|\{(?P<min>[0-9]*)(?P<comma>,)?(?P<max>[0-9]*)\})(?P<how>[+?]?)")
_CLASS = re.compile(r"\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)
_GROUP = re.compile(r"\((?:\?(?:P<\w+>|P=\w+|<?[=!]|[:>]|[aiLmsux-]*:|\(\w+\)))?")
_COMMENT = re.compile(r"\(\?#[^)]*\)")
_WILDCARD = re.compile(r"(?<!\\)\.[*+](?!\+)")


def check_pattern(text: str) -> str:
    """Return `text` when it may be used as a pattern. Raises ValueError with a sentence that says what is wrong."""
    if len(text) > LONGEST_PATTERN:
        raise ValueError(f"a pattern has at most {LONGEST_PATTERN} characters, this one has {len(text)}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # "possible nested set": Python will read it otherwise one day
            re.compile(text)
    except re.error as error:
        at = "" if error.pos is None else f" at character {error.pos + 1}"
        raise ValueError(f"no regular expression: {error.msg}{at} of {shorten(text)}") from error
    except (Warning, OverflowError, RecursionError) as error:
        raise ValueError(f"no regular expression: {error}, in {shorten(text)}") from error
    if (at_character := _find_nested_repeat(text)) is not None:
        raise ValueError(
            f"a repeat inside a repeat may take for ever, at character {at_character + 1} of {shorten(text)}: "
            "write the inner one without backtracking, such as a++ for a+"
        )
    return text


def count_wildcards(text: str) -> int:
    """Return how many ".*" and ".+" a pattern has before its end, where one always fits.

    The time for a text that does not match may grow with the length of the text to that power.
    """
    return sum(found.end() < len(text) for found in _WILDCARD.finditer(text))


def _find_nested_repeat(text: str) -> int | None:
    """Return where a group is repeated that repeats something itself, each of them often and with ways to go back."""
    open_groups: list[tuple[bool, bool]] = []  # of each group around: is it atomic, and had it a repeat before
    repeats = False  # in the innermost group, so far
    inside = False  # in the group that ended right here
    at = 0
    while at < len(text):
        if (comment := _COMMENT.match(text, at)) is not None:
            at = comment.end()
        elif (group := _GROUP.match(text, at)) is not None:
            open_groups.append((group[0] == "(?>", repeats))
            repeats, inside, at = False, False, group.end()
        elif text[at] == ")" and open_groups:
            atomic, before = open_groups.pop()
            inside = repeats and not atomic
            repeats, at = before or inside, at + 1
        elif (quantifier := _QUANTIFIER.match(text, at)) is not None:
            often, varies = _how_often(quantifier)
            if quantifier["how"] != "+":
                if often and inside:
                    return at
                repeats = repeats or (often and varies)
            inside, at = False, quantifier.end()
        else:
            inside = False
            found = _CLASS.match(text, at)
            at = found.end() if found is not None else at + (2 if text[at] == "\\" else 1)
    return None


def _how_often(quantifier: re.Match[str]) -> tuple[bool, bool]:
    """Return whether a quantifier repeats often, and whether the number of times may vary."""
    if quantifier[0][0] != "{":
        return quantifier[0][0] in "*+", True
    low, high = quantifier["min"] or "0", quantifier["max"]
    if quantifier["comma"] is None:
        return int(low) >= _MANY, False
    return not high or int(high) >= _MANY, low != high
