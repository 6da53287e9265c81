"""One line an event, whatever the values hold; one canonical line a tick; no rich in the process."""

import io
import json
import re
import subprocess
import sys
from typing import Any

import pytest

from balancerd.log import LineWriter, TickLog, setup
from balancerd.model.decision import Reason, Skip
from balancerd.model.report import TickReport
from tests.unit.reports import a_moving_report, a_process, a_process_report, a_report

HOSTILE = 'x"y=\\\n\r\x1b[2J\x00\x7f\x85\x9b\u2028\u2029\u202e\udcff z'


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Broken(io.StringIO):
    def write(self, _text: str, /) -> int:
        raise BrokenPipeError


def json_lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def emitted(report: TickReport, level: Any = "info") -> list[dict[str, Any]]:
    stream = io.StringIO()
    TickLog(setup(level=level, stream=stream)).emit(report)
    return json_lines(stream)


def test_a_tick_is_one_line_that_says_what_was_seen_decided_and_done() -> None:
    (line,) = emitted(a_moving_report(7))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", line.pop("timestamp"))
    assert line == {
        "level": "info",
        "event": "tick",
        "number": 7,
        "mode": "enforce",
        "surveyed": 2,
        "eligible": 1,
        "sampled": 1,
        "decided": 1,
        "planned": 1,
        "moved_pages": 1000,
        "moved_bytes": 4096000,
        "failed_pages": {"eacces": 24},
        "evicted_bytes": 0,
        "threads": {},
        "seconds": {"survey": 0.004, "sample": 0.002, "migrate": 0.006},
    }


def test_a_quiet_tick_is_told_too_and_a_failed_policy_makes_it_a_warning() -> None:
    (quiet,) = emitted(a_report())
    assert (quiet["level"], quiet["failed_pages"], quiet["moved_pages"]) == ("info", {}, 0)
    (failed,) = emitted(a_report(policy_errors={"home": "ValueError: x"}), level="warning")
    assert (failed["level"], failed["policy_errors"]) == ("warning", {"home": "ValueError: x"})


def test_a_process_that_only_lacked_scan_budget_counts_as_eligible() -> None:
    process, other = a_process(1), a_process(2)
    report = a_report(
        processes=(
            a_process_report(process, verdicts=(Skip(by="select", process=process.id, reason=Reason.SCAN_BUDGET),)),
            a_process_report(other, verdicts=(Skip(by="select", process=other.id, reason=Reason.SELF),)),
        )
    )
    assert emitted(report)[0]["eligible"] == 1


def test_detail_is_at_debug_and_a_reason_is_told_only_when_it_changes() -> None:
    stream = io.StringIO()
    log = TickLog(setup(level="debug", stream=stream))
    log.emit(a_moving_report(1))
    events = [line["event"] for line in json_lines(stream)]
    assert events == ["decision", "migration", "reason changed", "reason changed", "tick"]
    decision, migration = json_lines(stream)[:2]
    assert (decision["pid"], decision["target"], decision["reason"]) == (4242, 0, "misplaced")
    assert (migration["submitted_pages"], migration["longest_call_seconds"]) == (1024, 0.003)
    stream.truncate(0)
    stream.seek(0)
    log.emit(a_moving_report(2))
    assert [line["event"] for line in json_lines(stream)] == ["decision", "migration", "tick"]


@pytest.mark.parametrize("form", ["json", "console"])
def test_hostile_text_stays_on_its_line_and_is_printable(form: Any) -> None:
    stream = io.StringIO()
    setup(form=form, stream=stream).info("moved", comm=HOSTILE, nested={"text": HOSTILE}, listed=[HOSTILE])
    text = stream.getvalue()
    assert text.endswith("\n")
    assert text[:-1].isprintable()
    if form == "json":
        assert json.loads(text)["comm"] == HOSTILE


def test_a_value_on_the_console_cannot_pose_as_another_one() -> None:
    stream = io.StringIO()
    setup(form="console", stream=stream).info("moved", comm="a reason=x", plain="word", unknown=None, empty="")
    assert stream.getvalue().endswith(" info    moved comm='a reason=x' plain=word unknown=- empty=''\n")


@pytest.mark.parametrize("form", ["json", "console"])
def test_an_exception_is_logged_with_a_plain_traceback_on_one_line(form: Any) -> None:
    stream = io.StringIO()
    logger = setup(form=form, stream=stream)
    try:
        int(HOSTILE)
    except ValueError:
        logger.exception("tick failed")
    assert stream.getvalue().count("\n") == 1
    assert "Traceback (most recent call last)" in stream.getvalue()


@pytest.mark.parametrize(
    ("form", "stream", "is_json"),
    [
        ("auto", io.StringIO, True),
        ("auto", Terminal, False),
        ("json", Terminal, True),
        ("console", io.StringIO, False),
    ],
)
def test_json_is_for_machines_unless_asked_otherwise(form: Any, stream: type[io.StringIO], is_json: bool) -> None:
    out = stream()
    setup(form=form, stream=out).info("ready")
    assert out.getvalue().startswith("{") is is_json


def test_lines_below_the_level_are_not_written() -> None:
    stream = io.StringIO()
    logger = setup(level="warning", stream=stream)
    logger.info("quiet")
    logger.warning("loud")
    assert [line["event"] for line in json_lines(stream)] == ["loud"]


def test_a_reader_that_went_away_stops_nobody() -> None:
    writer = LineWriter(Broken())
    writer.msg("x")
    assert writer.lost_lines == 1
    TickLog(setup(stream=Broken())).emit(a_moving_report())


def test_the_daemon_logs_without_rich_and_others_may_import_it_afterwards() -> None:
    program = """
import sys
import balancerd.log
logger = balancerd.log.setup(stream=sys.stdout, form="console")
try:
    1 / 0
except ZeroDivisionError:
    logger.exception("failed")
assert not [name for name in sys.modules if name.split(".")[0] in ("rich", "pygments")], sys.modules
import rich
assert rich.__file__
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "ZeroDivisionError" in done.stdout


def test_a_process_that_has_rich_already_keeps_it() -> None:
    program = "import sys, rich, balancerd.log; assert sys.modules['rich'] is rich"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
