"""`balancerctl record`: have the daemon tell what its ticks are told, and write that to a file.

Owns the file: gzip of JSON lines, flushed after each piece, so that what was fetched is there whatever happens. It must
not know what the lines say.
"""

import contextlib
import gzip
import json
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import click

from balancerd.cli.exits import CommandError, ExitCode
from balancerd.cli.follow import collect_interrupts
from balancerd.cli.options import SCHEMA, Document, Settings, ask, json_option, socket_option
from balancerd.cli.progress import ProgressLine
from balancerd.cli.screen import escape, write, write_json
from balancerd.config.units import format_bytes, format_duration, parse_bytes, parse_duration
from balancerd.trace.form import ENDED_IN_TIME

POLL_SECONDS: Final = 0.5
LEAST_BYTES: Final = 1 << 20


class _Quantity(click.ParamType[float]):
    """A value with a unit, as in the configuration."""

    def __init__(self, name: str, parse: Callable[[str], float]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if not isinstance(value, str):
            return float(value)
        try:
            return self._parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command(
    short_help="Write down what the daemon is told, for replay.",
    epilog="""\b
Examples:
  balancerctl record /tmp/monday.trace.gz --for 10m
  balancerctl replay /tmp/monday.trace.gz
""",
)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--for",
    "seconds",
    type=_Quantity("DURATION", parse_duration),
    default="10m",
    show_default=True,
    help="Record so long, at most 24h.",
)
@click.option(
    "--max-size",
    "most_bytes",
    type=_Quantity("SIZE", parse_bytes),
    default="256MiB",
    show_default=True,
    help="End when the file is so large.",
)
@json_option
@socket_option
@click.pass_obj
@click.pass_context
def record(
    ctx: click.Context, settings: Settings, file: Path, *, seconds: float, most_bytes: float, as_json: bool
) -> None:
    """Record what the running daemon is told, tick by tick, in FILE, until --for is over or Ctrl-C.

    FILE must not exist. It has no names: those of processes, users, units and mappings are hashed, with a salt that is
    kept nowhere, pids are numbered anew, and addresses shifted. Numbers are as they are: sizes, times, nodes, CPUs.

    Exits 0 when it is complete, 130 after Ctrl-C, 1 when the daemon or the disk ended it; what is in FILE by then can
    be replayed. In JSON: file, ticks, bytes and ended, which says why it ended.
    """
    if most_bytes < LEAST_BYTES:
        raise click.BadParameter(f"at least {format_bytes(LEAST_BYTES)}", param_hint="--max-size")
    trace = _File(file)
    try:
        with collect_interrupts() as seen:
            told = _record(settings, trace, seconds, most_bytes, seen, quiet=as_json)
    except BaseException:
        trace.leave()
        raise
    if as_json:
        write_json({"schema": SCHEMA, "file": str(file), "ticks": told[0], "bytes": trace.size, "ended": told[1]})
    else:
        write(f"{escape(str(file))}: {told[0]} ticks, {format_bytes(trace.size)}, ended: {escape(told[1])}")
    if seen:
        ctx.exit(ExitCode.INTERRUPTED)
    ctx.exit(ExitCode.OK if told[2] else ExitCode.FAILURE)


def _record(
    settings: Settings, trace: "_File", seconds: float, most_bytes: float, seen: list[int], *, quiet: bool
) -> tuple[int, str, bool]:
    """Fetch until the end; return the ticks, why it ended, and whether that was as asked."""
    begun = ask(settings, "/v1/recordings", post={"seconds": seconds})["recording"]
    where = f"/v1/recordings/{begun['number']}"
    progress, begin = ProgressLine(quiet=quiet), time.monotonic()
    told: str | None = None
    ended: str | None = None
    try:
        while ended is None:
            document = ask(settings, f"{where}/fetch", post={})
            ended = document["recording"]["ended"]
            if trace.size < most_bytes:
                trace.add(document["lines"])
            progress.show(_progress(trace, begin, seconds))
            if told is None and ended is None and (seen or trace.size >= most_bytes):
                told = "interrupted" if seen else f"the file has reached {format_bytes(int(most_bytes))}"
                ask(settings, f"{where}/stop", post={})
            elif not document["lines"] and ended is None:
                _sleep(seen)
        trace.end(told or ended)
    except OSError as error:
        with contextlib.suppress(CommandError):
            ask(settings, f"{where}/stop", post={})
        why = f"{escape(str(trace.path))} cannot be written: {error.strerror or error}"
        raise CommandError(f"{why}; recorded until then: {trace.ticks} ticks") from error
    except CommandError as error:
        raise type(error)(f"{error.message}; recorded until then: {trace.ticks} ticks") from error
    finally:
        progress.clear()
    if not trace.ticks:
        raise CommandError(f"nothing was recorded, no tick has ended: {escape(told or ended)}")
    return trace.ticks, told or ended, told is not None or ended == ENDED_IN_TIME


def _sleep(seen: list[int]) -> None:
    """Wait for the next ticks; Ctrl-C ends it at once."""
    end = time.monotonic() + POLL_SECONDS
    while not seen and (left := end - time.monotonic()) > 0:
        time.sleep(min(left, 0.05))


class _File:
    """The file, which nobody else may read. Raises CommandError when it cannot be made."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ticks = 0
        try:
            self._raw = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")
        except FileExistsError:
            raise CommandError(f"{escape(str(path))} exists already: remove it, or choose another name") from None
        except OSError as error:
            raise CommandError(f"{escape(str(path))} cannot be written: {error.strerror}") from error
        self._gzip = gzip.GzipFile(filename="", mode="wb", fileobj=self._raw, mtime=0)
        self.size = 0

    def add(self, lines: Iterable[Document]) -> None:
        """Add lines, each of which is on the disk before the next. Raises OSError."""
        for line in lines:
            self._gzip.write(json.dumps(line, separators=(",", ":")).encode("ascii") + b"\n")
            self._gzip.flush()
            self._raw.flush()
            self.size = self._raw.tell()
            self.ticks += "tick" in line

    def end(self, why: str) -> None:
        """Say that this is all, and why. Raises OSError."""
        if self.size:
            self.add(({"end": why},))
        self._gzip.close()
        self.size = self._raw.tell()
        self._raw.close()

    def leave(self) -> None:
        """Close it as it is; without a tick it is taken away."""
        with contextlib.suppress(OSError):
            self._raw.close()
        if not self.ticks:
            self.path.unlink(missing_ok=True)


def _progress(trace: _File, begin: float, seconds: float) -> str:
    gone = format_duration(float(round(time.monotonic() - begin)))
    size = format_bytes(trace.size)
    return f"recording: {trace.ticks} ticks, {size}, {gone} of {format_duration(seconds)}"
