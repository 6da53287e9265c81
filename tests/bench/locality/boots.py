"""One boot of the locality benchmark: a fresh machine under the oracle, one run inside, and what came out of it.

Owns the machine's options, time-outs, and booting again what was lost. Must not know how figures are told.
"""

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.locality import debian, figures, loads, programs, record
from tests.bench.locality.plan import Workload
from tests.lab.link import MachineLostError
from tests.lab.machine import BootError, Machine, Options
from tests.lab.oracle import OracleOptions
from tests.lab.oracle.counters import read_counters
from tests.lab.state import REPOSITORY, LabDirectory, LabError
from tests.lab.topology import Topology, parse

MACHINE = Path(__file__).with_name("machine.toml")
ATTEMPTS = 3
TIMED_OUT = 124  # Completed.exit_status
SETUP_SECONDS = 600.0
PATIENCE_RATIO = 6.0
"""A run is given up after so many times what its work should take, and SETUP_SECONDS for what is before and after."""


class RunError(LabError):
    """The run inside failed, and would again."""


class TimedOutError(LabError):
    """The run inside did not end; a guest that lost its way may do better in another boot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One boot to make; see record.Boot. `seconds` only chooses the work; `settings` are balancerd's."""

    workload: Workload
    rival: str
    boot: int
    seconds: float
    mib: int
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def work(self) -> int:
        """The fixed work, in the workload's units."""
        return max(1, round(self.seconds * self.workload.units_per_second))

    def __str__(self) -> str:
        return f"{self.workload.name} under {self.rival}, boot {self.boot}"


def is_kept(folder: Path, wanted: Wanted) -> bool:
    """Whether this boot is kept, with the same work on as much memory."""
    path = record.path_of(folder, wanted.workload.name, wanted.rival, wanted.boot)
    if not path.exists():
        return False
    kept = record.parse_boot(path.read_text(encoding="utf-8"), str(path))
    return (kept.work, kept.mib) == (wanted.work, wanted.mib)


def run(wanted: Wanted, lab: LabDirectory) -> record.Boot:
    """Boot, run, and return what is to be kept. A lost machine is booted again, twice at most, and that is told.

    Raises LabError: RunError when the run itself failed.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _one_boot(wanted, lab, attempt)
        except (MachineLostError, BootError, TimedOutError) as error:
            if attempt == ATTEMPTS:
                raise
            print(f"{wanted}: {error}\n{wanted}: once more", file=sys.stderr)
    raise AssertionError


def _one_boot(wanted: Wanted, lab: LabDirectory, attempt: int) -> record.Boot:
    command = [sys.executable, "-m", "tests.bench.locality.inside", wanted.workload.name, wanted.rival]
    command += ["--work", str(wanted.work), "--mib", str(wanted.mib)]
    command += [word for key, value in wanted.settings.items() for word in ("--set", f"{key}={value}")]
    with Machine(topology(), options=Options(threads="multi", oracle=OracleOptions()), lab=lab) as machine:
        is_house_first = machine.prefer_cpu(figures.OWN_CPU)
        ended = machine.run(
            command,
            cwd=REPOSITORY,
            env={"BALANCERD_LAB_DIR": str(lab.root)},
            timeout_seconds=SETUP_SECONDS + PATIENCE_RATIO * wanted.seconds,
        )
        told, counters = machine.out / "result.json", machine.counters
    if ended.exit_status == TIMED_OUT:
        raise TimedOutError("the run inside did not end in time")
    if ended.exit_status:
        raise RunError(f"{wanted}: exit status {ended.exit_status}\n{_error(told, ended.stderr)}")
    counted = read_counters(counters)
    result = record.parse_result(json.loads(told.read_text(encoding="utf-8")))
    return record.Boot(
        workload=wanted.workload.name,
        summary=wanted.workload.summary,
        is_misplaced=wanted.workload.is_misplaced,
        stays_seconds=wanted.workload.stays_seconds,
        rival=wanted.rival,
        boot=wanted.boot,
        work=wanted.work,
        mib=wanted.mib,
        asked_seconds=wanted.seconds,
        attempts=attempt,
        commit=commit(),
        host_cpus=os.cpu_count() or 1,
        is_house_first=is_house_first,
        versions=versions(wanted, lab),
        figures=figures.figures(counted),
        series=figures.thinned(figures.series(counted)),
        result=result,
    )


def prepare(names: Iterable[str], lab: LabDirectory) -> None:
    """Build and fetch what these workloads are made of. Raises LabError and CalledProcessError."""
    loads.build()
    if not programs.PROGRAMS.keys().isdisjoint(names):
        programs.ensure_programs(lab.packages)


def topology() -> Topology:
    """The machine of machine.toml."""
    return parse("locality", MACHINE.read_text(encoding="utf-8"))


def versions(wanted: Wanted, lab: LabDirectory) -> dict[str, str]:
    """What QEMU says of itself, and the Debian versions of the programs that this run is about, where they are told."""
    qemu = subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, text=True, check=True).stdout
    found = {"QEMU": qemu.splitlines()[0].removeprefix("QEMU emulator version ")}
    if wanted.rival == "numad" and (version := _debian_version("numad", lab.packages)):
        found["numad"] = version
    if wanted.workload.name in programs.PROGRAMS:
        found |= programs.versions(lab.packages)
    return found


def commit() -> str:
    """The commit of the checkout, with a + when what matters here differs from it; "unknown" outside of git."""
    described = _git("rev-parse", "--short=12", "HEAD")
    changed = _git("status", "--porcelain", "--", "balancerd", "tests", ":!tests/bench/results", ":!tests/bench/*.md")
    return "unknown" if described is None else described + ("+" if changed else "")


def _git(*words: str) -> str | None:
    answer = subprocess.run(["git", "-C", str(REPOSITORY), *words], capture_output=True, text=True, check=False)
    return answer.stdout.strip() if answer.returncode == 0 else None


def _debian_version(package: str, cache: Path) -> str | None:
    changelog = cache / package / "usr/share/doc" / package / "changelog.Debian.gz"
    if changelog.is_file():
        with gzip.open(changelog, "rt", encoding="utf-8") as lines:
            return debian.parse_changelog(next(lines, ""))
    query = ["dpkg-query", "-W", "-f", "${Version}", package]
    return subprocess.run(query, capture_output=True, text=True, check=False).stdout or None


def _error(told: Path, stderr: bytes) -> str:
    """Return why a run failed: by its result where it got to write one, or else its last words."""
    if told.exists():
        error = json.loads(told.read_text(encoding="utf-8")).get("error")
        if error:
            return str(error)
    return stderr.decode("utf-8", "replace")[-2000:]
