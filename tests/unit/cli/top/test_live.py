"""The live view, driven by textual's pilot: what it shows, every key, a daemon that goes and comes back."""

import asyncio
import re
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from rich.text import Text
from textual.pilot import Pilot
from textual.widgets import Input, Static

from balancerd.cli.options import Settings
from balancerd.cli.top.app import Table, Top
from balancerd.cli.top.frame import Asked, Frame, Lost
from balancerd.cli.top.screens import Panel, Question
from balancerd.model.report import TickReport
from tests.unit.cli.conftest import Serve
from tests.unit.cli.documents import HOSTILE, HOSTILE_ESCAPED, a_crowd
from tests.unit.cli.top.frames import a_frame, a_machine, answers_to_top
from tests.unit.reports import a_process, a_process_report

Tell = Callable[[Frame | Lost], None]
Use = Callable[["View", Pilot[None]], Coroutine[Any, Any, None]]


@dataclass
class FakeSource:
    """Answers as the daemon would, at once."""

    tell: Tell
    report: TickReport
    asked: list[Asked] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)

    def start(self) -> None:
        self.calls.append("start")
        self.tell(a_frame(self.report))

    def ask(self, asked: Asked) -> None:
        self.asked.append(asked)
        self.tell(a_frame(self.report, asked))

    def stop(self) -> None:
        self.calls.append("stop")


class View:
    """The view under test, and what stands on it."""

    def __init__(
        self, report: TickReport | None = None, *, socket: str = "/none", may_change: bool = True, blocks: bool = True
    ) -> None:
        self.seconds = 1000.0
        self.source: FakeSource

        def make(tell: Tell) -> FakeSource:
            self.source = FakeSource(tell, a_machine() if report is None else report)
            return self.source

        self.app = Top(
            Settings(socket_path=socket),
            Asked(sort="remote"),
            make,
            may_change=lambda: may_change,
            blocks=blocks,
            now=lambda: self.seconds,
        )

    def text(self, name: str) -> str:
        shown = self.app.screen_stack[0].query_one(f"#{name}", Static).render()
        return str(shown)

    @property
    def table(self) -> Table:
        return self.app.screen_stack[0].query_one(Table)

    def titles(self) -> list[str]:
        return [str(column.label).strip() for column in self.table.ordered_columns]

    def rows(self) -> list[list[str]]:
        return [[_plain(cell) for cell in self.table.get_row_at(at)] for at in range(self.table.row_count)]

    def first(self) -> list[str]:
        return [row[0] for row in self.rows()]


def _plain(cell: Text) -> str:
    return cell.plain.strip()


def use(view: View, how: Use, *, size: tuple[int, int] = (160, 40)) -> None:
    """Run the view in a terminal of that size, and `how` with it."""

    async def run() -> None:
        async with view.app.run_test(size=size) as pilot:
            await pilot.pause()
            await how(view, pilot)

    asyncio.run(run())


async def until(pilot: Pilot[None], condition: Callable[[], bool]) -> None:
    """Wait for what another thread does."""
    for _ in range(500):
        await pilot.pause(0.01)
        if condition():
            return
    raise AssertionError("it did not come")


async def press(pilot: Pilot[None], *keys: str) -> None:
    await pilot.press(*keys)
    await pilot.pause()


def test_it_shows_health_nodes_and_processes_and_listens_from_begin_to_end() -> None:
    async def look(view: View, _pilot: Pilot[None]) -> None:
        head = view.text("head").splitlines()
        assert head[0].startswith("balancerd 0.1.0  enforce  healthy  tick 7, 0s ago")
        assert head[1].startswith("moved 3.9MiB")
        assert head[2] == "1 moving, 1 held, 1 unsampled, 1 well-placed, 90 small, 1 unselected"
        first, second = view.text("nodes").splitlines()
        assert re.fullmatch(r"node 0  █+░+·+  50%      2GiB free    - CPU  █web.service 25%  ", first)
        assert first.count("█") - 1 == first.count("░") == first.count("·") / 2
        assert "█web.service 50%" in second
        assert view.text("listed") == "processes by remote memory"
        assert view.titles()[:9] == ["PID", "COMMAND", "RSS", "CPU", "MEM", "RUN", "LOCAL", "STATE", "NEXT"]
        assert [row[:9] for row in view.rows()] == [
            ["4242", "spin", "256MiB", "1.00", "··· ███", "███ ···", "0%", "moving", "252.1MiB to 0"],
            ["51", "bound", "256MiB", "1.00", "▂▂▂ ▆▆▆", "▆▆▆ ▂▂▂", "50%", "held", "256MiB to 0"],
            ["5", "home", "1GiB", "1.00", "··· ███", "··· ███", "99%", "well-placed", ""],
            ["52", "new", "256MiB", "1.00", "??? ???", "??? ???", "-", "unsampled", ""],
            ["77", "idle", "256MiB", "0.00", "??? ???", "??? ???", "-", "unselected", ""],
        ]
        assert view.source.calls == ["start"]

    view = View()
    use(view, look)
    assert view.source.calls == ["start", "stop"]


def test_memory_where_a_process_runs_looks_different() -> None:
    async def look(view: View, _pilot: Pilot[None]) -> None:
        away, home = view.table.get_row_at(0)[4], view.table.get_row_at(2)[4]
        assert "yellow" in [span.style for span in away.spans]
        assert "green" in [span.style for span in home.spans]

    use(View(), look, size=(80, 24))


def test_it_fits_a_terminal_of_80_by_24() -> None:
    async def look(view: View, pilot: Pilot[None]) -> None:
        shown = [row[4:9] for row in view.rows()]
        assert shown[0] == ["·█", "█·", "0%", "moving", "252.1MiB to 0"]
        widths = [column.width for column in view.table.ordered_columns[:8]]
        assert sum(widths) <= 66
        assert all(len(line) <= 80 for line in view.text("nodes").splitlines() + view.text("head").splitlines())
        assert view.table.region.bottom <= 23
        assert view.table.size.height >= 8
        await press(pilot, "w")
        assert sum(column.width for column in view.table.ordered_columns[:7]) <= 60

    use(View(), look, size=(80, 24))


def test_without_block_characters_it_is_ascii() -> None:
    async def look(view: View, _pilot: Pilot[None]) -> None:
        everything = view.text("head") + view.text("nodes") + "".join("".join(row) for row in view.rows())
        assert everything.isascii()
        assert [row[4] for row in view.rows()][:2] == [".8", "26"]

    use(View(blocks=False), look, size=(80, 24))


def test_s_sorts_by_the_next_and_big_s_by_the_one_before() -> None:
    async def sort(view: View, pilot: Pilot[None]) -> None:
        await press(pilot, "s", "s")
        assert view.source.asked == [Asked(sort="cpu"), Asked(sort="rss")]
        assert view.first()[0] == "5"  # the largest
        assert view.titles()[2] == "RSS▾"
        assert view.text("listed") == "processes by resident memory"
        await press(pilot, "S", "S", "S")
        assert view.source.asked[-1] == Asked(sort="moved")
        assert view.first()[0] == "4242"

    use(View(), sort)


def test_the_cursor_stays_with_its_process_whatever_the_order() -> None:
    async def sort(view: View, pilot: Pilot[None]) -> None:
        await press(pilot, "down", "up")
        await press(pilot, "s", "s")
        assert (view.first()[4], view.table.cursor_row) == ("4242", 4)
        fewer = replace(a_machine(), processes=a_machine().processes[3:4])
        view.source.tell(a_frame(fewer))
        await pilot.pause()
        assert (view.first(), view.table.cursor_row) == (["5"], 0)
        view.source.tell(a_frame(replace(a_machine(), processes=())))
        await pilot.pause()
        assert view.first() == []
        await press(pilot, "enter")  # on nothing
        assert len(view.app.screen_stack) == 1

    use(View(), sort)


def test_a_text_is_looked_for_as_it_is_typed_and_forgotten_by_escape() -> None:
    async def find(view: View, pilot: Pilot[None]) -> None:
        field = view.app.query_one("#find", Input)
        assert not field.display
        await press(pilot, "slash", "s", "p")
        assert field.display
        assert view.source.asked == []  # who types on is not asked for
        await until(pilot, lambda: bool(view.source.asked))
        assert view.source.asked == [Asked(sort="remote", match="sp")]
        await press(pilot, "i", "enter")
        assert view.source.asked[-1] == Asked(sort="remote", match="spi")
        assert not field.display
        assert view.first() == ["4242"]
        assert view.text("listed") == "processes with 'spi' by remote memory"
        await press(pilot, "s")
        assert view.source.asked[-1] == Asked(sort="cpu", match="spi")
        await press(pilot, "escape")
        assert view.source.asked[-1] == Asked(sort="cpu", match="")
        assert len(view.first()) == 5
        assert view.app.focused is view.table

    use(View(), find)


def test_what_is_left_out_is_said() -> None:
    async def look(view: View, _pilot: Pilot[None]) -> None:
        assert view.text("listed") == "processes by remote memory, and 50 more processes"
        assert len(view.rows()) == 100

    use(View(replace(a_machine(), processes=tuple(a_process_report(a_process(n)) for n in range(1, 151)))), look)


def test_w_switches_to_workloads_and_enter_shows_the_processes_of_one() -> None:
    async def switch(view: View, pilot: Pilot[None]) -> None:
        await press(pilot, "w")
        assert view.text("listed") == "workloads by remote memory"
        assert view.titles()[0] == "WORKLOAD"
        assert view.first() == ["web.service", "batch/job/main", "other"]
        assert view.rows()[0][4:8] == ["▃▃▃ ▅▅▅", "▆▆▆ ▂▂▂", "25%", "1 moving, 1 cooldown, 12MiB t…"]
        await press(pilot, "enter")
        assert view.source.asked == [Asked(sort="remote", match="web.service")]
        assert view.first() == ["4242", "51"]
        await press(pilot, "escape", "w", "w")
        assert len(view.first()) == 5

    use(View(), switch)


def panel_text(view: View) -> str:
    return str(view.app.screen.query_one("#text", Static).render())


def test_enter_explains_a_process_and_escape_goes_back(serve: Serve) -> None:
    async def explain(view: View, pilot: Pilot[None]) -> None:
        await press(pilot, "down", "enter")
        assert isinstance(view.app.screen, Panel)
        await until(pilot, lambda: "What happens next" in panel_text(view))
        assert panel_text(view).startswith("Process 51 (bound)")
        await press(pilot, "escape")
        assert len(view.app.screen_stack) == 1
        assert view.app.is_running

    use(View(socket=serve(answers_to_top())), explain)


def test_what_cannot_be_explained_says_why() -> None:
    async def explain(view: View, pilot: Pilot[None]) -> None:
        await press(pilot, "enter")
        await until(pilot, lambda: "balancerd is not running" in panel_text(view))

    use(View(socket="/none/at/all"), explain)


def notes(view: View) -> list[str]:
    return [note.message for note in view.app._notifications]


@pytest.mark.parametrize(
    ("pause", "path", "question", "note"),
    [
        (None, "/v1/pause", "Pause all moves", "paused: nothing moves"),
        ({"since_seconds": 1.0, "left_seconds": None}, "/v1/resume", "Resume all moves", "resumed: moves go on"),
    ],
)
def test_p_pauses_or_resumes_after_a_question(serve: Serve, pause: object, path: str, question: str, note: str) -> None:
    async def ask(view: View, pilot: Pilot[None]) -> None:
        view.source.tell(a_frame(pause=pause))
        await pilot.pause()
        await press(pilot, "p")
        assert isinstance(view.app.screen, Question)
        assert question in str(view.app.screen.query_one(Static).render())
        for no in ("n", "escape", "enter"):
            await press(pilot, no)
            assert len(view.app.screen_stack) == 1
            await press(pilot, "p")
        await pilot.pause()
        assert notes(view) == []
        await press(pilot, "y")
        await until(pilot, lambda: bool(notes(view)))
        assert notes(view)[0].startswith(note)

    use(View(socket=serve({path: (202, {"schema": 1})})), ask)


def test_a_pause_that_the_daemon_refuses_is_said(serve: Serve) -> None:
    async def ask(view: View, pilot: Pilot[None]) -> None:
        await press(pilot, "p", "y")
        await until(pilot, lambda: bool(notes(view)))
        assert notes(view) == ["only root may do [that]"]

    use(View(socket=serve({"/v1/pause": (403, {"schema": 1, "error": "only root may do [that]"})})), ask)


def test_who_may_not_pause_is_told_so_and_not_asked() -> None:
    async def ask(view: View, pilot: Pilot[None]) -> None:
        await press(pilot, "p")
        assert len(view.app.screen_stack) == 1
        assert notes(view) == ["only root, the daemon's user and control.change_group may pause and resume"]

    use(View(may_change=False), ask)


def test_a_daemon_that_is_gone_is_said_to_be_and_what_was_is_dimmed_until_it_is_back() -> None:
    async def lose(view: View, pilot: Pilot[None]) -> None:
        view.seconds += 9.0
        view.source.tell(Lost(why="nobody listens on [x]"))
        await pilot.pause()
        assert view.text("warning") == (
            "NO DAEMON: nobody listens on [x]. What is shown is 10s old. It is looked for again and again."
        )
        assert "GONE" in view.text("head")
        assert "healthy" not in view.text("head")
        assert view.table.has_class("stale")
        assert len(view.first()) == 5
        await press(pilot, "p")
        assert notes(view) == ["there is no daemon to pause"]
        view.source.tell(a_frame(tick=8))
        await pilot.pause()
        assert not view.app.query_one("#warning").display
        assert not view.table.has_class("stale")
        assert "healthy  tick 8" in view.text("head")

    use(View(), lose)


def test_a_daemon_that_was_never_there_is_said_to_be_gone() -> None:
    async def look(view: View, pilot: Pilot[None]) -> None:
        assert view.text("warning").startswith("NO DAEMON: nobody. It is looked for")
        await press(pilot, "s", "w", "enter", "p", "question_mark", "escape")
        assert view.app.is_running

    view = View()
    view.app._source.start = lambda: view.source.tell(Lost(why="nobody"))  # type: ignore[method-assign]
    use(view, look)


def test_a_tick_that_does_not_come_is_a_stall_without_another_word_from_the_daemon() -> None:
    async def wait(view: View, _pilot: Pilot[None]) -> None:
        assert "healthy" in view.text("head")
        view.seconds += 60.0
        view.app._draw_head()
        assert "STALLED  tick 7, 60s ago" in view.text("head")

    use(View(), wait)


def test_missed_ticks_and_the_sparkline_are_told() -> None:
    async def look(view: View, pilot: Pilot[None]) -> None:
        for tick, moved in ((8, 4_096_000), (9, 8_192_000), (10, 16_384_000)):
            view.source.tell(replace(a_frame(tick=tick, moved_bytes=moved), missed=2 if tick == 10 else 0))
        await pilot.pause()
        head = view.text("head").splitlines()
        assert "2 ticks missed" in head[0]
        assert head[1] == "moved 15.6MiB, now 3.9MiB/s  ·▄█"

    use(View(), look)


def test_before_the_first_tick_it_says_so() -> None:
    async def look(view: View, pilot: Pilot[None]) -> None:
        begun = a_frame()
        view.source.tell(
            Frame(
                status={**begun.status, "tick": None, "mode": None, "counts": None, "scan": None},
                top={**begun.top, "nodes": [], "workloads": [], "processes": [], "interval_seconds": None},
            )
        )
        await pilot.pause()
        assert "starting  no tick yet" in view.text("head")
        assert view.rows() == []

    use(View(), look)


def test_names_are_shown_as_they_are_and_mean_nothing() -> None:
    async def look(view: View, _pilot: Pilot[None]) -> None:
        assert view.rows()[0][1] == HOSTILE_ESCAPED[:14] + "…"
        assert HOSTILE_ESCAPED in view.text("nodes")

    use(View(replace(a_crowd(HOSTILE), workloads=a_machine(HOSTILE).workloads)), look)


@pytest.mark.parametrize("key", ["q", "ctrl+c", "ctrl+q"])
def test_it_ends_on(key: str) -> None:
    async def end(view: View, pilot: Pilot[None]) -> None:
        await pilot.press(key)
        await pilot.pause()
        assert not view.app.is_running or view.app._exit

    use(View(), end)


def test_the_keys_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)

    async def look(view: View, pilot: Pilot[None]) -> None:
        await press(pilot, "question_mark")
        text = panel_text(view)
        assert all(word in text for word in ("sort", "look for", "explain", "pause", "end this"))
        await press(pilot, "q")
        assert view.app.is_running
        assert len(view.app.screen_stack) == 1

    use(View(), look)


def test_no_color_means_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")

    async def look(view: View, _pilot: Pilot[None]) -> None:
        assert type(view.app.get_line_filters()[-1]).__name__ == "NoColor"
        assert view.table.get_component_rich_style("datatable--cursor").reverse

    use(View(), look)
