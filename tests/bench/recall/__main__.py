"""python -m tests.bench recall: how right and how complete register sampling is beside the oracle, by program.

A few programs run in each boot, one after the other. Each is kept as a file; then RECALL.md is written from all that
are kept.
"""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.bench.recall import boots, record, report
from tests.bench.recall.programs import PROGRAMS, Program, prepare
from tests.lab.state import LabError, lab_directory

SECONDS = 20
PER_BOOT = 6
"""Each marker tells of all pages since the boot, so that more programs would take much memory here."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the boots that are asked for; 1 when some failed. What failed keeps its older file."""
    given = _parser().parse_args(arguments)
    chosen = [] if given.report else [PROGRAMS[name] for name in given.program or PROGRAMS]
    parts = [chosen[at : at + PER_BOOT] for at in range(0, len(chosen), PER_BOOT)]
    try:
        if chosen:
            prepare(chosen, lab_directory().packages)
        n_made = sum(_made(part, given) for part in parts)
        kept = record.read_boots(given.results)
    except (LabError, record.RecordError) as error:
        print(f"recall: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    if given.results == record.FOLDER:
        report.PAGE.write_text(report.page(kept), encoding="utf-8")
    print(report.summary(kept))
    return 0 if n_made == len(parts) else 1


def _made(chosen: Sequence[Program], given: argparse.Namespace) -> bool:
    """Make one boot; return whether all went well."""
    try:
        for boot in boots.run(chosen, seconds=given.seconds, patience=given.patience, lab=lab_directory()):
            print(f"{boot.program}: kept in {record.write_boot(given.results, boot)}", flush=True)
    except (LabError, ValueError, KeyError) as error:
        print(error, file=sys.stderr, flush=True)
        return False
    return True


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench recall", description=__doc__.partition("\n")[0].partition(": ")[2]
    )
    told = f"may be repeated; default: all of {', '.join(PROGRAMS)}"
    parser.add_argument("--program", action="append", choices=PROGRAMS, metavar="NAME", help=told)
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"to watch, each way; default: {SECONDS}")
    parser.add_argument("--patience", type=float, help="seconds after which a boot ends with what it has")
    parser.add_argument("--results", type=Path, default=record.FOLDER, help="where the boots are kept")
    parser.add_argument("--report", action="store_true", help="only write RECALL.md from what is kept")
    return parser


if __name__ == "__main__":
    sys.exit(main())
