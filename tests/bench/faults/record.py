"""What is kept of each fault: results/faults/FAULT.json, as tests/lab/faults/tally.py has left it, with where and when.

Owns the format and the names of the files. Must not know how a fault is tried, nor what is made of its figures.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from tests.lab.faults.tally import Figures

FOLDER = Path(__file__).parents[1] / "results" / "faults"


class RecordError(ValueError):
    """A file that is not one of ours; the message begins with its path."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """The figures of one fault, and of which commit they are."""

    commit: str
    figures: Figures


def write(folder: Path, kept: Kept) -> Path:
    """Keep the figures of a fault, in the place of earlier ones."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{kept.figures.fault}.json"
    path.write_text(json.dumps(dataclasses.asdict(kept), indent=1) + "\n", encoding="utf-8")
    return path


def read(folder: Path) -> tuple[Kept, ...]:
    """Read all that is kept, in the order of the names; none when there is no such folder."""
    return tuple(parse(path.read_text(encoding="utf-8"), str(path)) for path in sorted(folder.glob("*.json")))


def parse(text: str, path: str) -> Kept:
    """Parse a kept file; raises RecordError with its path and what is wrong."""
    try:
        parts = json.loads(text)
        return Kept(commit=parts["commit"], figures=Figures(**parts["figures"]))
    except (ValueError, TypeError) as error:
        raise RecordError(f"{path}: {error}") from error
    except KeyError as error:
        raise RecordError(f"{path}: {error} is missing") from error


def parse_figures(text: str, path: str) -> Figures:
    """Parse what a test has left; raises RecordError with its path and what is wrong."""
    try:
        return Figures(**json.loads(text))
    except (ValueError, TypeError) as error:
        raise RecordError(f"{path}: {error}") from error
