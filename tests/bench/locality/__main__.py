"""python -m tests.bench.locality: each workload under each rival in fresh boots, each of which is kept as a file.

Owns the choice and the order of boots. One boot of everything comes before the second of anything, so that a run that
is stopped has something of all.
"""

import argparse
import signal
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tests.bench.locality import boots, compare, programs, record, rivals, verdicts, workloads
from tests.bench.locality.boots import Wanted
from tests.bench.locality.plan import Workload
from tests.bench.locality.report import summary
from tests.lab.state import LabError, lab_directory

WORKLOADS: Mapping[str, Workload] = {**workloads.WORKLOADS, **programs.PROGRAMS}
SECONDS = 240
"""Copying takes 20 to 50 times as long here as on hardware, and so does work: this is a few seconds of it."""

OTHER_SECONDS = {
    "crossed": 720,
    "crowded": 360,
    "numpy": 480,
    "single": 480,
    "storm": 50,
    "shifted-5": 150,
    "shifted-60": 300,
    "shifted-300": 660,
}
"""Of workloads with four times as much memory, or a process on each node, with one thread that a quiet host lets do all
in half of the time, with nothing that takes long, and with moves so seldom that they would not be seen; as the kept
boots had it."""

BETWEEN_SECONDS = 60.0
"""About what a boot, starting the workload, and checking it take."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the boots that are asked for; 1 when some failed, or the check did. What failed keeps its older file."""
    given = _parser().parse_args(arguments)
    try:
        return _run(given)
    except (LabError, record.RecordError) as error:
        print(f"locality: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _run(given: argparse.Namespace) -> int:
    wanted = list(
        choose(
            [WORKLOADS[name] for name in given.workload or WORKLOADS],
            given.rival or list(rivals.RIVALS),
            n_boots=given.boots,
            seconds=given.seconds,
            mib=given.mib,
        )
    )
    if given.missing:
        wanted = [one for one in wanted if not boots.is_kept(given.results, one)]
    lab = lab_directory()
    boots.prepare({one.workload.name for one in wanted}, lab)
    hours = sum(one.seconds + BETWEEN_SECONDS for one in wanted) / 3600
    print(f"{len(wanted)} boots, about {hours:.1f} hours; what is done is kept in {given.results}", flush=True)
    failed = [one for one in wanted if not _made(one, given.results)]
    kept = record.read_boots(given.results)
    chosen = compare.compare([boot for boot in kept if boot.workload in {one.workload.name for one in wanted}])
    print(f"\nT / bound\n\n{summary(chosen, compare.RIVALS, with_n=True)}")
    for one in failed:
        print(f"failed: {one}", file=sys.stderr)
    faults = verdicts.quick_faults(chosen) if given.check else ()
    for fault in faults:
        print(f"check: {fault}", file=sys.stderr)
    return 1 if failed or faults else 0


def choose(
    some: Sequence[Workload], names: Sequence[str], *, n_boots: int, seconds: float | None, mib: int | None
) -> Iterable[Wanted]:
    """Return the boots to make, in their order; without `seconds` or `mib` a workload has its usual ones."""
    for boot in range(1, n_boots + 1):
        for workload in some:
            for rival in names:
                yield Wanted(
                    workload=workload,
                    rival=rival,
                    boot=boot,
                    seconds=OTHER_SECONDS.get(workload.name, SECONDS) if seconds is None else seconds,
                    mib=workload.mib if mib is None else mib,
                )


def _made(wanted: Wanted, folder: Path) -> bool:
    try:
        boot = boots.run(wanted, lab_directory())
    except (LabError, ValueError, KeyError) as error:
        print(f"{wanted}: {error}", file=sys.stderr, flush=True)
        return False
    record.write_boot(folder, boot)
    print(f"{wanted}: {_in_short(boot)}", flush=True)
    return True


def _in_short(boot: record.Boot) -> str:
    def percent(ratio: float | None) -> str:
        return "no access" if ratio is None else f"{ratio:.1%}"

    it = boot.figures
    remote = f"remote {percent(it.remote_ratio)}, in the last quarter {percent(it.last_quarter_remote_ratio)}"
    return f"{it.seconds:.0f} s, T {it.memory_time / 1e6:.1f} million, {remote}"


def _positive(word: str) -> int:
    value = int(word)
    if value < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench locality", description=__doc__.partition("\n")[0].partition(": ")[2]
    )
    for option, there_are in (("--workload", WORKLOADS), ("--rival", rivals.RIVALS)):
        told = f"may be repeated; default: all of {', '.join(there_are)}"
        parser.add_argument(option, action="append", choices=there_are, metavar="NAME", help=told)
    usual = ", ".join([str(SECONDS), *(f"{name} {seconds}" for name, seconds in OTHER_SECONDS.items())])
    parser.add_argument("--boots", type=_positive, default=3, help="of each workload under each rival; default: 3")
    parser.add_argument("--seconds", type=_positive, help=f"what the fixed work takes, about; default: {usual}")
    parser.add_argument("--mib", type=_positive, help="memory of each process; default: the workload's own choice")
    parser.add_argument("--missing", action="store_true", help="only boots that are not kept yet with the same work")
    parser.add_argument("--results", type=Path, default=record.FOLDER, help="where the boots are kept")
    parser.add_argument(
        "--check",
        action="store_true",
        help="fail unless nothing's last quarter is remote and balancerd's and bound's is local, with wide bands",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
