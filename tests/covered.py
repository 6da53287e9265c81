"""python -m tests.covered: how much of the pure rooms their unit tests run, line by line and branch by branch.

Fails when any room is below what is asked for, in lines or in branches. Takes some minutes; `make coverage` runs it.
"""

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOMS: Final = ("config", "engine", "model", "policies", "precedence.py", "ports.py", "simulation", "trace")
TESTS: Final = ("config", "engine", "model", "policies", "jobs", "simulation", "trace", "web", "test_precedence.py")
"""Of tests/unit; jobs and web show what else the records of model are for."""

LEAST_PERCENT: Final = 95.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Covered:
    """Statements and branches of one room, and how many of them ran."""

    room: str
    lines: int
    covered_lines: int
    branches: int
    covered_branches: int

    @property
    def percents(self) -> tuple[float, float]:
        """Of lines and of branches; what has none is covered."""
        return (
            100 * self.covered_lines / self.lines if self.lines else 100.0,
            100 * self.covered_branches / self.branches if self.branches else 100.0,
        )

    def is_enough(self, least_percent: float = LEAST_PERCENT) -> bool:
        """Whether both reach what is asked for."""
        return min(self.percents) >= least_percent


def by_room(report: dict[str, Any]) -> list[Covered]:
    """Return what the JSON report of coverage.py says of each room, in their order; a room it does not know has 0."""
    found = []
    for room in ROOMS:
        place = f"balancerd/{room}"
        files = [
            each["summary"]
            for path, each in report["files"].items()
            if path == place or path.startswith(f"{place.removesuffix('.py')}/")
        ]
        keys = ("num_statements", "covered_lines", "num_branches", "covered_branches")
        lines, covered_lines, branches, covered_branches = (sum(each[key] for each in files) for key in keys)
        found.append(
            Covered(
                room=room,
                lines=lines,
                covered_lines=covered_lines,
                branches=branches,
                covered_branches=covered_branches,
            )
        )
    return found


def measure(folder: Path) -> dict[str, Any]:
    """Run the tests, and return the report. Raises CalledProcessError when one fails."""
    coverage = (sys.executable, "-m", "coverage")
    data = f"--data-file={folder / 'data'}"
    tests = [f"tests/unit/{name}" for name in TESTS]
    run = [*coverage, "run", data, "--branch", "--source=balancerd", "-m", "pytest", "-q", "-p", "no:xdist", *tests]
    subprocess.run(run, check=True)
    written = folder / "report.json"
    subprocess.run([*coverage, "json", data, "-q", "-o", str(written)], check=True)
    report: dict[str, Any] = json.loads(written.read_bytes())
    return report


def main() -> int:
    """Measure, tell, and judge."""
    with tempfile.TemporaryDirectory() as folder:
        rooms = by_room(measure(Path(folder)))
    print(f"{'ROOM':<16}{'LINES':>10}{'BRANCHES':>10}")
    for each in rooms:
        lines, branches = each.percents
        print(f"{each.room:<16}{lines:>9.1f}%{branches:>9.1f}%{'' if each.is_enough() else '  too few'}")
    return 0 if all(each.lines and each.is_enough() for each in rooms) else 1


if __name__ == "__main__":
    sys.exit(main())
