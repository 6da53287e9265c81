"""`balancerctl top --batch`: what the live view shows, as plain text, for pipes, logs and plain terminals."""

import time
from collections.abc import Callable

from balancerd.cli import words
from balancerd.cli.exits import CommandError
from balancerd.cli.options import Settings, ask
from balancerd.cli.screen import aligned, escape, write
from balancerd.cli.top import rows
from balancerd.cli.top.feed import top_path
from balancerd.cli.top.frame import Asked, Frame, Rates, SchemaError, by_state, of_answers, warnings


def run(
    settings: Settings,
    asked: Asked,
    *,
    frames: int | None,
    interval_seconds: float,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Print so many frames, None for ever. Raises CommandError and its kinds once the daemon does not answer."""
    rates, printed = Rates(), 0
    while frames is None or printed < frames:
        if printed:
            sleep(interval_seconds)
            write()
        frame = fetch(settings, asked)
        rates.note(frame)
        write("\n".join(lines(frame, rates.last())))
        printed += 1


def fetch(settings: Settings, asked: Asked) -> Frame:
    """Ask for one frame. Raises CommandError and its kinds."""
    try:
        return of_answers(ask(settings, "/v1/status"), ask(settings, top_path("/v1/top", asked)))
    except SchemaError as error:
        raise CommandError("the daemon speaks another version of the control API") from error


def lines(frame: Frame, bytes_per_second: float | None) -> list[str]:
    """Return a frame as text, safe to print."""
    status, top = frame.status, frame.top
    told = [headline(frame), movement(frame, bytes_per_second), *(f"! {each}" for each in warnings(status))]
    if status["tick"] is None:
        return told
    nodes = [_escaped(rows.node(each, top)) for each in top["nodes"]]
    workloads = [_escaped(rows.workload(each)) for each in top["workloads"]]
    processes = [_escaped(rows.process(each)) for each in top["processes"]]
    told += ["", *aligned(rows.NODES, nodes)]
    if workloads:
        told += ["", *aligned(rows.WORKLOADS, workloads), *_more(frame, "workloads")]
    if processes:
        told += ["", *aligned(rows.PROCESSES, processes), *_more(frame, "processes")]
    return told


def headline(frame: Frame) -> str:
    """Return who it is, and whether it works."""
    status = frame.status
    tick = status["tick"]
    age = "no tick yet" if tick is None else f"tick {tick['number']}, {words.age(tick['age_seconds'])} ago"
    return f"balancerd {escape(status['version'])}, {escape(status['mode'] or 'starting')}, {age}"


def movement(frame: Frame, bytes_per_second: float | None) -> str:
    """Return how many processes are in which state, and what was moved."""
    states = ", ".join(f"{number} {state}" for state, number in by_state(frame.status))
    moved = f"moved {words.size(frame.status['totals']['moved_bytes'])}"
    now = "" if bytes_per_second is None else f", now {words.size(round(bytes_per_second))}/s"
    return f"{moved}{now}" + (f"; processes: {states}" if states else "")


def _more(frame: Frame, listed: str) -> list[str]:
    more = rows.left_out(frame.top, listed)
    return [more] if more else []


def _escaped(cells: tuple[str, ...]) -> list[str]:
    return [escape(cell) for cell in cells]
