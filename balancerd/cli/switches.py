"""`balancerctl pause`, `resume`, `mode` and `reload`: what operators switch. They must not know how it is done."""

import time
from typing import Final

import click

from balancerd.cli import words
from balancerd.cli.duration import DurationType
from balancerd.cli.exits import CommandError, ExitCode
from balancerd.cli.options import SCHEMA, Document, Settings, ask, json_option, socket_option
from balancerd.cli.screen import escape, write, write_json

RELOAD_SECONDS: Final = 60.0
"""How long a reload is waited for: until the tick at hand ends."""

POLL_SECONDS: Final = 0.05


@click.command(
    short_help="Stop everything that moves, now.",
    epilog="""\b
Examples:
  balancerctl pause
  balancerctl pause --for 30m
  balancerctl resume
""",
)
@click.option("--for", "seconds", type=DurationType(), metavar="DURATION", help="End it by itself, such as after 30m.")
@socket_option
@json_option
@click.pass_obj
def pause(settings: Settings, *, seconds: float | None, as_json: bool) -> None:
    """Stop all moves of memory and threads, evictions and jobs after the call at hand, until `balancerctl resume`.

    The daemon goes on to look, decide and explain (with the reason `halted`). A restart ends the pause. Jobs wait where
    they are.

    In JSON: the answer of the daemon to POST /v1/pause.
    """
    document = ask(settings, "/v1/pause", post={} if seconds is None else {"seconds": seconds})
    if as_json:
        write_json(document)
        return
    left = document["pause"]["left_seconds"]
    write("paused until balancerctl resume" if left is None else f"paused for {words.age(left)}", err=True)


@click.command(
    short_help="End a pause.",
    epilog="""\b
Examples:
  balancerctl resume
""",
)
@socket_option
@json_option
@click.pass_obj
def resume(settings: Settings, *, as_json: bool) -> None:
    """Let moves and jobs go on after `balancerctl pause`. Exits 0 also when nothing was paused.

    In JSON: the answer of the daemon to POST /v1/resume.
    """
    document = ask(settings, "/v1/resume", post={})
    if as_json:
        write_json(document)
    else:
        write("resumed" if document["was_paused"] else "was not paused", err=True)


@click.command(
    short_help="Show the mode, or change it while the daemon runs.",
    epilog="""\b
Examples:
  balancerctl mode
  balancerctl mode observe
  balancerctl mode enforce
""",
)
@click.argument("mode", type=click.Choice(["enforce", "observe"]), required=False)
@socket_option
@json_option
@click.pass_obj
def mode(settings: Settings, *, mode: str | None, as_json: bool) -> None:
    """Show which mode the daemon works in, or change it: enforce moves memory, observe decides and explains only.

    It changes with the next tick, and holds until the configuration is loaded again or the daemon is restarted: what it
    is to be then stands in the configuration.

    In JSON: {schema, mode}; null before the first tick.
    """
    if mode is None:
        told = ask(settings, "/v1/status")["mode"]
        document: Document = {"schema": SCHEMA, "mode": told}
    else:
        document = ask(settings, "/v1/mode", post={"mode": mode})
    if as_json:
        write_json(document)
    elif mode is None:
        write(escape(document["mode"] or "unknown before the first tick"))
    else:
        write(f"{mode} from the next tick on, until the next reload or restart", err=True)


@click.command(
    short_help="Have the daemon read its configuration again.",
    epilog="""\b
Examples:
  balancerctl config check && balancerctl reload
  balancerctl reload --json | jq -r .findings[]
""",
)
@click.option("--no-wait", "wait", flag_value=False, default=True, help="Return at once, whatever comes of it.")
@socket_option
@json_option
@click.pass_obj
@click.pass_context
def reload(ctx: click.Context, settings: Settings, *, wait: bool, as_json: bool) -> None:
    """Have the daemon read its configuration again, and say what came of it.

    Exits 5 when it refuses what it reads; each finding is printed as "file:line:column: severity: message", and the old
    configuration stays.

    In JSON: {schema, reloaded (null with --no-wait), path (null: built-in defaults), findings: [text]}.
    """
    before = None if not wait else ask(settings, "/v1/status")["config"]["last_reload"]
    ask(settings, "/v1/reload", post={})
    config = _wait_for_reload(settings, before) if wait else None
    succeeded = None if config is None else bool(config["last_reload"]["succeeded"])
    findings = [] if config is None else [line for line in config["last_reload"]["error"].splitlines() if line]
    if as_json:
        path = None if config is None else config["path"]
        write_json({"schema": SCHEMA, "reloaded": succeeded, "path": path, "findings": findings})
    elif config is None:
        write("asked for: balancerctl status tells what comes of it", err=True)
    elif succeeded:
        write(f"reloaded {escape(config['path'] or 'built-in defaults')}", err=True)
    else:
        for finding in findings:
            write(escape(finding))
        write("refused: the old configuration stays in effect", err=True)
    if succeeded is False:
        ctx.exit(ExitCode.FINDINGS)


def _wait_for_reload(settings: Settings, before: Document | None) -> Document:
    """Return what the daemon tells of its configuration once it has been read again."""
    end = time.monotonic() + RELOAD_SECONDS
    while time.monotonic() < end:
        config: Document = ask(settings, "/v1/status")["config"]
        now = config["last_reload"]
        if now is not None and (before is None or now["at_unix_seconds"] != before["at_unix_seconds"]):
            return config
        time.sleep(POLL_SECONDS)
    raise CommandError(f"the daemon has not read its configuration within {RELOAD_SECONDS:.0f} s: is a tick that long?")
