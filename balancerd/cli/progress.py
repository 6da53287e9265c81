"""How far something has come, on standard error: a line that is rewritten on a terminal, one now and then elsewhere."""

import sys
import time
from typing import Final

from balancerd.cli.screen import rewrite, write

LINE_SECONDS: Final = 5.0
"""How often a line is written where standard error is no terminal."""


class ProgressLine:
    """One line of progress; where standard error is no terminal, nothing when `quiet`."""

    def __init__(self, *, quiet: bool) -> None:
        self._terminal = sys.stderr.isatty()
        self.is_off = quiet and not self._terminal
        self._shown = False
        self._next_at = time.monotonic() + LINE_SECONDS

    def show(self, line: str) -> None:
        """Show a line of escaped text."""
        if self.is_off:
            return
        if self._terminal:
            rewrite(line)
            self._shown = True
        elif time.monotonic() >= self._next_at:
            self._next_at = time.monotonic() + LINE_SECONDS
            write(line, err=True)

    def note(self, text: str) -> None:
        """Write a line of its own."""
        self.clear()
        write(text, err=True)

    def clear(self) -> None:
        """Take the line of progress away."""
        if self._shown:
            rewrite()
            self._shown = False
