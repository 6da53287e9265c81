"""What several commands share: the --json and --socket options, and asking the daemon.

Turns the errors of the control client into exit codes and advice. It must not know what the documents mean.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

import click

from balancerd.cli.exits import CommandError, NotPermittedError, NotRunningError
from balancerd.cli.screen import escape

DEFAULT_SOCKET: Final = "/run/balancerd/control.sock"
SOCKET_VARIABLE: Final = "BALANCERD_SOCKET"
SCHEMA: Final = 1

Document = dict[str, Any]
"""One JSON document of the control API, as `balancerd.control.api` describes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What was said before the command's name: click's context object."""

    socket_path: str


class _Client(Protocol):
    def get(self, path: str) -> Document: ...
    def post(self, path: str, document: Document | None = None) -> Document: ...
    def post_bytes(self, path: str, body: bytes) -> Document: ...


def _remember_socket(ctx: click.Context, _parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        ctx.obj = Settings(socket_path=value)


json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")
"""Adds --json, which the command gets as `as_json`."""

socket_option = click.option(
    "--socket",
    type=click.Path(),
    expose_value=False,
    callback=_remember_socket,
    help="Control socket of the daemon (may also stand before the command).",
)
"""Adds --socket behind the command's name; `Settings` then holds its value."""


def job_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add what commands that hand a job in have in common: --no-wait (which becomes `wait`), --json and --socket."""
    no_wait = click.option("--no-wait", "wait", flag_value=False, default=True, help="Hand it in and return at once.")
    return no_wait(json_option(socket_option(command)))


def ask(settings: Settings, path: str, *, post: Document | None = None) -> Document:
    """GET one document of the control API, or have it by POST with `post` as the body, {} for none.

    Raises NotRunningError, NotPermittedError or CommandError, each with what to do about it.
    """
    if post is None:
        return _asked(settings, lambda client: client.get(path))
    return _asked(settings, lambda client: client.post(path, post or None))


def post_bytes(settings: Settings, path: str, body: bytes) -> Document:
    """Have one document of the control API by POST with a body that is no JSON. Raises as ask() does."""
    return _asked(settings, lambda client: client.post_bytes(path, body))


def _asked(settings: Settings, question: Callable[[_Client], Document]) -> Document:
    # Here and not at the top: `config` and `policies` talk to nobody, and http.client is a third of a start's time.
    from balancerd.control.client import ControlClient, ControlFailure, NotPermitted, NotRunning  # noqa: PLC0415

    try:
        document = question(ControlClient(settings.socket_path))
    except NotRunning as error:
        raise NotRunningError(f"{escape(str(error))} (start it: systemctl start balancerd)") from error
    except NotPermitted as error:
        raise NotPermittedError(escape(str(error))) from error
    except ControlFailure as error:
        raise CommandError(escape(str(error))) from error
    if document.get("schema") != SCHEMA:
        raise CommandError("the daemon speaks another version of the control API: is it older or newer than this?")
    return document
