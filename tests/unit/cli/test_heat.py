"""heat against a server that answers as the daemon does: pictures at several widths, table, JSON, SVG, and errors."""

import json
import os
import pty
import subprocess
import sys
import xml.etree.ElementTree as ET
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from balancerd.cli import heat as heat_command
from balancerd.cli import heat_text, screen
from balancerd.cli.heat_cells import Scale, level, look, rows
from balancerd.control import heat_api
from balancerd.control.state import ControlState
from balancerd.model.decision import Reason, Skip
from balancerd.model.heat import HeatMethod, Heats
from balancerd.model.report import TickReport
from tests.unit.cli.conftest import Run, Serve
from tests.unit.cli.documents import HOSTILE, HOSTILE_ESCAPED
from tests.unit.heat_reports import (
    HEAP,
    PID,
    a_parts_report,
    a_region,
    a_vma,
    a_window,
    parts_process,
    placed,
    some_heats,
)
from tests.unit.reports import a_process_report, a_report

WHOLE = Scale(1.0, by_accesses=True)

PICTURE_80 = """\
Process 4242 (parts): 258MiB resident, runs on 0:25% 1:25% 2:25% 3:25%
memory: estimated by a sample of 2048 pages, 500ms ago
accesses: by registers of 4 threads, watched for 42s
  980 of 1200 samples in the last 2s told an address, 0 lost

7f0000000000 anon 256MiB, 256MiB of it on node 0, 100% of accesses
       0B node 0000000000000000000000000000000011111111111111111111111111111111
          heat ░░░░░░░░░░░░░░░░░░░░············▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒
          use  ++++++++============............================================
   128MiB node 0000000000000000000000000000000000000000000000000000000000000000
          heat ▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓████████████████████████████████
          use  2222222222222222222222222222222233333333333333333333333333333333

7f0200000000 file 2MiB, 2MiB of it on node 0, 0% of accesses  /usr/lib/libc.so.6
       0B node 0

each letter 2MiB
  node  the node that holds at least 80% of it; * several do, ? not known
  heat  · not seen in use, ░ ▒ ▓ █ each up to four times as hot as before
  use   = from the node that holds it, + shared: from several nodes;
        remote: the node that uses it, * if not the same one for all of it;
        ? from one node, and not known where it lies
left out: 1 small mapping with 16KiB
"""

PICTURE_40 = """\
7f0000000000 anon 256MiB, 256MiB of it o
       0B node 0000000011111111
          heat -----...++++++++
          use  ++===...========
   128MiB node 0000000000000000
          heat ********########
          use  2222222233333333

7f0200000000 file 2MiB, 2MiB of it on no
       0B node 0

each letter 8MiB
"""

TABLE = """\
START         END            SIZE  KIND  NODE  HEAT  USE     USED FROM    MAPPING
7f0000000000  7f0001000000  16MiB  anon  0        1  shared  0:50% 2:50%
7f0001000000  7f0002800000  24MiB  anon  0        1  local   0
7f0002800000  7f0004000000  24MiB  anon  0        0  -       -
7f0004000000  7f0008000000  64MiB  anon  1        2  local   1
7f0008000000  7f000c000000  64MiB  anon  0        3  remote  2
7f000c000000  7f0010000000  64MiB  anon  0        4  remote  3
7f0200000000  7f0200200000   2MiB  file  0        0  -       -            /usr/lib/libc.so.6
"""

UNWATCHED = """\
Process 4242 (parts): 258MiB resident, runs on -
memory: estimated by a sample of 2048 pages, 500ms ago
accesses: not watched, so heat is not known: no policy of kind access asks for it
  to have it watched, add {name: parts, kind: access} to policies

7f0000000000 anon 4MiB, 4MiB of it on node 0:50% 1:50%
       0B node **

each letter 2MiB
  node  the node that holds at least 80% of it; * several do, ? not known
"""

WARM = """\
Process 4242 (parts): 258MiB resident, runs on -
memory: estimated by a sample of 2048 pages, 500ms ago
heat: by damon, 2 regions, watched for 42s, 1.5s old, 0% of a core for it
accesses: not watched, so who uses it is not known: no policy of kind access asks for it
  to have it watched, add {name: parts, kind: access} to policies

7f0000000000 anon 4MiB, 4MiB of it on node 0:50% 1:50%
       0B node **
          heat █░

each letter 2MiB
  node  the node that holds at least 80% of it; * several do, ? not known
  heat  · not seen in use, ░ ▒ ▓ █ each up to four times as hot as before
"""


def told(report: TickReport, *cells: int) -> dict[str, tuple[int, Any]]:
    """What a daemon would answer after this tick, without a number of cells (the default) and with some."""
    state = ControlState(lambda: 100.0)
    state.emit(report)
    path = "/v1/processes/4242/heat"
    return {
        path if count is None else f"{path}?cells={count}": (
            200,
            heat_api.heat(state.view(), report.processes[0], cells=count or heat_api.CELLS, now=100.5),
        )
        for count in (None, *cells)
    }


def an_unwatched_report(*verdicts: Skip) -> TickReport:
    process = a_process_report(
        parts_process().process, verdicts=verdicts, placement=placed(a_vma(HEAP, 4, {0: 512.0, 1: 512.0}))
    )
    return a_report(processes=(process,))


def test_the_picture_on_80_columns(serve: Serve, run: Run) -> None:
    socket = serve(told(a_parts_report(), 512))
    done = run("heat", "4242", "--format", "picture", socket=socket, env={"COLUMNS": "80"})
    assert (done.exit_code, done.stdout, done.stderr) == (0, PICTURE_80, "")
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_the_picture_on_40_columns_without_block_characters(
    serve: Serve, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heat_text, "can_print", lambda _text: False)
    socket = serve(told(a_parts_report(), 64))
    done = run("heat", "4242", "--format", "picture", "--cells", "64", socket=socket, env={"COLUMNS": "40"})
    assert done.exit_code == 0
    assert PICTURE_40 in done.stdout


@pytest.mark.parametrize(
    ("columns", "cells"), [(20, 128), (40, 128), (80, 512), (120, 96 * 8), (200, 176 * 8), (500, 2048)]
)
def test_a_row_is_as_long_as_fits_and_as_many_cells_are_asked_for(
    serve: Serve, run: Run, columns: int, cells: int
) -> None:
    socket = serve(told(a_parts_report(), cells))
    done = run("heat", "4242", "--format", "picture", socket=socket, env={"COLUMNS": str(columns)})
    assert done.exit_code == 0
    drawn = [line for line in done.stdout.splitlines() if line[10:].startswith(("node", "heat", "use "))]
    length = heat_text.row_cells(columns)
    assert len(drawn[0]) - 15 == min(length, 128)
    assert sum(len(line) - 15 for line in drawn if line[10:].startswith("node")) == (65 if cells == 128 else 129)
    assert cells == max(64, min(2048, 8 * length))


def test_on_a_terminal_nodes_and_remote_and_shared_use_have_colours(
    serve: Serve, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    painted: list[tuple[str, str]] = []

    def paint(text: str, colour: str) -> str:
        painted.append((text, colour))
        return text

    monkeypatch.setattr(heat_text, "paint", paint)
    socket = serve(told(a_parts_report(), 512))
    done = run("heat", "4242", "--format", "picture", socket=socket, env={"COLUMNS": "80"})
    assert done.stdout == PICTURE_80
    assert painted[:5] == [
        ("0" * 32, "cyan"),
        ("1" * 32, "green"),
        ("░" * 20 + "·" * 12, "cyan"),
        ("▒" * 32, "green"),
        ("+" * 8, "yellow"),
    ]
    assert ("2" * 32 + "3" * 32, "red") in painted
    assert screen.paint("x", "red") == "x"


def heat_on_terminal(socket: str, **variables: str) -> str:
    """Run balancerctl heat on a pseudo-terminal of 80 columns and return what arrived there."""
    ours, theirs = pty.openpty()
    environment = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}
    environment |= {"TERM": "xterm", "COLUMNS": "80", "PYTHONIOENCODING": "utf-8", **variables}
    command = [sys.executable, "-c", "from balancerd.cli.control import main; main()", "--socket", socket]
    with subprocess.Popen([*command, "heat", "4242"], stdout=theirs, env=environment) as child:
        os.close(theirs)
        arrived = b""
        with suppress(OSError):  # EIO: the other end is closed
            while chunk := os.read(ours, 4096):
                arrived += chunk
    os.close(ours)
    assert child.returncode == 0
    return arrived.decode("utf-8").replace("\r\n", "\n")


def test_a_terminal_gets_the_picture_in_colours_and_without_if_it_wants_none(serve: Serve) -> None:
    socket = serve(told(a_parts_report(), 512))
    coloured = heat_on_terminal(socket)
    assert f"node \x1b[36m\x1b[1m{'0' * 32}\x1b[0m\x1b[32m\x1b[1m{'1' * 32}\x1b[0m\n" in coloured
    assert f"\x1b[31m\x1b[1m{'2' * 32}{'3' * 32}\x1b[0m\n" in coloured
    assert heat_on_terminal(socket, NO_COLOR="1") == PICTURE_80


def test_a_pipe_gets_stretches_that_look_alike_as_a_table(serve: Serve, run: Run) -> None:
    done = run("heat", "4242", socket=serve(told(a_parts_report())))
    assert (done.exit_code, done.stdout) == (0, TABLE)
    assert done.stderr.splitlines()[0] == "accesses: by registers of 4 threads, watched for 42s"


def test_a_gap_of_a_sparse_mapping_is_blank_or_a_new_row(serve: Serve, run: Run) -> None:
    regions = [a_region(HEAP + at * (2 << 20), {0: 5.0}) for at in (0, 3, 500)]
    process = a_process_report(parts_process().process, placement=placed(a_vma(HEAP, 4096, {0: 1024.0})))
    report = replace(a_report(processes=(process,)), accesses=(a_window(regions),))
    text = run("heat", "4242", "--format", "picture", socket=serve(told(report, 512)), env={"COLUMNS": "80"}).stdout
    assert "       0B node 0  0\n          heat █  █\n          use  =  =\n  1000MiB node 0\n" in text
    assert "only what was seen in use is drawn" in text
    assert len(run("heat", "4242", socket=serve(told(report))).stdout.splitlines()) == 1 + 3


def test_in_json_it_is_the_daemons_answer(serve: Serve, run: Run) -> None:
    answers = told(a_parts_report(), 100)
    document = answers["/v1/processes/4242/heat"][1]
    socket = serve(answers)
    for options in (["--json"], ["--format", "json"], ["--json", "--format", "table"]):
        assert json.loads(run("heat", "4242", *options, socket=socket).stdout) == document
    coarse = json.loads(run("heat", "4242", "--json", "--cells", "100", socket=socket).stdout)
    assert coarse == answers["/v1/processes/4242/heat?cells=100"][1] != document


def test_of_a_process_that_is_not_watched_only_nodes_are_drawn_and_how_to_have_it_watched_is_said(
    serve: Serve, run: Run
) -> None:
    answers = told(an_unwatched_report(), 512)
    done = run("heat", "4242", "--format", "picture", socket=serve(answers), env={"COLUMNS": "80"})
    assert (done.exit_code, done.stdout) == (0, UNWATCHED)
    piped = run("heat", "4242", socket=serve(answers))
    assert piped.stdout.splitlines()[1].split() == ["7f0000000000", "7f0000400000", "4MiB", "anon", "*", "-", "-", "-"]
    assert "no policy of kind access asks for it" in piped.stderr


@pytest.mark.parametrize(
    ("skip", "reason", "advice"),
    [
        (Skip(by="parts", process=PID, reason=Reason.ONE_HOME, detail="97%"), "one-home (97%)", "processes: all"),
        (Skip(by="parts", process=PID, reason=Reason.NOT_WATCHED), "not-watched", "balancerctl doctor"),
        (Skip(by="select", process=PID, reason=Reason.OPTED_OUT), "opted-out", "until its owner takes that back"),
    ],
)
def test_why_it_is_not_watched_and_what_changes_that_is_said(
    serve: Serve, run: Run, skip: Skip, reason: str, advice: str
) -> None:
    done = run("heat", "4242", socket=serve(told(an_unwatched_report(skip))))
    first, second = done.stderr.splitlines()
    assert first == f"accesses: not watched, so heat is not known: {reason}"
    assert advice in second
    assert len(second) <= 80


def test_regions_that_did_not_fit_are_told(serve: Serve, run: Run) -> None:
    window = a_window([a_region(HEAP, {0: 1.0})], unreported_regions=12)
    done = run("heat", "4242", socket=serve(told(a_parts_report(window=window))))
    assert done.stderr.splitlines()[-1] == "  not told: 12 more regions, but for what is sure in them"


def test_the_svg_file_has_a_rectangle_for_each_cell_and_nothing_but_rectangles_and_text(
    serve: Serve, run: Run, tmp_path: Path
) -> None:
    path = tmp_path / "heat.svg"
    done = run("heat", "4242", "--svg", str(path), socket=serve(told(a_parts_report(), 1024)))
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", f"written to {path}\n")
    drawn = list(ET.parse(path).getroot())  # noqa: S314 -- our own file
    assert {element.tag.rpartition("}")[2] for element in drawn} == {"rect", "text"}
    rects = [(element.get("fill"), element.get("fill-opacity"), element.get("height")) for element in drawn]
    assert rects.count(("#0072b2", "0.34", "12")) == 20
    assert rects.count(("#e69f00", "0.56", "12")) == 32
    assert rects.count(("#0072b2", None, "12")) == 32 + 1  # one in the legend
    assert rects.count(("#d00000", None, "3")) == 64
    assert rects.count(("#000000", None, "3")) == 8
    assert "+128MiB" in [element.text for element in drawn]


@pytest.mark.parametrize("form", ["picture", "table"])
def test_hostile_names_cannot_touch_the_terminal(serve: Serve, run: Run, form: str) -> None:
    done = run("heat", "4242", "--format", form, socket=serve(told(hostile(), 512)), env={"COLUMNS": "80"})
    assert HOSTILE_ESCAPED in done.stdout
    assert all(line.isprintable() for line in done.stdout.split("\n"))


def test_hostile_names_are_only_text_in_the_svg_file(serve: Serve, run: Run, tmp_path: Path) -> None:
    path = tmp_path / "heat.svg"
    assert run("heat", "4242", "--svg", str(path), socket=serve(told(hostile(), 1024))).exit_code == 0
    texts = [element.text or "" for element in ET.parse(path).getroot()]  # noqa: S314 -- our own file
    assert any(text.endswith(HOSTILE_ESCAPED + "</text><script>&") for text in texts)


def hostile() -> TickReport:
    vma = a_vma(HEAP, 4, name=HOSTILE + "</text><script>&")
    return a_report(processes=(a_process_report(parts_process(HOSTILE).process, placement=placed(vma)),))


def test_a_file_that_cannot_be_written_is_a_failure(serve: Serve, run: Run, tmp_path: Path) -> None:
    path = tmp_path / "none" / "heat.svg"
    done = run("heat", "4242", "--svg", str(path), socket=serve(told(a_parts_report(), 1024)))
    assert (done.exit_code, done.stdout) == (1, "")
    assert "cannot be written: No such file" in done.stderr


@pytest.mark.parametrize("arguments", [[], ["x"], ["0"], ["1", "--cells", "63"], ["1", "--cells", "2049"]])
def test_wrong_usage_gives_exit_code_2(run: Run, arguments: list[str]) -> None:
    done = run("heat", *arguments)
    assert (done.exit_code, done.stdout) == (2, "")


def test_bounds_are_those_of_the_daemon() -> None:
    assert (heat_command.LEAST_CELLS, heat_command.MOST_CELLS) == (heat_api.LEAST_CELLS, heat_api.MOST_CELLS)


@pytest.mark.parametrize(
    ("heat", "shade"), [(0.0, 0), (1e-9, 1), (1.56, 1), (1.57, 2), (6.25, 2), (6.26, 3), (25.0, 3), (25.1, 4), (100, 4)]
)
def test_each_shade_is_up_to_four_times_as_hot_as_the_one_before(heat: float, shade: int) -> None:
    assert level(heat, 100.0) == shade


@pytest.mark.parametrize(
    ("weights", "letter"), [({"2": 9.0, "3": 1.0}, "2"), ({"12": 8.0, "3": 2.0}, "c"), ({"2": 5.0, "3": 5.0}, "*")]
)
def test_the_letter_of_remote_use_is_that_of_the_node_it_comes_from_unless_there_are_several(
    weights: dict[str, float], letter: str
) -> None:
    cell = {"start": "0", "end": "200000", "node": 0, "use": "remote", "weight": 10.0, "weight_by_node": weights}
    assert (look(cell, WHOLE).use, look(cell, WHOLE).is_remote) == (letter, True)


def test_an_estimate_of_more_than_fits_into_a_mapping_is_told_as_all_of_it(serve: Serve, run: Run) -> None:
    process = a_process_report(parts_process().process, placement=placed(a_vma(HEAP, 4, {1: 1100.0})))
    socket = serve(told(a_report(processes=(process,)), 512))
    done = run("heat", "4242", "--format", "picture", socket=socket, env={"COLUMNS": "80"})
    assert "7f0000000000 anon 4MiB, 4MiB of it on node 1\n" in done.stdout


def test_nodes_with_large_numbers_have_letters_and_the_table_their_numbers(serve: Serve, run: Run) -> None:
    vmas = [a_vma(HEAP + (node << 30), 2, {node: 512.0}) for node in (9, 10, 35, 36)]
    process = a_process_report(parts_process().process, placement=placed(*vmas))
    socket = serve(told(a_report(processes=(process,)), 512))
    lines = run("heat", "4242", "--format", "picture", socket=socket).stdout.splitlines()
    assert [line[15:] for line in lines if line[10:].startswith("node")] == ["9", "a", "z", "^"]
    table = run("heat", "4242", socket=socket).stdout.splitlines()[1:]
    assert [line.split()[4] for line in table] == ["9", "10", "35", "36"]


def test_rows_begin_where_a_mapping_begins_though_cells_lie_at_multiples_of_their_size() -> None:
    cells = [{"start": f"{start:x}"} for start in (5, 8, 16, 24)]
    drawn = list(rows({"start": "5", "cells": cells}, 8, 2))
    assert [(row.start, len(row.cells)) for row in drawn] == [(5, 2), (16, 2)]


def test_heat_by_a_source_is_drawn_of_a_process_that_nobody_samples(serve: Serve, run: Run) -> None:
    warm = replace(an_unwatched_report(), heats=some_heats((0, 2, 1.0), (2, 4, 0.01)))
    done = run("heat", "4242", "--format", "picture", socket=serve(told(warm, 512)), env={"COLUMNS": "80"})
    assert (done.exit_code, done.stdout) == (0, WARM)
    piped = run("heat", "4242", socket=serve(told(warm)))
    assert [line.split()[5:7] for line in piped.stdout.splitlines()[1:]] == [["4", "-"], ["1", "-"]]


def test_accesses_that_tell_no_addresses_leave_heat_to_its_source(serve: Serve, run: Run) -> None:
    warm = replace(an_unwatched_report(), accesses=(a_window(),), heats=some_heats((0, 2, 1.0), (2, 4, 0.01)))
    done = run("heat", "4242", "--format", "picture", socket=serve(told(warm, 512)), env={"COLUMNS": "80"})
    assert "heat █░" in done.stdout


def test_samples_go_before_heat_by_a_source(serve: Serve, run: Run) -> None:
    warm = replace(a_parts_report(), heats=some_heats((0, 256, 1.0)))
    socket = serve(told(warm, 512))
    done = run("heat", "4242", "--format", "picture", socket=socket, env={"COLUMNS": "80"})
    assert done.stdout.replace("heat: by damon, 1 region, watched for 42s, 1.5s old, 0% of a core for it\n", "") == (
        PICTURE_80
    )


def test_why_there_is_no_heat_is_said(serve: Serve, run: Run) -> None:
    report = replace(an_unwatched_report(), heats=Heats(method=HeatMethod.DAMON, missed={PID: "it \x1b is gone"}))
    done = run("heat", "4242", "--format", "picture", socket=serve(told(report, 512)), env={"COLUMNS": "80"})
    assert "heat: by damon: it \\x1b is gone" in done.stdout
    assert "so heat is not known" in done.stdout
