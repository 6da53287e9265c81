"""How a command ends: the exit codes of balancerctl, and the exceptions that end it early.

It must not know any command.
"""

import enum
from typing import IO, Any, ClassVar

import click


class ExitCode(enum.IntEnum):
    """What the shell sees; a contract with scripts, listed in `balancerctl --help`."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    NOT_RUNNING = 3
    NOT_PERMITTED = 4
    FINDINGS = 5
    INTERRUPTED = 130
    """128 and SIGINT, as a shell tells it."""


class CommandError(click.ClickException):
    """End the command, and say why (and what to do about it) on standard error."""

    exit_code: ClassVar[int] = ExitCode.FAILURE

    def show(self, file: IO[Any] | None = None) -> None:
        """Print "balancerctl: MESSAGE" to standard error, or to `file`."""
        click.echo(f"balancerctl: {self.format_message()}", file=file, err=file is None)


class NotRunningError(CommandError):
    """No daemon answers on the control socket."""

    exit_code: ClassVar[int] = ExitCode.NOT_RUNNING


class NotPermittedError(CommandError):
    """This user may not do what was asked."""

    exit_code: ClassVar[int] = ExitCode.NOT_PERMITTED
