"""The live view: widgets, keys, and what happens on them. It must not know how frames are come by, nor how drawn."""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar, Final, Protocol

from rich.text import Text
from textual import events, on, work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.coordinate import Coordinate
from textual.message import Message
from textual.timer import Timer
from textual.widgets import DataTable, Footer, Input, Static

from balancerd.cli.exits import CommandError
from balancerd.cli.explain import story
from balancerd.cli.options import Document, Settings, ask
from balancerd.cli.screen import Column, can_print, escape
from balancerd.cli.top import drawing, rows
from balancerd.cli.top.drawing import Look
from balancerd.cli.top.feed import Feed
from balancerd.cli.top.frame import Asked, Frame, Lost, Rates, warnings
from balancerd.cli.top.marks import FILLS, HEIGHTS
from balancerd.cli.top.screens import KEYS, Explanation, Panel, Question

TYPING_SECONDS: Final = 0.3
"""Who types is asked for no more than so often."""

LONGEST_MATCH: Final = 64
"""As GET /v1/top takes it."""


class Source(Protocol):
    """What tells of frames: Feed."""

    def start(self) -> None:
        """Begin."""
        ...

    def ask(self, asked: Asked) -> None:
        """Show something else from now on."""
        ...

    def stop(self) -> None:
        """Tell nothing any more."""
        ...


MakeSource = Callable[[Callable[[Frame | Lost], None]], Source]
"""Is given whom to tell, from whatever thread."""


class Heard(Message):
    """A frame has come, or the daemon is lost."""

    def __init__(self, told: Frame | Lost) -> None:
        super().__init__()
        self.told = told


class Table(DataTable[Text]):
    """The table of processes or workloads."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "select_cursor", "Explain", key_display="Enter")]


class Top(App[None]):
    """The view. `may_change` tells whether this user may pause, `now` is the monotonic second."""

    TITLE = "balancerctl top"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #head, #listed, #nodes { height: auto; }
    #nodes { max-height: 10; margin: 1 0; }
    #warning { height: auto; max-height: 4; color: $text-error; display: none; }
    #listed { color: $text-muted; }
    #find { display: none; height: 1; border: none; padding: 0; }
    Table { height: 1fr; background: $background; scrollbar-size-vertical: 1; scrollbar-size-horizontal: 0; }
    Table:nocolor > .datatable--cursor { text-style: reverse; }
    .stale { opacity: 50%; }
    .ascii Panel VerticalScroll, .ascii Question Static { border: ascii $primary; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "Quit"),
        Binding("ctrl+c", "quit", show=False, priority=True),
        Binding("s", "sort(1)", "Sort"),
        Binding("S", "sort(-1)", show=False),
        Binding(
            "slash", "find", "Find", key_display="/", priority=True
        ),  # or keys as fast as pasted ones miss the field
        Binding("w", "switch", "Workloads"),
        Binding("p", "pause", "Pause"),
        Binding("question_mark", "keys", "Keys", key_display="?"),
        Binding("escape", "forget", show=False),
    ]

    def __init__(
        self,
        settings: Settings,
        asked: Asked,
        make_source: MakeSource,
        *,
        may_change: Callable[[], bool],
        blocks: bool,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(ansi_color=True if os.environ.get("NO_COLOR") else None)  # only then are there none at all
        self._settings = settings
        self._asked = asked
        self._source = make_source(self._hear)
        self._may_change = may_change
        self._blocks = blocks
        self._now = now
        self._rates = Rates()
        self._frame: Frame | None = None
        self._heard_at = 0.0
        self._lost: Lost | None = None
        self._lists_workloads = False
        self._keys: list[str] = []
        self._shape: tuple[tuple[str, ...], tuple[int, ...]] | None = None
        self._typing: Timer | None = None

    def compose(self) -> ComposeResult:
        """Return the parts."""
        yield Static(id="head")
        yield Static(id="warning", markup=False)
        yield Static(id="nodes")
        yield Static(id="listed", markup=False)
        yield Table(cursor_type="row", cell_padding=0, id="table")
        yield Input(
            value=self._asked.match,
            placeholder="part of a command, pid or workload",
            id="find",
            max_length=LONGEST_MATCH,
        )
        yield Footer()

    def on_mount(self) -> None:
        """Begin to listen."""
        self.set_class(not self._blocks, "ascii")
        self.query_one(Table).focus()
        self._draw()
        self._source.start()
        self.set_interval(1.0, self._draw_head)

    def on_unmount(self) -> None:
        """Listen no more."""
        self._source.stop()

    def on_resize(self, _event: events.Resize) -> None:
        """Draw for the new width."""
        self._draw()

    # what is heard

    def _hear(self, told: Frame | Lost) -> None:
        """Take it over from the thread that heard it."""
        self.post_message(Heard(told))

    @on(Heard)
    def _take(self, message: Heard) -> None:
        told = message.told
        if isinstance(told, Lost):
            self._lost = told
            self._draw_head()
            return
        self._lost, self._frame, self._heard_at = None, told, self._now()
        self._rates.note(told)
        self._draw()

    # what is drawn

    def _look(self) -> Look:
        return Look(columns=self.size.width, blocks=self._blocks)

    def _draw(self) -> None:
        self._draw_head()
        if self._frame is None:
            return
        look, top = self._look(), self._frame.top
        self.query_one("#nodes", Static).update(drawing.nodes(self._frame, look))
        if self._lists_workloads:
            cells = [drawing.workload_cells(each, top, look) for each in top["workloads"]]
            self._fill(drawing.workload_columns(top, look), cells, [each["name"] for each in top["workloads"]])
        else:
            cells = [drawing.process_cells(each, top, look) for each in top["processes"]]
            self._fill(drawing.process_columns(top, look), cells, [_key(each) for each in top["processes"]])

    def _draw_head(self) -> None:
        age_seconds = self._age_seconds()
        head = self.query_one("#head", Static)
        if self._frame is not None:
            age = None if self._lost else age_seconds
            head.update(drawing.head(self._frame, self._rates, age, self._look()))
        elif self._lost is None:
            head.update(f"asking {escape(self._settings.socket_path)} ...")
        else:
            head.update("")
        found = [] if self._frame is None else warnings(self._frame.status)
        if self._lost is not None:
            old = "" if self._frame is None else f" What is shown is {age_seconds:.0f}s old."
            found = [f"NO DAEMON: {self._lost.why}.{old} It is looked for again and again.", *found]
        warning = self.query_one("#warning", Static)
        warning.update("\n".join(found))
        warning.display = bool(found)
        for part in ("#nodes", "#table"):
            self.query_one(part).set_class(self._lost is not None, "stale")
        self.query_one("#listed", Static).update(self._listed())

    def _age_seconds(self) -> float:
        tick = None if self._frame is None else self._frame.status["tick"]
        return 0.0 if tick is None else float(tick["age_seconds"]) + self._now() - self._heard_at

    def _listed(self) -> str:
        if self._frame is None:
            return ""
        listed = "workloads" if self._lists_workloads else "processes"
        found = f" with {escape(self._asked.match)!r}" if self._asked.match else ""
        more = rows.left_out(self._frame.top, listed)
        return f"{listed}{found} by {drawing.SORT_WORDS[self._asked.sort]}" + (f", {more}" if more else "")

    def _fill(self, columns: Sequence[Column], cells: Sequence[Sequence[Text]], keys: list[str]) -> None:
        """Show rows in place of those before: the cursor stays with its row, and the table where it is scrolled to."""
        table = self.query_one(Table)
        chosen = self._chosen()
        widths = drawing.fit(columns, cells)
        shape = (tuple(column.title for column in columns), tuple(widths))
        if shape != self._shape:
            self._shape = shape
            table.clear(columns=True)
            for column, wide in zip(columns, widths, strict=True):
                title = column.title.rjust(wide - 1) if column.right else column.title
                table.add_column(Text(title), width=wide)
        drawn = [drawing.placed(row, columns, widths) for row in cells]
        while table.row_count > len(drawn):
            table.remove_row(table.coordinate_to_cell_key(Coordinate(table.row_count - 1, 0)).row_key)
        for at, row in enumerate(drawn):
            if at >= table.row_count:
                table.add_row(*row)
                continue
            for place, cell in enumerate(row):
                table.update_cell_at(Coordinate(at, place), cell)
        self._keys = keys
        if chosen in keys:
            table.move_cursor(row=keys.index(chosen), animate=False)

    def _chosen(self) -> str:
        row = self.query_one(Table).cursor_row
        return self._keys[row] if 0 <= row < len(self._keys) else ""

    # what keys do

    def action_sort(self, step: int) -> None:
        """Sort by the next column, or the one before."""
        self._ask(
            Asked(
                sort=rows.SORTS[(rows.SORTS.index(self._asked.sort) + step) % len(rows.SORTS)], match=self._asked.match
            )
        )

    def action_switch(self) -> None:
        """Show workloads in place of processes, or processes again."""
        self._lists_workloads = not self._lists_workloads
        self._keys = []
        self._draw()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Leave "/" to the field once it is there, and to what stands above the view."""
        if action == "find" and (len(self.screen_stack) > 1 or isinstance(self.focused, Input)):
            return False
        return super().check_action(action, parameters)

    def action_find(self) -> None:
        """Have a text typed."""
        find = self.query_one("#find", Input)
        find.display = True
        self.screen.set_focus(find)  # at once, which find.focus() is not

    def action_forget(self) -> None:
        """Look for no text any more."""
        self.query_one("#find", Input).value = ""
        self._leave_find()
        self._ask(Asked(sort=self._asked.sort))

    @on(Input.Changed)
    def _type(self, event: Input.Changed) -> None:
        if self._typing is not None:
            self._typing.stop()
        self._typing = self.set_timer(
            TYPING_SECONDS, lambda: self._ask(Asked(sort=self._asked.sort, match=event.value))
        )

    @on(Input.Submitted)
    def _find(self, event: Input.Submitted) -> None:
        self._leave_find()
        self._ask(Asked(sort=self._asked.sort, match=event.value))

    def _leave_find(self) -> None:
        if self._typing is not None:
            self._typing.stop()
        self.query_one("#find", Input).display = False
        self.screen.set_focus(self.query_one(Table))

    def _ask(self, asked: Asked) -> None:
        if asked != self._asked:
            self._asked = asked
            self._source.ask(asked)
            self._draw_head()

    @on(Table.RowSelected)
    def _explain(self) -> None:
        chosen = self._chosen()
        if not chosen:
            return
        if self._lists_workloads:
            self._lists_workloads = False
            self._keys = []
            self.query_one("#find", Input).value = chosen
            self._ask(Asked(sort=self._asked.sort, match=chosen[:LONGEST_MATCH]))
            return
        pid = chosen.split()[0]
        self.push_screen(
            Explanation(f"balancerctl explain {pid}", lambda: list(story(ask(self._settings, f"/v1/processes/{pid}"))))
        )

    def action_keys(self) -> None:
        """Tell of the keys."""
        self.push_screen(Panel("keys", KEYS))

    def action_pause(self) -> None:
        """Pause or resume all moves, if this user may, after a question."""
        if self._frame is None or self._lost is not None:
            self.notify("there is no daemon to pause", severity="warning")
            return
        if not self._may_change():
            self.notify(
                "only root, the daemon's user and control.change_group may pause and resume", severity="warning"
            )
            return
        path, text = "/v1/pause", "Pause all moves, until somebody resumes them?"
        if self._frame.status.get("pause") is not None:
            path, text = "/v1/resume", "Resume all moves?"

        def answered(yes: bool | None) -> None:
            if yes:
                self._post(path)

        self.push_screen(Question(text), answered)

    @work(thread=True)
    def _post(self, path: str) -> None:
        try:
            ask(self._settings, path, post={})
        except CommandError as error:
            self.call_from_thread(self.notify, error.format_message(), severity="error", markup=False)
        else:
            done = "paused: nothing moves" if path == "/v1/pause" else "resumed: moves go on"
            self.call_from_thread(self.notify, f"{done}, from the next tick on it is shown here", markup=False)


def _key(process: Document) -> str:
    return f"{process['pid']} {process['start_ticks']}"


def run(settings: Settings, asked: Asked, *, poll_seconds: float) -> None:
    """Show the live view until it is ended."""

    def may_change() -> bool:
        try:
            return os.geteuid() in {0, Path(settings.socket_path).stat().st_uid}
        except OSError:
            return False

    blocks = can_print(FILLS + HEIGHTS)  # now: the view takes standard output over
    Top(
        settings,
        asked,
        lambda tell: Feed(settings, asked, tell, poll_seconds=poll_seconds),
        may_change=may_change,
        blocks=blocks,
    ).run()
