"""python -m tests.lab: commands, shells and tests in a virtual NUMA machine.

Owns the verbs and their options; the work is done by machine.py and runner.py.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.lab import kernel, topology, workloads
from tests.lab.link import Link, OnOutput
from tests.lab.machine import Machine, Options, environment
from tests.lab.oracle import OracleOptions
from tests.lab.packages import ensure_installed, ensure_tools
from tests.lab.qemu import ACCELERATORS
from tests.lab.state import LabDirectory, LabError, is_locked, lab_directory
from tests.lab.terminal import Terminal, borrowed
from tests.lab.topology import TopologyError

UP_LIFE_SECONDS = 4 * 3600.0
DOWN_SECONDS = 10.0
LAB_FAILED = 125  # no command ran, or it was lost; what timeout(1) and docker run say of themselves


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit status, which for a command inside is the command's own."""
    signal.signal(signal.SIGTERM, lambda _signal, _frame: sys.exit(128 + signal.SIGTERM))
    words = list(sys.argv[1:] if arguments is None else arguments)
    split = words.index("--") if "--" in words else len(words)
    parser = _parser()
    options, rest = parser.parse_known_args(words[:split])
    command = words[split + 1 :]
    if rest and options.verb != "test":
        parser.error(f"unrecognized arguments: {' '.join(rest)} (a command comes after --)")
    if options.verb in {"run", "exec"} and not command:
        parser.error("give a command after --")
    try:
        return _dispatch(options, command, [*rest, *command])
    except (LabError, TopologyError) as error:
        print(f"lab: error: {error}", file=sys.stderr)
        return LAB_FAILED
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _dispatch(options: argparse.Namespace, command: list[str], pytest_arguments: list[str]) -> int:
    lab = lab_directory()
    match options.verb:
        case "prepare":
            return _prepare(lab)
        case "test":
            from tests.lab import runner  # it needs pytest, which the other verbs do not

            workloads.build()
            return runner.run_tests(lab, options.topology, options.kernel, pytest_arguments, options.part)
        case "run":
            return _run(_machine(options, lab), command, options)
        case "shell":
            options.terminal, options.timeout = True, None
            return _run(_machine(options, lab), command or ["bash", "-l"], options)
        case "up":
            return _up(_machine(options, lab, life_seconds=UP_LIFE_SECONDS), lab)
        case "exec":
            return _exec(lab, command, options)
        case _:
            return _down(lab)


def _prepare(lab: LabDirectory) -> int:
    ensure_installed()
    releases = [kernel.ensure_kernel(lab.packages).release]
    for series in kernel.SERIES:
        if series == kernel.DEFAULT:
            continue
        try:
            releases.append(kernel.ensure_kernel(lab.packages, series).release)
        except LabError as error:  # a newer Debian has no older kernel: only the tests on it fail
            print(f"lab: {error}", file=sys.stderr)
    ensure_tools(lab.packages)
    workloads.build()
    print(f"lab: ready; kernels {', '.join(releases)}; topologies {', '.join(topology.names())}")
    return 0


def _machine(options: argparse.Namespace, lab: LabDirectory, *, life_seconds: float | None = None) -> Machine:
    boot = Options(
        kernel=options.kernel or kernel.DEFAULT,
        threads=options.threads,
        systemd_unit=options.systemd,
        kernel_arguments=options.kernel_arguments,
        life_seconds=life_seconds,
        oracle=OracleOptions(has_pages=options.oracle == "pages") if options.oracle else None,
    )
    return Machine(topology.load(options.topology or topology.DEFAULT), options=boot, lab=lab)


def _run(machine: Machine, command: list[str], options: argparse.Namespace) -> int:
    with machine, _streams(options) as (on_output, terminal):
        ended = machine.run(
            command,
            env=_terminal_environment(terminal),
            timeout_seconds=options.timeout,
            on_output=on_output,
            terminal=terminal,
        )
    if options.oracle:
        print(f"lab: what the oracle counted is in {machine.counters}", file=sys.stderr)
    return ended.exit_status


def _up(machine: Machine, lab: LabDirectory) -> int:
    machine.boot()
    record = {
        "pid": machine.pid,
        "agent": str(machine.link.path),
        "topology": machine.topology.name,
        "kernel": machine.options.kernel,
    }
    lab.up.write_text(json.dumps(record), encoding="utf-8")
    print(f"lab: {machine.name} is up after {machine.boot_seconds:.1f} s; files come out in {machine.out}")
    return 0


def _exec(lab: LabDirectory, command: list[str], options: argparse.Namespace) -> int:
    record = _record(lab)
    with _streams(options) as (on_output, terminal):
        ended = Link(path=Path(record["agent"])).run(
            command,
            cwd=Path.cwd(),
            env={**environment(record["topology"], record["kernel"]), **_terminal_environment(terminal)},
            timeout_seconds=options.timeout,
            fresh=True,
            on_output=on_output,
            terminal=terminal,
        )
    return ended.exit_status


def _down(lab: LabDirectory) -> int:
    record = _record(lab)
    os.kill(int(record["pid"]), signal.SIGTERM)
    deadline = time.monotonic() + DOWN_SECONDS
    while is_locked(lab):
        if time.monotonic() > deadline:
            raise LabError(f"the machine, process {record['pid']}, does not end")
        time.sleep(0.05)
    shutil.rmtree(Path(record["agent"]).parent)
    lab.up.unlink()
    return 0


def _record(lab: LabDirectory) -> dict[str, str]:
    if not (lab.up.exists() and is_locked(lab)):
        raise LabError("no machine is up; start one with: python -m tests.lab up")
    record: dict[str, str] = json.loads(lab.up.read_text(encoding="utf-8"))
    return record


@contextlib.contextmanager
def _streams(options: argparse.Namespace) -> Iterator[tuple[OnOutput, Terminal | None]]:
    if not options.terminal:
        yield _pass_on, None
    elif sys.stdin.isatty():
        with borrowed(sys.stdin.fileno()) as terminal:
            yield _pass_on, terminal
    else:
        raise LabError("standard input is not a terminal, which a shell inside needs")


def _pass_on(stream: int, data: bytes) -> None:
    while data:
        data = data[os.write(stream, data) :]


def _terminal_environment(terminal: Terminal | None) -> dict[str, str]:
    return {"TERM": os.environ.get("TERM", "dumb")} if terminal else {}


def _parser() -> argparse.ArgumentParser:
    place = argparse.ArgumentParser(add_help=False)
    place.add_argument("--topology", choices=topology.names(), help=f"default: {topology.DEFAULT}; of test: all")
    place.add_argument(
        "--kernel", choices=kernel.SERIES, help=f"default: {kernel.DEFAULT}; of test: all that tests name"
    )
    boot = argparse.ArgumentParser(add_help=False)
    boot.add_argument(
        "--threads", choices=list(ACCELERATORS), default="single", help="multi is for benchmarks, counted for latencies"
    )
    boot.add_argument("--systemd", default="", metavar="UNIT", help="systemd is PID 1, with this unit (basic.target)")
    boot.add_argument("--kernel-arguments", default="", metavar="WORDS", help="more kernel command line")
    boot.add_argument(
        "--oracle",
        nargs="?",
        choices=["nodes", "pages"],
        const="nodes",
        default="",
        help="count accesses to memory by CPU and node, with pages by page, too",
    )
    call = argparse.ArgumentParser(add_help=False)
    call.add_argument("--timeout", type=float, metavar="SECONDS", help="exit status 124 when the command takes longer")
    call.add_argument("--terminal", action="store_true", help="lend the command this terminal; Ctrl-] hangs up")
    parser = argparse.ArgumentParser(prog="python -m tests.lab", description=__doc__.partition("\n")[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("prepare", help="install and fetch what the machine needs, all kernels too")
    test = verbs.add_parser("test", parents=[place], help="run the lab's tests; other arguments go to pytest")
    test.add_argument(
        "--part",
        choices=("default", "others", "host"),
        help="the default machine, all others, or the lab's own tests; two parts may run side by side",
    )
    verbs.add_parser("run", parents=[place, boot, call], help="boot, run the command after --, shut down")
    verbs.add_parser("shell", parents=[place, boot], help="boot, and a shell inside; Ctrl-] hangs up")
    verbs.add_parser("up", parents=[place, boot], help="boot and leave the machine running, for four hours at most")
    verbs.add_parser("exec", parents=[call], help="run the command after -- in the machine that is up")
    verbs.add_parser("down", help="end the machine that is up")
    return parser


if __name__ == "__main__":
    sys.exit(main())
