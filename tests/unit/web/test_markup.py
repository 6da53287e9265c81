import html

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancerd.model.printable import printable
from balancerd.web.markup import element, shorten, together
from tests.unit.web.reading import Reading

HOSTILE = [
    "<script>alert(1)</script>",
    '" onload="alert(1)',
    "' onload='alert(1)",
    "</td></table><img src=x onerror=alert(1)>",
    "&lt;b&gt;",
    "--><!--",
    "]]>",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_texts_and_attributes_come_out_as_they_went_in(text: str) -> None:
    read = Reading(element("p", text, title=text).text.encode())
    assert read.elements == [("p", {"title": text})]
    assert "".join(read.texts) == text


@given(st.text(alphabet=st.characters(codec=None), max_size=40))
def test_whatever_a_text_holds_there_is_one_element_and_its_text_is_what_is_printable(text: str) -> None:
    read = Reading(element("p", text, title=text).text.encode("utf-8"))
    assert read.elements == [("p", {"title": printable(text)})]
    assert "".join(read.texts) == printable(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("a\x1b[2Jb", "a\\x1b[2Jb"),
        ("byte\udc80", "byte\\x80"),
        ("two\nlines", "two\\nlines"),
    ],
)
def test_what_is_not_printable_is_shown_as_its_escape(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert html.escape(shown) in element("b", text).text


def test_names_of_attributes_and_absent_ones() -> None:
    made = element("input", class_="a", aria_label="b", defer=True, hidden=False, title=None, x=0.5)
    assert made.text == '<input class="a" aria-label="b" defer x="0.5"></input>'


def test_children_are_html_texts_numbers_lists_of_them_and_nothing() -> None:
    assert together(element("i"), "<", 3, [element("b"), ">"], None).text == "<i></i>&lt;3<b></b>&gt;"


def test_a_long_name_is_cut() -> None:
    assert shorten("x" * 100, 10) == "x" * 9 + "…"
    assert shorten("\udc80" * 3, 10) == "\\x80\\x80\\…"
