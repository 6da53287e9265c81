"""What reaches the terminal: escaping, alignment, and the choice between plain text and a drawn table."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from balancerd.cli.screen import Column, Table, aligned, draw, width, write
from tests.unit.cli.documents import HOSTILE, HOSTILE_ESCAPED


def test_columns_align_by_terminal_cells_not_by_characters() -> None:
    assert width("東京") == 4
    assert width("e\u0301") == 1
    columns = (Column(title="NAME"), Column(title="N", right=True), Column(title="LAST"))
    assert aligned(columns, [("東京", "5", "x"), ("ab", "123", "")]) == [
        "NAME    N  LAST",
        "東京    5  x",
        "ab    123",
    ]


def test_a_stream_that_cannot_say_a_character_gets_it_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    code = "from balancerd.cli.screen import write; write('é ✓ end')"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONIOENCODING": "ascii"}, capture_output=True, check=True
    )
    assert done.stdout == b"\\xe9 \\u2713 end\n"
    write("é ✓ end")
    assert capsys.readouterr().out == "é ✓ end\n"


def test_a_captured_stream_gets_plain_columns(capsys: pytest.CaptureFixture[str]) -> None:
    draw(Table(columns=(Column(title="A"), Column(title="B")), rows=[(HOSTILE, "1")]))
    assert capsys.readouterr().out == f"{'A':{len(HOSTILE_ESCAPED)}}  B\n{HOSTILE_ESCAPED}  1\n"


DRAW = """
import sys
from balancerd.cli.screen import Column, Table, draw
draw(Table(columns=(Column(title="NAME", cut=True), Column(title="N", right=True)), rows=[(sys.argv[1], "1")]))
print("rich" in sys.modules)
"""


def draw_on_terminal(name: str, **variables: str) -> str:
    """Run DRAW on a pseudo-terminal of 40 columns and return what arrived there."""
    ours, theirs = pty.openpty()
    environment = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}
    environment |= {"TERM": "xterm", "COLUMNS": "40", "PYTHONIOENCODING": "utf-8", **variables}
    with subprocess.Popen([sys.executable, "-c", DRAW, name], stdout=theirs, env=environment) as child:
        os.close(theirs)
        arrived = b""
        try:
            while chunk := os.read(ours, 4096):
                arrived += chunk
        except OSError:  # EIO: the other end is closed
            pass
    os.close(ours)
    assert child.returncode == 0
    return arrived.decode("utf-8").replace("\r\n", "\n")


def test_a_terminal_gets_a_drawn_table_in_which_markup_stays_text() -> None:
    arrived = draw_on_terminal("[bold]x[/bold]")
    assert "[bold]x[/bold]" in arrived
    assert "─" in arrived
    assert arrived.endswith("True\n")


def test_a_long_name_is_cut_on_a_terminal_and_numbers_are_not() -> None:
    lines = draw_on_terminal("x" * 100).splitlines()
    row = next(line for line in lines if "xxx" in line)
    assert "…" in row
    assert row.rstrip().endswith("1")
    assert max(len(line) for line in lines if "\x1b" not in line) <= 40


@pytest.mark.parametrize("variables", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_a_terminal_that_wants_no_colours_gets_plain_columns_without_rich(variables: dict[str, str]) -> None:
    assert draw_on_terminal("x", **variables) == "NAME  N\nx     1\nFalse\n"


def test_no_color_that_is_empty_counts_as_not_set() -> None:
    assert draw_on_terminal("x", NO_COLOR="").endswith("True\n")


def test_this_package_says_what_it_prints_only_through_screen() -> None:
    sources = Path(__file__).parents[3] / "balancerd/cli"
    direct = [path.name for path in sources.glob("*.py") if "click.echo(" in path.read_text(encoding="utf-8")]
    assert sorted(direct) == ["exits.py", "screen.py"]
