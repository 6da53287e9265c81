"""`balancerctl import-log`: hand logs of perf to the daemon. Reads them, and must not know what is made of them."""

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import click

from balancerd.cli.exits import CommandError, ExitCode
from balancerd.cli.options import SCHEMA, Document, Settings, ask, json_option, post_bytes, socket_option
from balancerd.cli.screen import escape, write, write_json
from balancerd.control.import_pieces import PIECE_SAMPLES, header_document, pack_samples
from balancerd.kernel.accesses.log_file import LogFile, LogUnreadableError
from balancerd.kernel.accesses.perf_log import LogTally


@click.command(
    "import-log",
    short_help="Have memory moved by what perf recorded of its accesses.",
    epilog="""\b
Examples:
  perf mem record -a -k CLOCK_MONOTONIC -- sleep 10
  perf script --header -F pid,tid,cpu,time,addr,phys_addr,data_src,weight > accesses.txt
  balancerctl import-log accesses.txt
""",
)
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=click.Path())
@json_option
@socket_option
@click.pass_obj
@click.pass_context
def import_log(ctx: click.Context, settings: Settings, files: tuple[str, ...], *, as_json: bool) -> None:
    """Hand FILEs, the output of perf script, plain or gzip, to the daemon.

    An `access` policy then judges the processes in them by these samples, for an hour. Needed are pid, cpu and addr,
    and time for knowing that a process is not another one's follower under the same pid. A file is taken whole or not
    at all; lines that are no samples are left out and told. Processes that ended are left out.

    Exits 0 when all were taken, 1 when one was not. In JSON: for each file what it held, and the daemon's answers.
    """
    logs = [_import(settings, path) for path in files]
    if as_json:
        write_json({"schema": SCHEMA, "logs": logs})
    else:
        for log in logs:
            _show(log)
    ctx.exit(ExitCode.OK if all(log["error"] is None for log in logs) else ExitCode.FAILURE)


def _import(settings: Settings, path: str) -> Document:
    try:
        with LogFile(path) as file:
            tally = file.survey()
            return _told(tally, *_send(settings, file, tally))
    except LogUnreadableError as error:
        return {"path": path, "error": str(error)}
    except CommandError as error:
        if error.exit_code != ExitCode.FAILURE:
            raise  # nobody is there, or we may not: no other file will go better
        return {"path": path, "error": f"{path}: {error.message}"}


def _send(settings: Settings, file: LogFile, tally: LogTally) -> tuple[Document, Document]:
    """Send what is wanted of a log; whatever goes wrong on the way, the daemon forgets it again."""
    begun: Document = ask(settings, "/v1/imports", post=header_document(tally))["import"]
    where = f"/v1/imports/{begun['number']}"
    try:
        for piece in file.samples(tally, set(begun["wanted"]), PIECE_SAMPLES):
            post_bytes(settings, f"{where}/samples", pack_samples(piece))
    except BaseException:
        with contextlib.suppress(CommandError):
            ask(settings, f"{where}/cancel", post={})
        raise
    return begun, ask(settings, f"{where}/commit", post={})


def _told(tally: LogTally, begun: Document, ended: Document) -> Document:
    return {
        "path": tally.path,
        "error": None,
        "lines": tally.lines,
        "samples": tally.samples,
        "kernel_samples": tally.kernel,
        "samples_without_address": tally.without_address,
        "lost_samples": tally.lost_samples,
        "truncated_lines": tally.truncated,
        "foreign_lines": tally.foreign,
        "odd_lines": [{"line": each.number, "what": each.what} for each in tally.odd_lines],
        "is_timed": begun["is_timed"],
        "processes": ended["processes"],
        "refused": begun["refused"],
    }


def _show(log: Mapping[str, Any]) -> None:
    if log["error"] is not None:
        write(f"not taken: {escape(log['error'])}", err=True)
        return
    path = escape(log["path"])
    for odd in log["odd_lines"]:
        write(f"{path}:{odd['line']}: {odd['what']}", err=True)
    untold = log["truncated_lines"] + log["foreign_lines"] - len(log["odd_lines"])
    if untold:
        write(f"{path}: and {untold} more lines that are no samples", err=True)
    if not log["is_timed"]:
        write(f"{path}: no times: nobody can tell whether its processes are those of now", err=True)
    write(f"{path}: {log['samples']} samples in {log['lines']} lines, {log['lost_samples']} lost")
    for process in log["processes"]:
        write(f"  process {process['pid']}: {process['counted_samples']} counted{_left_out(process)}")
    for pid, why in log["refused"].items():
        write(f"  process {pid}: left out: {escape(why)}")


def _left_out(process: Mapping[str, Any]) -> str:
    what: tuple[tuple[str, Callable[[int], str]], ...] = (
        ("elsewhere_samples", lambda n: f"{n} not in memory that is watched"),
        ("earlier_samples", lambda n: f"{n} of before it began"),
        ("unknown_cpu_samples", lambda n: f"{n} from CPUs of no node"),
    )
    return "".join(f", {tell(process[key])}" for key, tell in what if process[key])
