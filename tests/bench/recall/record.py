"""One boot as it is kept: results/recall/PROGRAM.json, with the figures of each way of sampling.

Owns the format and the names of the files. Must not know how a boot is made, nor what is made of it.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.recall.figures import Figures, Judged

FOLDER = Path(__file__).parents[1] / "results" / "recall"


class RecordError(ValueError):
    """A file that is not one of ours; the message begins with its path."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """What a source took in one window: see balancerd.model.access.AccessWindow. `hertz` was the rate at its end."""

    seconds: float
    samples: int
    hits: int
    lost: int
    throttled: int
    threads: int
    hertz: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One of watching.WAYS over one window. The oracle had no room for `lost_accesses` of all pages in it."""

    sampling: Sampling
    lost_accesses: int
    figures: Figures


@dataclass(frozen=True, slots=True, kw_only=True)
class Boot:
    """One program in one boot; see locality.record.Boot for what tells where and of what it was made."""

    program: str
    summary: str
    mib: int
    attempts: int
    commit: str
    host_cpus: int
    kernel: str
    versions: Mapping[str, str]
    ways: Mapping[str, Way]


def write_boot(folder: Path, boot: Boot) -> Path:
    """Keep a boot, in the place of an earlier one of the same program."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{boot.program}.json"
    path.write_text(json.dumps(dataclasses.asdict(boot), indent=1) + "\n", encoding="utf-8")
    return path


def read_boots(folder: Path) -> tuple[Boot, ...]:
    """Read all boots that are kept, in the order of their names; none when there is no such folder."""
    return tuple(parse_boot(path.read_text(encoding="utf-8"), str(path)) for path in sorted(folder.glob("*.json")))


def parse_boot(text: str, path: str) -> Boot:
    """Parse a kept file; raises RecordError with its path and what is wrong."""
    try:
        parts = json.loads(text)
        ways = {name: _way(way) for name, way in parts.pop("ways").items()}
        return Boot(**parts, ways=ways)
    except (ValueError, TypeError) as error:
        raise RecordError(f"{path}: {error}") from error
    except KeyError as error:
        raise RecordError(f"{path}: {error} is missing") from error


def _way(parts: Mapping[str, Any]) -> Way:
    figures = dict(parts["figures"])
    every, sure = (Judged(**figures.pop(name)) for name in ("every", "sure"))
    return Way(
        sampling=Sampling(**parts["sampling"]),
        lost_accesses=parts["lost_accesses"],
        figures=Figures(**figures, every=every, sure=sure),
    )
