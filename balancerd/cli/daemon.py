"""The command `balancerd`. Its options are few; everything else is in the configuration."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from balancerd import __version__
from balancerd.config.loader import DEFAULT_PATH
from balancerd.wiring import Application, StartError

EPILOG = """\
examples:
  balancerd                                  balance with /etc/balancerd/balancerd.yaml, or good defaults
  balancerd --set mode=observe               decide, explain and report, but move nothing
  balancerd --config my.yaml --once          one tick, then exit

signals: SIGTERM finishes the current call and exits, SIGHUP reads the configuration again.
`balancerctl` talks to the running daemon.
"""

CONFIG_STATUS = 5


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line; the manual is made of it, too."""
    parser = argparse.ArgumentParser(
        prog="balancerd",
        description="Keeps every process's memory on the NUMA node where its threads run.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help=f"configuration, this file alone (default {DEFAULT_PATH}, if any, and conf.d/*.yaml)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="overrides",
        metavar="KEY=VALUE",
        help="override one setting, e.g. migrate.stall_target=10ms; may be repeated",
    )
    parser.add_argument("--once", action="store_true", help="one tick, then exit")
    parser.add_argument("--version", action="version", version=f"balancerd {__version__}")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the daemon; return its exit status: 0 as asked, 1 failure, 2 usage, 5 configuration or start refused."""
    given = build_parser().parse_args(arguments)
    try:
        return Application(path=given.config, overrides=given.overrides).run(once=given.once)
    except StartError as error:
        print(error, file=sys.stderr)  # noqa: T201 - the log is not there yet, and this is for whoever started it
        return CONFIG_STATUS
