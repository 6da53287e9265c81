"""The few shapes of which pictures in SVG files are made. Pure; texts need no escaping. All measures are pixels."""

from collections.abc import Iterable, Sequence
from typing import Final

from balancerd.cli.screen import escape

COLOURS: Final = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#999933", "#882255")
"""Of nodes; told apart by most eyes (Okabe and Ito, Color Universal Design). Further nodes begin anew."""


def picture(size: tuple[int, int], shapes: Iterable[str]) -> str:
    """Return the text of a file: the shapes on white."""
    space, font = 'xmlns="http://www.w3.org/2000/svg"', 'font-family="monospace" font-size="11"'
    opening = f'<svg {space} width="{size[0]}" height="{size[1]}" {font}>'
    return "\n".join([opening, rect(0, 0, size, "#ffffff"), *shapes, "</svg>\n"])


def rect(x: int, y: int, size: tuple[int, int], fill: str, opacity: float = 1.0) -> str:
    """Return a filled rectangle."""
    seen = "" if opacity >= 1 else f' fill-opacity="{opacity:g}"'
    return f'<rect x="{x}" y="{y}" width="{size[0]}" height="{size[1]}" fill="{fill}"{seen}/>'


def text(x: int, y: int, told: str) -> str:
    """Return a line of text; `y` is where its letters stand."""
    safe = escape(told).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return f'<text x="{x}" y="{y}">{safe}</text>'


def line(points: Sequence[tuple[float, float]], colour: str) -> str:
    """Return a line through some points."""
    through = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{through}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
