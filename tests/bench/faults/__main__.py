"""python -m tests.bench faults: what daemon and workloads survive, fault by fault, with the figures of each.

All faults of a machine are tried in one boot. The figures are kept as files; then FAULTS.md is written from all that
are kept. Words that are no options of its own go to pytest: -k NAME tries one fault.
"""

import argparse
import signal
import sys
from collections.abc import Sequence

from tests.bench.faults import boots, record, report
from tests.bench.locality.boots import commit
from tests.lab import workloads
from tests.lab.state import LabError, lab_directory

NO_TEST_RAN = 5
"""Of pytest's exit statuses the one that says that no test was selected."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Try the faults that are asked for; 1 when not everything survived."""
    given, words = _parser().parse_known_args(arguments)
    chosen = [] if given.report else given.topology or boots.TOPOLOGIES
    worst = 0
    try:
        workloads.build()
        for name in chosen:
            status, found = boots.run(name, words, seed=given.seed, lab=lab_directory())
            for figures in found:
                print(record.write(record.FOLDER, record.Kept(commit=commit(), figures=figures)), flush=True)
            worst = max(worst, 0 if status == NO_TEST_RAN and words else status)
        kept = record.read(record.FOLDER)
    except (LabError, record.RecordError) as error:
        print(f"faults: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    report.PAGE.write_text(report.page(kept), encoding="utf-8")
    print(report.summary(kept))
    return 1 if worst else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench faults", description=__doc__.partition("\n")[0].partition(": ")[2]
    )
    told = f"may be repeated; default: all of {', '.join(boots.TOPOLOGIES)}"
    parser.add_argument("--topology", action="append", choices=boots.TOPOLOGIES, metavar="NAME", help=told)
    parser.add_argument("--seed", type=int, default=1, help="what chooses when and where faults happen; default: 1")
    parser.add_argument("--report", action="store_true", help="only write FAULTS.md from what is kept")
    return parser


if __name__ == "__main__":
    sys.exit(main())
