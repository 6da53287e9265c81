"""What opens over the live view: the story of a process, a question, the keys. They must not know the view."""

from collections.abc import Callable, Sequence
from typing import ClassVar

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Footer, Static

from balancerd.cli.exits import CommandError

KEYS = """\
s, S       sort by the next or the one before: remote memory, CPU, RSS, local share, moved
/          look for a text in command, pid and workload; Esc forgets it
w          switch between processes and workloads
Enter      explain the process; show the processes of the workload
p          pause or resume all moves, after a question; root and the daemon's user only
q          end this; the daemon goes on

MEM and RUN have one bar for each node: which share of its memory lies there, and of its run time.
Memory where it runs is green, elsewhere yellow. A row's REASON is what explain begins with.
LOCAL is the share of its memory where it runs; NEXT is what a policy still wants moved, and whereto.
A node's bar shows its largest holders by name, then the rest that is used, then what is free.
"""


class Panel(ModalScreen[None]):
    """Text that can be scrolled."""

    CSS = """
    Panel { align: center middle; }
    Panel VerticalScroll { width: 96%; height: 92%; border: round $primary; padding: 0 1; background: $surface; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,enter", "dismiss", "Back", key_display="Esc"),
    ]

    def __init__(self, title: str, text: str) -> None:
        super().__init__()
        self._title = title
        self._text = text

    def compose(self) -> ComposeResult:
        """Return the parts."""
        box = VerticalScroll(Static(self._text, id="text", markup=False))
        box.border_title = self._title
        yield box
        yield Footer()

    def show(self, lines: Sequence[str]) -> None:
        """Put other text in place."""
        self.query_one("#text", Static).update("\n".join(lines))


class Explanation(Panel):
    """What `read` returns, in a thread of its own, for the daemon may take its time."""

    def __init__(self, title: str, read: Callable[[], Sequence[str]]) -> None:
        super().__init__(title, "asking the daemon ...")
        self._read = read

    def on_mount(self) -> None:
        """Ask."""
        self._fill()

    @work(thread=True, exclusive=True)
    def _fill(self) -> None:
        try:
            lines = self._read()
        except CommandError as error:
            lines = [error.format_message()]
        self.app.call_from_thread(self.show, lines)


class Question(ModalScreen[bool]):
    """Yes or no."""

    CSS = """
    Question { align: center middle; }
    Question Static { width: auto; max-width: 76; height: auto; border: round $warning; padding: 1 2; }
    Question Static { background: $surface; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "dismiss(True)", "Yes"),
        Binding("n,escape,q,enter", "dismiss(False)", "No", key_display="n"),
    ]

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def compose(self) -> ComposeResult:
        """Return the parts."""
        yield Static(f"{self._text}\n\ny: yes    n: no", markup=False)
        yield Footer()
