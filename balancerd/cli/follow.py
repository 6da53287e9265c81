"""From handing a job in to its end: progress on standard error meanwhile, Ctrl-C, and the exit code.

Ctrl-C is a flag here and no exception, so that it never falls between a request and its answer: the job is cancelled,
and its account still told. It must not know what jobs do; `account` words them.
"""

import contextlib
import signal
import time
from collections.abc import Iterator
from types import FrameType
from typing import Final

from balancerd.cli import account
from balancerd.cli.exits import CommandError, ExitCode
from balancerd.cli.options import Document, Settings, ask
from balancerd.cli.progress import ProgressLine
from balancerd.cli.screen import escape, write, write_json

FIRST_POLL_SECONDS: Final = 0.05
LONGEST_POLL_SECONDS: Final = 0.5
FINAL: Final = frozenset({"done", "cancelled", "failed"})


def run_job(settings: Settings, request: Document, *, wait: bool, as_json: bool) -> ExitCode:
    """Hand a job in and, unless told not to `wait`, follow it to its end; print the account, return the exit code.

    Raises CommandError and its kinds.
    """
    with collect_interrupts() as interrupts:
        document = ask(settings, "/v1/jobs", post=request)
        if not wait:
            _print_handed_in(document, as_json=as_json)
            return ExitCode.OK
        document = _follow(settings, document, interrupts, quiet=as_json)
    if as_json:
        write_json(document)
    elif document["job"]["state"] in FINAL:
        for line in account.tell(document["job"]):
            write(escape(line))
    return ExitCode.INTERRUPTED if interrupts else account.exit_code(document["job"])


def follow_job(settings: Settings, request: Document, *, quiet: bool) -> tuple[Document, ExitCode]:
    """Hand a job in and follow it to its end; return it as it was told last, and its exit code. Prints no account.

    Raises CommandError and its kinds.
    """
    with collect_interrupts() as interrupts:
        document = _follow(settings, ask(settings, "/v1/jobs", post=request), interrupts, quiet=quiet)
    job: Document = document["job"]
    return job, ExitCode.INTERRUPTED if interrupts else account.exit_code(job)


def _follow(settings: Settings, document: Document, interrupts: list[int], *, quiet: bool) -> Document:
    path = f"/v1/jobs/{document['job']['id']}"
    progress = ProgressLine(quiet=quiet)
    cancelled, pause = False, FIRST_POLL_SECONDS
    try:
        while document["job"]["state"] not in FINAL:
            if interrupts and not cancelled:
                cancelled = True
                document = ask(settings, f"{path}/cancel", post={})
                progress.note("cancelling: it ends after the call at hand (Ctrl-C again: do not wait)")
                continue
            if len(interrupts) > 1:
                progress.note(f"not waited for: {path} tells how it ends")
                break
            time.sleep(pause)
            pause = min(pause * 1.5, LONGEST_POLL_SECONDS)
            document = ask(settings, path)
            if document["job"]["state"] not in FINAL and not progress.is_off:
                progress.show(escape(account.progress(document["job"])))
    except CommandError as error:
        progress.clear()
        raise type(error)(f"{error.message}; so far: {escape(account.progress(document['job']))}") from error
    finally:
        progress.clear()
    return document


def _print_handed_in(document: Document, *, as_json: bool) -> None:
    job_id = document["job"]["id"]
    if as_json:
        write_json(document)
    else:
        write(f"job {job_id} is queued")


@contextlib.contextmanager
def collect_interrupts() -> Iterator[list[int]]:
    """Collect Ctrl-C in a list instead of having it raise KeyboardInterrupt."""
    seen: list[int] = []

    def on_interrupt(number: int, _frame: FrameType | None) -> None:
        seen.append(number)

    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield seen
    finally:
        signal.signal(signal.SIGINT, before)
