"""`balancerctl doctor`: what this machine and this user allow, tried out. Needs no daemon, privilege or second node.

Owns the picture of the checks, and those that the daemon answers; the others are in `kernel.doctor.probes`.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict

import click

from balancerd.cli.exits import CommandError, ExitCode, NotPermittedError, NotRunningError
from balancerd.cli.options import Document, Settings, ask, json_option, socket_option
from balancerd.cli.screen import can_print, escape, paint, write, write_json
from balancerd.kernel.doctor.files import Check, CheckStatus
from balancerd.model.manager import REMEDY, Manager

_SYMBOLS = {
    CheckStatus.OK: ("✓", "+", "green"),
    CheckStatus.INFO: ("·", "-", "blue"),
    CheckStatus.WARNING: ("!", "!", "yellow"),
    CheckStatus.FAILURE: ("✗", "x", "red"),
    CheckStatus.UNKNOWN: ("?", "?", "yellow"),
}


@click.command(
    short_help="Try out whether balancerd can work on this machine.",
    epilog="""\b
Examples:
  balancerctl doctor
  sudo balancerctl doctor                 what the daemon itself will be allowed
  balancerctl doctor --json | jq '.checks[] | select(.status == "failure")'
""",
)
@socket_option
@json_option
@click.pass_obj
@click.pass_context
def doctor(ctx: click.Context, settings: Settings, *, as_json: bool) -> None:
    """Try out whether balancerd can work here, and print the exact fix for what is in its way.

    Each line is ✓ fine, · worth knowing, ! works less well, ✗ does not work, ? not known. Exits 5 when there is a ✗.

    In JSON, each of "checks" has name, status (ok, info, warning, failure, unknown), seen and fix (null: none needed).
    """
    # Here and not at the top: the probes read half of the kernel's room, which --help has no use for.
    from balancerd.kernel.doctor.probes import examine  # noqa: PLC0415

    checks = (*examine(), *ask_daemon(settings))
    count = Counter(check.status for check in checks)
    if as_json:
        totals = {status.value: count[status] for status in CheckStatus}
        write_json({"schema": 1, "checks": [asdict(check) for check in checks], "totals": totals})
    else:
        _show(checks)
        write(f"{_count(count, 'failure')}, {_count(count, 'warning')}", err=True)
    if count[CheckStatus.FAILURE]:
        ctx.exit(ExitCode.FINDINGS)


def ask_daemon(settings: Settings) -> tuple[Check, ...]:
    """Whether a daemon answers, and what only a daemon knows: whether processes have mempolicies of their own."""
    from balancerd.kernel.doctor.managers import check_name  # noqa: PLC0415 -- as above

    name = check_name(Manager.MEMPOLICY)
    answer = control_socket(settings)
    if isinstance(answer, Check):
        return (answer,)
    known = {each["manager"]: each["processes"] for each in answer["managers"] or ()}
    held = known.get(Manager.MEMPOLICY.value)
    if held is None:
        mempolicy = Check(name=name, status=CheckStatus.UNKNOWN, seen="unknown before the daemon's first tick")
    elif held:
        seen = f"processes with memory of an explicit mempolicy, among those looked at: {held}"
        mempolicy = Check(name=name, status=CheckStatus.INFO, seen=seen, fix=REMEDY[Manager.MEMPOLICY])
    else:
        mempolicy = Check(name=name, status=CheckStatus.OK, seen="no process that was looked at has one")
    seen = f"the daemon answers on {settings.socket_path}"
    return mempolicy, Check(name="control-socket", status=CheckStatus.OK, seen=seen)


def control_socket(settings: Settings) -> Document | Check:
    """Return what the daemon answers on the control socket, or what is wrong with it."""
    name = "control-socket"
    shown = settings.socket_path
    try:
        return ask(settings, "/v1/status")
    except NotRunningError:
        return Check(
            name=name,
            status=CheckStatus.INFO,
            seen=f"no daemon answers on {shown}",
            fix="as root: systemctl start balancerd",
        )
    except NotPermittedError as error:
        return Check(name=name, status=CheckStatus.WARNING, seen=error.message, fix="run it with sudo")
    except CommandError as error:
        return Check(name=name, status=CheckStatus.FAILURE, seen=error.message, fix="journalctl -u balancerd")


def _show(checks: Iterable[Check]) -> None:
    listed = tuple(checks)
    wide = max(len(check.name) for check in listed)
    fancy = can_print("".join(symbol for symbol, _, _ in _SYMBOLS.values()))
    for check in listed:
        symbol, plain, colour = _SYMBOLS[check.status]
        write(f"{paint(symbol if fancy else plain, colour)} {check.name:{wide}}  {escape(check.seen)}")
        if check.fix is not None:
            write(f"  {'':{wide}}  fix: {escape(check.fix)}")


def _count(count: Counter[CheckStatus], status: str) -> str:
    number = count[CheckStatus(status)]
    return f"{number} {status}{'' if number == 1 else 's'}"
