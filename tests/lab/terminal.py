"""The host's terminal, lent to a command inside: raw while it runs, its size followed.

Must not know what is at the other end.
"""

import contextlib
import os
import signal
import termios
import tty
from collections.abc import Callable, Iterator
from types import FrameType

HANG_UP = b"\x1d"  # Ctrl-], as telnet has it: the way out of a guest that no longer answers


class Terminal:
    """A terminal by its descriptor, `input`."""

    def __init__(self, descriptor: int) -> None:
        self.input = descriptor

    def size(self) -> tuple[int, int]:
        """(rows, columns) now."""
        columns, rows = os.get_terminal_size(self.input)
        return rows, columns

    def on_resize(self, tell: Callable[[tuple[int, int]], None]) -> None:
        """Call `tell` with the new size whenever it changes, until the terminal is given back."""

        def changed(_signal: int, _frame: FrameType | None) -> None:
            tell(self.size())

        signal.signal(signal.SIGWINCH, changed)


@contextlib.contextmanager
def borrowed(descriptor: int) -> Iterator[Terminal]:
    """The terminal in raw mode (every key goes inside, Ctrl-C too) and, afterwards, as it was before."""
    terminal = Terminal(descriptor)
    before = termios.tcgetattr(terminal.input)
    handler = signal.getsignal(signal.SIGWINCH)
    tty.setraw(terminal.input)
    try:
        yield terminal
    finally:
        termios.tcsetattr(terminal.input, termios.TCSAFLUSH, before)
        signal.signal(signal.SIGWINCH, handler)
