"""Which characters of a name that somebody else has chosen are shown, and how the others are told."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancerd.model.printable import is_printable, printable

ROOMS = Path(__file__).parents[3] / "balancerd"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis-server", "redis-server"),
        ("two words", "two words"),
        ("é 東京", "é 東京"),
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x9b31m", r"\x9b31m"),
        ("\0", r"\x00"),
        ("\u2028\x85", r"\u2028\x85"),
        ("\u202eabc\u200b\u2066", r"\u202eabc\u200b\u2066"),
        ("no\xa0break", r"no\xa0break"),
        ("fill\u3164er\u115f", r"fill\u3164er\u115f"),
        ("join\u034fer\ufe0f\U000e0100", r"join\u034fer\ufe0f\U000e0100"),
        ("tag\U000e0041", r"tag\U000e0041"),
        ("braille\u2800", r"braille\u2800"),
        ("\udcff\udc80", r"\xff\x80"),
        ("\ud800\udbff", r"\ud800\udbff"),
        ("\ufffe", r"\ufffe"),
        (r"machine-qemu\x2d1", r"machine-qemu\x2d1"),
        ("", ""),
    ],
)
def test_what_could_be_obeyed_or_hide_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert is_printable(text) == (text == shown)


@given(st.text(st.characters()))
def test_whatever_it_is_it_comes_out_as_one_printable_line_that_utf_8_can_say(text: str) -> None:
    shown = printable(text)
    assert is_printable(shown)
    assert shown.isprintable()
    assert shown.encode("utf-8").decode("utf-8") == shown
    assert printable(shown) == shown


def test_every_room_asks_here() -> None:
    others = [path for path in ROOMS.rglob("*.py") if path != ROOMS / "model/printable.py"]
    assert [path for path in others if re.search(r"isprintable|unicode_escape", path.read_text("utf-8"))] == []
