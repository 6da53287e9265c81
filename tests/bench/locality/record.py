"""One boot as it is kept beside the report: WORKLOAD.RIVAL.BOOT.json, a few KB, one line for each part of it.

Owns the format and the names of the files. Must not know how a boot is made, nor what is made of many.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.locality.figures import Figures, Point

FOLDER = Path(__file__).parents[1] / "results" / "locality"


class RecordError(ValueError):
    """A file that is not one of ours; the message begins with its path."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stalls:
    """The gaps of one thread: how many, what 99.9 % of them did not exceed, the longest."""

    n: int
    p999_ns: int
    longest_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What the guest told (see measure.py) and is understood here; `as_told` is all of it. None: there was no daemon.

    `cpu_seconds` is what the rival's daemon took, `moves` how many moves of processes it says it has made, and `lines`
    what its log says of them, the last ones when there are many.
    """

    kernel: str
    stalls: Mapping[str, Stalls]
    moved_bytes: int
    moved_twice_bytes: int
    cpu_seconds: float | None
    moves: int
    lines: tuple[str, ...]
    as_told: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Boot:
    """One boot of one workload under one rival.

    `boot` counts from 1; `asked_seconds` is what the fixed `work` was chosen to take; `attempts` is 1 unless the
    machine was lost and booted again; `commit` is that of the checkout, with a + when it had changes; `versions` are
    those of programs, by name. `is_house_first` says whether the host ran the house-keeper before the other CPUs, and
    `stays_seconds` is the workload's; files that say nothing of them are of before there were such.
    """

    workload: str
    summary: str
    is_misplaced: bool
    rival: str
    boot: int
    work: int
    mib: int
    asked_seconds: float
    attempts: int
    commit: str
    host_cpus: int
    versions: Mapping[str, str]
    figures: Figures
    series: tuple[Point, ...]
    result: Result
    is_house_first: bool = False
    stays_seconds: float | None = None


def path_of(folder: Path, workload: str, rival: str, boot: int) -> Path:
    """Where this boot is kept."""
    return folder / f"{workload}.{rival}.{boot}.json"


def read_boots(folder: Path) -> tuple[Boot, ...]:
    """Read all boots that are kept, in the order of their names; none when there is no such folder."""
    return tuple(parse_boot(path.read_text(encoding="utf-8"), str(path)) for path in sorted(folder.glob("*.json")))


def write_boot(folder: Path, boot: Boot) -> Path:
    """Keep a boot, in the place of an earlier one of the same name."""
    folder.mkdir(parents=True, exist_ok=True)
    path = path_of(folder, boot.workload, boot.rival, boot.boot)
    partial = path.with_suffix(".partial")
    partial.write_text(as_text(boot), encoding="utf-8")
    partial.replace(path)
    return path


def as_text(boot: Boot) -> str:
    """Return the file's content."""
    parts: dict[str, Any] = {
        field.name: getattr(boot, field.name) for field in dataclasses.fields(boot) if field.name not in _STRUCTURED
    }
    parts["figures"] = dataclasses.asdict(boot.figures)
    parts["series"] = [[p.seconds, p.accesses, p.remote, round(p.cost, 1)] for p in boot.series]
    parts["result"] = boot.result.as_told
    lines = (f" {json.dumps(name)}: {json.dumps(part, ensure_ascii=False)}" for name, part in parts.items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


_STRUCTURED = ("figures", "series", "result")


def parse_boot(text: str, path: str) -> Boot:
    """Parse a kept file; raises RecordError with its path and what is wrong."""
    try:
        parts = {"is_house_first": False, "stays_seconds": None, **json.loads(text)}
        return Boot(
            **{field.name: parts[field.name] for field in dataclasses.fields(Boot) if field.name not in _STRUCTURED},
            figures=Figures(**parts["figures"]),
            series=tuple(
                Point(seconds=seconds, accesses=accesses, remote=remote, cost=cost)
                for seconds, accesses, remote, cost in parts["series"]
            ),
            result=parse_result(parts["result"]),
        )
    except (ValueError, TypeError) as error:
        raise RecordError(f"{path}: {error}") from error
    except KeyError as error:
        raise RecordError(f"{path}: {error} is missing") from error


def parse_result(told: Mapping[str, Any]) -> Result:
    """Understand the guest's result.json; raises KeyError and TypeError."""
    pages, daemon = told["pages"], told["daemon"] or {}
    return Result(
        kernel=told["kernel"],
        stalls={name: _stalls(gaps) for name, gaps in told["gaps"].items()},
        moved_bytes=pages["moved_bytes"],
        moved_twice_bytes=pages["moved_twice_bytes"],
        cpu_seconds=daemon.get("cpu_seconds"),
        moves=len(daemon.get("moves", ())),
        lines=tuple(daemon.get("lines", ())),
        as_told=told,
    )


def _stalls(gaps: Mapping[str, Any]) -> Stalls:
    return Stalls(n=gaps["n"], p999_ns=gaps["p999_ns"], longest_ns=gaps["longest_ns"])
