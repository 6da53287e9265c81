"""How many of the faults put into engine and policies their tests find: what was found is kept, a page tells of it.

    python -m tests.bench.mutation        writes MUTATION.md from what is kept

Owns the kept documents and the page. It must not know how faults are made or tried (`tests.mutants`).
"""

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.mutants.judges import UNDER_OTHER_NAMES, named_after

FOLDER = Path(__file__).parent / "results" / "mutation"
PAGE = Path(__file__).with_name("MUTATION.md")

HEAD = """\
# How many faults the tests find

<!-- written by python -m tests.bench.mutation; do not edit -->

One fault at a time is put into a module of `balancerd/engine` or `balancerd/policies`: another operator, a number that
is one more or less, a condition turned round, a loop that is never entered, another exception, a decorator less. The
unit tests of that module then run, and no others. A fault is *found* when one of them fails, or takes more than five
times the CPU time it should; else it *survived*. The score is the share that was found. It is about what the tests
assert, which the coverage of lines is not: a line may run without anybody looking at what it did.

What it does not say:

- Faults are drawn by chance, with a seed, from all that cosmic-ray can make; those in annotations, docstrings and the
  options of dataclasses, `is` for `==`, and what is no Python or the same program, are not drawn. A score is that of a
  sample; the range beside it holds the share of all faults of that module with 95 % confidence (Wilson).
- What survives is read, and tests are written for it, so that the score of a sample that was read is too good
  afterwards. With several seeds, score and range are those of the last, whose survivors nobody had read when it was
  tried; by chance some of its faults had been drawn with another seed before, so that it is a little too good as well.
- One expression has many faults: each operator can become any other one. A line with much arithmetic weighs more.
- Some faults change nothing that could be seen (`<` for `<=` where both are never equal). 100 % cannot be asked for.
- A fault that only the tests of another module find counts as survived. Where a module has no tests of its own name,
  those of the modules that use it judge it; they are told.
- Nothing is said about what is missing in the code: there is no fault in a line that nobody wrote.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What came of the faults of one module, drawn with one seed; survivors as lines."""

    module: str
    tests: tuple[str, ...]
    possible: int
    commit: str
    sample: int | None
    seed: int
    tried: int
    survived: tuple[str, ...]

    @property
    def found(self) -> int:
        """How many a test found."""
        return self.tried - len(self.survived)


def keep(run: Run, folder: Path = FOLDER) -> None:
    """Keep a run, in the place of the earlier one of its module and seed."""
    path = folder / f"{run.module.replace('/', '-')}.json"
    earlier = _read(path) if path.exists() else []
    runs = sorted([*(each for each in earlier if each.seed != run.seed), run], key=lambda each: each.seed)
    document = [{**asdict(each), "found": each.found} for each in runs]
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def read_kept(folder: Path = FOLDER) -> dict[str, list[Run]]:
    """Return the runs of each module."""
    return {runs[0].module: runs for runs in map(_read, sorted(folder.glob("*.json")))}


def page(kept: Mapping[str, Sequence[Run]]) -> str:
    """Return the page."""
    rooms: dict[str, list[Sequence[Run]]] = {}
    for module, runs in kept.items():
        rooms.setdefault(module.partition("/")[0], []).append(runs)
    return "\n".join([HEAD, *(_room(room, modules) for room, modules in rooms.items()), _where(kept)])


def _room(room: str, modules: Iterable[Sequence[Run]]) -> str:
    modules = list(modules)
    told = ["| module | faults | tried | found | score | range | earlier seeds |", "|---|--:|--:|--:|--:|--:|---|"]
    told += [_row(runs) for runs in modules]
    last = [runs[-1] for runs in modules]
    tried, found = sum(run.tried for run in last), sum(run.found for run in last)
    told.append(f"| all | {sum(run.possible for run in last)} | {tried} | {found} | {100 * found / tried:.0f} % | | |")
    borrowed = [
        f"- `{run.module}`: {', '.join(f'`{Path(file).name}`' for file in run.tests)}"
        for run in last
        if not named_after(run.module)
    ]
    told += ["", "No tests of their name; judged by:", "", *borrowed] if borrowed else []
    told += [
        f"\nThe tests of `{module}` are in {', '.join(f'`{Path(file).name}`' for file in files)}, too."
        for module, files in UNDER_OTHER_NAMES.items()
        if module in {run.module for run in last}
    ]
    return "\n".join([f"## {room}", "", *told, ""])


def _row(runs: Sequence[Run]) -> str:
    *earlier, run = runs
    low, high = interval(run.found, run.tried)
    return (
        f"| `{run.module.partition('/')[2]}` | {run.possible} | {run.tried} | {run.found} "
        f"| {100 * run.found / run.tried:.0f} % | {100 * low:.0f} to {100 * high:.0f} % "
        f"| {', '.join(f'{each.found}/{each.tried}' for each in earlier)} |"
    )


def interval(found: int, tried: int) -> tuple[float, float]:
    """Return Wilson's interval of a share, at 95 % confidence."""
    z = 1.96
    share, part = found / tried, z * z / tried
    middle = (share + part / 2) / (1 + part)
    half = z * ((share * (1 - share) + part / 4) / tried) ** 0.5 / (1 + part)
    return max(0.0, middle - half), min(1.0, middle + half)


def _where(kept: Mapping[str, Sequence[Run]]) -> str:
    commits = sorted({run.commit for runs in kept.values() for run in runs})
    return (
        "## Where\n\n"
        "What survived stands in `results/mutation`, a file for each module, as `line: the line [what it was -> what "
        f"it became]`.\n\n- commits (+ had changes): {', '.join(commits)}\n"
    )


def _read(path: Path) -> list[Run]:
    return [_run(document) for document in json.loads(path.read_text("utf-8"))]


def _run(document: dict[str, Any]) -> Run:
    values = {key: value for key, value in document.items() if key != "found"}
    return Run(**{**values, "tests": tuple(values["tests"]), "survived": tuple(values["survived"])})


def commit() -> str:
    """Return what is checked out; with + when it has changes."""
    command = ("git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+", "--abbrev=12")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def main() -> int:
    """Write the page; 1 when nothing is kept."""
    kept = read_kept()
    if not kept:
        print(f"nothing is kept in {FOLDER}: python -m tests.mutants --sample 30 --keep measures", file=sys.stderr)
        return 1
    PAGE.write_text(page(kept), encoding="utf-8")
    print(f"{PAGE}, from {len(kept)} modules")
    return 0


if __name__ == "__main__":
    sys.exit(main())
