"""One boot of the recall benchmark: a fresh machine under the oracle, programs watched inside, and their figures.

Owns the machine's options, time-outs, and booting again what was lost. Must not know how figures are told.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tests.bench.locality import boots as locality
from tests.bench.locality import programs as packaged
from tests.bench.locality.boots import ATTEMPTS, RunError
from tests.bench.recall.figures import Run, Sampled, figures
from tests.bench.recall.inside import answer_of, marks_of
from tests.bench.recall.programs import Program
from tests.bench.recall.record import Boot, Sampling, Way
from tests.bench.recall.watching import WAYS
from tests.lab.link import MachineLostError
from tests.lab.machine import BootError, Machine, Options
from tests.lab.oracle import OracleOptions
from tests.lab.oracle.counters import Counters, difference, read_counters
from tests.lab.state import REPOSITORY, LabDirectory

SETUP_SECONDS = 60.0
"""What it takes to boot, to start a program, and to tell what became of it, about."""

PATIENCE_RATIO = 4.0
"""A run is given up after so many times what it should take."""


def run(chosen: Sequence[Program], *, seconds: float, patience: float | None, lab: LabDirectory) -> Iterator[Boot]:
    """Boot, watch one program after the other, and yield what is to be kept of each.

    A lost machine is booted again, twice at most, and that is told. Without `patience`, seconds after which what is
    done has to do, it is as the programs should need. Raises LabError, at the end, when some failed.
    """
    attempt, (answers, counted, words) = _surely_one_boot(chosen, seconds, patience, lab)
    failed = []
    for program in chosen:
        answer = answers.get(program.name)
        if answer is None or answer["error"]:
            failed.append(f"{program.name}: {'no answer in time' if answer is None else answer['error']}")
            continue
        yield Boot(
            program=program.name,
            summary=program.summary,
            mib=program.mib,
            attempts=attempt,
            commit=locality.commit(),
            host_cpus=os.cpu_count() or 1,
            kernel=answer["kernel"],
            versions=versions(program, lab),
            ways={way: compared(program.name, way, told, counted) for way, told in answer["ways"].items()},
        )
    if failed:
        raise RunError("\n".join([*failed, words]))


def _surely_one_boot(
    chosen: Sequence[Program], seconds: float, patience: float | None, lab: LabDirectory
) -> tuple[int, tuple[dict[str, Any], Counters, str]]:
    """Return at which attempt a boot lived, and what came of it."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return attempt, _one_boot(chosen, seconds, patience, lab)
        except (MachineLostError, BootError) as error:
            if attempt == ATTEMPTS:
                raise
            print(f"{error}\nonce more", file=sys.stderr)
    raise AssertionError


def _one_boot(
    chosen: Sequence[Program], seconds: float, patience: float | None, lab: LabDirectory
) -> tuple[dict[str, Any], Counters, str]:
    """Return the answers that there are, what the oracle counted, and the last words of the inside."""
    names = [program.name for program in chosen]
    usual = PATIENCE_RATIO * len(names) * (SETUP_SECONDS + len(WAYS) * seconds)
    options = Options(threads="multi", oracle=OracleOptions(has_pages=True))
    with Machine(locality.topology(), options=options, lab=lab) as machine:
        ended = machine.run(
            [sys.executable, "-m", "tests.bench.recall.inside", *names, "--seconds", str(seconds)],
            cwd=REPOSITORY,
            env={"BALANCERD_LAB_DIR": str(lab.root)},
            timeout_seconds=usual if patience is None else patience,
        )
        told = {name: answer_of(machine.out, name) for name in names}
        answers = {name: json.loads(path.read_text(encoding="utf-8")) for name, path in told.items() if path.exists()}
    return answers, read_counters(machine.counters), ended.stderr.decode("utf-8", "replace")[-2000:]


def compared(program: str, way: str, answer: Mapping[str, Any], counted: Counters) -> Way:
    """Put what watching.py told beside what the oracle counted meanwhile. Raises RunError when a marker is missing."""
    before, after = (counted.mark(number) for number in marks_of(program, way))
    if before is None or after is None:
        raise RunError(f"{program}, {way}: the oracle saw no marker")
    window = difference(before, after)
    return Way(
        sampling=Sampling(**{name: answer[name] for name in Sampling.__dataclass_fields__}),
        lost_accesses=window.pages_lost,
        figures=figures(
            window.pages,
            mappings=answer["mappings"],
            watched=answer["watched"],
            present=answer["present"],
            runs=[Run(start=start, end=end, node=node, is_sure=sure) for start, end, node, sure in answer["runs"]],
            samples=[Sampled(page=page, node=node, samples=n) for page, node, n in answer["sampled"]],
        ),
    )


def versions(program: Program, lab: LabDirectory) -> dict[str, str]:
    """What QEMU says of itself, and the versions of the programs that this run is about."""
    qemu = subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, text=True, check=True).stdout
    found = {"QEMU": qemu.splitlines()[0].removeprefix("QEMU emulator version ")}
    if program.is_packaged:
        found |= packaged.versions(lab.packages)
    if program.name == "jvm" and (java := shutil.which("java")):
        told = subprocess.run([java, "--version"], capture_output=True, text=True, check=True).stdout
        found["Java"] = told.splitlines()[0]
    return found
