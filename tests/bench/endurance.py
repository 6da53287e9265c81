"""What load and time do to the daemon: what was measured is kept beside, and a page tells of it.

    python -m tests.bench.endurance [FILE ...]

keeps what benchmarks have printed to these files, the last line of each, and writes ENDURANCE.md from all that is kept.
Owns the kept documents and the page. It must not know how anything was measured.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "results" / "endurance"
PAGE = Path(__file__).with_name("ENDURANCE.md")
Document = Mapping[str, Any]

HEAD = """\
# What load and time do to the daemon

<!-- written by python -m tests.bench.endurance; do not edit -->

RSS, descriptors, threads and CPU time are those of the daemon's process, looked at from outside; series are the lines
of `/metrics` that hold a value.
"""


def print_document(document: Document) -> None:
    """Print a document as one line, for keep()."""
    print(json.dumps({**document, "commit": _commit()}))


def keep(printed: str, folder: Path = FOLDER) -> Path:
    """Keep the document in the last line of what was printed. Raises ValueError when there is none."""
    last = (printed.splitlines() or [""])[-1]
    document = json.loads(last)
    if not isinstance(document, dict) or document.get("bench") not in PARTS:
        raise ValueError(f"not what {', '.join(PARTS)} print: {last[:80]!r}")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{document['bench']}.json"
    path.write_text(f"{last}\n", encoding="utf-8")
    return path


def read_kept(folder: Path = FOLDER) -> dict[str, Document]:
    """Return what is kept, by the name of the benchmark."""
    return {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*.json"))}


def page(kept: Mapping[str, Document]) -> str:
    """Return the page."""
    return "\n".join([HEAD, *(told(kept[name]) for name, told in PARTS.items() if name in kept)])


def _load(document: Document) -> str:
    told = "`python -m tests.bench load`: one daemon, in observe mode, with a tick each 2 s, on a host with 2 CPUs."
    return f"## Load\n\n{told} Missed: {_missed(document)}.\n\n{_table(document['rows'])}"


def _soak(document: Document) -> str:
    pages = ", ".join(f"{count} {status}" for status, count in sorted(document["pages"].items()) if count)
    told = (
        f"`python -m tests.bench soak`: {document['minutes']:g} minutes in the emulated machine with four nodes. "
        f"{document['processes']} misplaced processes came, were brought home, found their memory as they had left it "
        f"and went; pages by status: {pages}. Missed: {_missed(document)}."
    )
    return f"## Time\n\n{told}\n\n{_table(document['rows'])}"


def _hours(document: Document) -> str:
    told = (
        f"`python -m tests.bench hours`: jobs come and go for {document['hours']:g} simulated hours, "
        f"{document['ticks']} ticks. What Python has allocated in the last third of the time is "
        f"{document['growth']:.3f} times what it was in the third before, the simulation's own notes among it. "
        f"Missed: {_missed(document)}."
    )
    points = document["blocks"]
    rows = [{"tick": tick, "blocks": blocks} for tick, blocks in points[:: max(1, len(points) // 10)]]
    return f"## Simulated time\n\n{told}\n\n{_table(rows)}"


def _missed(document: Document) -> str:
    return "; ".join(document["missed"]) or "nothing"


def _table(rows: Sequence[Mapping[str, object]]) -> str:
    names = list(rows[0])
    lines = [names, ["--:" if isinstance(rows[0][name], int | float) else "---" for name in names]]
    lines += [[str(row[name]) for name in names] for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _commit() -> str:
    command = ("git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+", "--abbrev=12")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


PARTS: Mapping[str, Callable[[Document], str]] = {"load": _load, "soak": _soak, "hours": _hours}
"""Of the page, in order."""


def main(arguments: Sequence[str]) -> int:
    """Keep what is in these files, and write the page; 1 when a file holds something else."""
    for name in arguments:
        try:
            keep(Path(name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            print(f"{name}: error: {error}", file=sys.stderr)
            return 1
    kept = read_kept()
    PAGE.write_text(page(kept), encoding="utf-8")
    print(f"{PAGE}, from {', '.join(kept)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
