"""HTML and SVG as values: texts are escaped, whatever they hold, because only `element` makes Html.

What is not printable, such as a mark that turns the direction of writing, is shown as its escape. Pure.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from typing import Final, TypeAlias

from balancerd.model.printable import printable

LONGEST_NAME: Final = 60

EMPTY: Final = frozenset({"meta", "link", "br"})
"""Elements of HTML without an end tag that are used here."""


@dataclass(frozen=True, slots=True)
class Html:
    """Markup that needs no escaping."""

    text: str


Child: TypeAlias = "Html | str | int | Iterable[Html | str | int] | None"
Attribute: TypeAlias = str | int | float | bool | None


def element(name: str, *children: Child, **attributes: Attribute) -> Html:
    """Return one element. `class_` is `class`, `aria_label` is `aria-label`; None and False leave an attribute out."""
    words = "".join(_attribute(key, value) for key, value in attributes.items())
    if name in EMPTY:
        return Html(f"<{name}{words}>")
    return Html(f"<{name}{words}>{together(*children).text}</{name}>")


def together(*children: Child) -> Html:
    """Return some children one after the other."""
    parts: list[str] = []
    for child in children:
        if child is None:
            continue
        if isinstance(child, Html | str | int):
            parts.append(_text(child))
        else:
            parts.extend(map(_text, child))
    return Html("".join(parts))


def shorten(name: str, longest: int = LONGEST_NAME) -> str:
    """Return a name, printable and not too long."""
    shown = printable(name)
    return shown if len(shown) <= longest else f"{shown[: longest - 1]}…"


def _text(child: Html | str | int) -> str:
    return child.text if isinstance(child, Html) else escape(printable(str(child)))


def _attribute(key: str, value: Attribute) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    if value is True:
        return f" {name}"
    shown = f"{value:.4g}" if isinstance(value, float) else printable(str(value))
    return f' {name}="{escape(shown)}"'
