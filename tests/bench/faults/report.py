"""FAULTS.md from the kept figures and nothing else: no number in it is typed by hand.

Owns what is told and in which words. Must not know how faults are tried.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.bench.faults.record import Kept
from tests.bench.locality.tables import counted, table
from tests.lab.faults.tally import Figures

PAGE = Path(__file__).parents[1] / "FAULTS.md"
MARK = "<!-- written by python -m tests.bench faults; do not edit -->"
TITLES = ("fault", "what", "machine", "tries", "survived", "pages lost", "workload errors", "wrongly moved pages")

METHOD = """\
A real daemon moves the memory of real processes in a virtual machine with several NUMA nodes (`tests/lab`), and
something goes wrong, at moments and places that a seed chooses: what exactly is in `tests/lab/faults`. The same seed
makes the same choices; how far the machine has come at each of them depends on how busy the host is.

- **survived**: tries in which the daemon went on and no tick failed (or it ended as its documentation says), in which
  it said what it should say, and all that stands in the next columns was nothing.
- **pages lost**: pages of a workload that were not as it had written them, and pages that the daemon submitted to the
  kernel without telling what became of them.
- **workload errors**: processes that ended otherwise than they were told to, or found one word of their memory wrong.
- **wrongly moved pages**: pages that moved although the daemon may not move them."""


def page(kept: Sequence[Kept]) -> str:
    """Return the whole page."""
    parts = [
        "# What the daemon survives",
        MARK,
        METHOD,
        summary(kept),
        "## What was met meanwhile",
        "\n".join(f"- *{it.figures.fault}*: {_meanwhile(it.figures)}" for it in kept if it.figures.tries),
        *_section("## What could not be tried", [f"- *{f.fault}*: {f.lacking}" for f in _all(kept) if f.lacking]),
        *_section("## What went wrong", [f"- *{f.fault}*: {word}" for f in _all(kept) for word in f.failures]),
        "## Where",
        _where(kept),
    ]
    return "\n\n".join(parts) + "\n"


def summary(kept: Sequence[Kept]) -> str:
    """Return the table: one line for each fault that was tried, and their sum."""
    tried = [figures for figures in _all(kept) if figures.tries]
    rows = [[f.fault, f.what, f.topology, *map(str, _figures(f))] for f in tried]
    sums = [str(sum(column)) for column in zip(*map(_figures, tried), strict=True)] or ["0"] * 5
    return table(TITLES, [*rows, ["all", "", "", *sums]], words=3)


def _all(kept: Sequence[Kept]) -> list[Figures]:
    return [it.figures for it in kept]


def _figures(figures: Figures) -> tuple[int, ...]:
    return (
        figures.tries,
        figures.survived,
        figures.pages_lost,
        figures.workload_errors,
        figures.wrongly_moved_pages,
    )


def _meanwhile(figures: Figures) -> str:
    events = [f"{event} {number}" for event, number in sorted(figures.counted.items())]
    return "; ".join([*events, f"took {figures.seconds:.0f} s"])


def _section(title: str, lines: Sequence[str]) -> list[str]:
    return [title, "\n".join(" ".join(line.split()) for line in lines)] if lines else []


def _where(kept: Sequence[Kept]) -> str:
    lines = [
        f"- Linux (faults): {counted(Counter(it.figures.kernel for it in kept))}",
        f"- seeds (faults): {counted(Counter(str(it.figures.seed) for it in kept))}",
        f"- commits (faults; + had changes): {counted(Counter(it.commit for it in kept))}",
    ]
    return "\n".join(lines)
