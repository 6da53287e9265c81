"""The course of a simulation as an SVG file: local share, moved bytes, and free memory of each node, over time.

Pure; it must not know files or how a machine is simulated.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from balancerd.cli import words
from balancerd.cli.options import Document
from balancerd.cli.svg import COLOURS, line, picture, rect, text

LEFT: Final = 90
"""Room for the scale, in pixels like all that follow."""

WIDTH: Final = 720
HEIGHT: Final = 140
GAP: Final = 50
GREY: Final = "#888888"

Curve = tuple[str, str, Sequence[tuple[float, float]]]
"""Its name, its colour, and its points: seconds and value."""


def draw(document: Document, heading: Sequence[str]) -> str:
    """Return the file's text; `heading` needs no escaping."""
    engine, nothing = document["engine"]["course"], document["nothing"]["course"]
    seconds = document["duration_seconds"]
    local: list[Curve] = [
        (name, colour, [(m["at_seconds"], m["local_ratio"]) for m in course if m["local_ratio"] is not None])
        for name, colour, course in (("balancerd", COLOURS[0], engine), ("nothing", GREY, nothing))
    ]
    moved: Curve = ("moved", COLOURS[0], [(m["at_seconds"], m["moved_bytes"]) for m in engine])
    free: list[Curve] = [
        (f"node {node}", COLOURS[int(node) % len(COLOURS)], [(m["at_seconds"], m["free_bytes"][node]) for m in engine])
        for node in engine[0]["free_bytes"]
    ]
    y = 18
    shapes: list[str] = []
    for told in heading:
        shapes.append(text(10, y, told))
        y += 18
    panels: list[tuple[str, list[Curve], float, str]] = [
        ("share of accesses that are local", local, 1.0, "100%"),
        ("moved in all", [moved], *_scale([moved])),
        ("free memory of each node, under balancerd", free, *_scale(free)),
    ]
    for title, curves, most, told in panels:
        y += GAP
        shapes += _panel(y, title, curves, (seconds, most), told)
        y += HEIGHT
    shapes.append(text(LEFT, y + 16, "0"))
    shapes.append(text(LEFT + WIDTH - 40, y + 16, words.age(seconds)))
    return picture((LEFT + WIDTH + 30, y + 40), shapes)


def _panel(y: int, title: str, curves: Sequence[Curve], most: tuple[float, float], told: str) -> Iterator[str]:
    yield text(LEFT, y - 20, title)
    x = LEFT
    for name, colour, _ in curves[: len(COLOURS)]:
        yield rect(x, y - 13, (9, 9), colour)
        yield text(x + 12, y - 5, name)
        x += 24 + 7 * len(name)
    if len(curves) > len(COLOURS):
        yield text(x, y - 5, f"and {len(curves) - len(COLOURS)} more, in the same colours")
    yield rect(LEFT, y, (WIDTH, HEIGHT), GREY, 0.08)
    yield text(10, y + 10, told)
    yield text(10, y + HEIGHT, "0")
    for _, colour, points in curves:
        yield line([(LEFT + WIDTH * at / most[0], y + HEIGHT * (1 - value / most[1])) for at, value in points], colour)


def _scale(curves: Sequence[Curve]) -> tuple[float, str]:
    """Return the largest value of all curves, and how it is written."""
    most = max((value for _, _, points in curves for _, value in points), default=0.0)
    return (most, words.size(round(most))) if most > 0 else (1.0, "")
