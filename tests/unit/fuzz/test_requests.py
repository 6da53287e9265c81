"""What callers send to the control socket: any body or question is understood, or refused by one sentence."""

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from balancerd.cli.moments import parse_moment
from balancerd.control.history_api import parse_query
from balancerd.control.import_api import parse_header, parse_samples
from balancerd.control.import_pieces import SAMPLE
from balancerd.control.recording_api import parse_seconds
from balancerd.control.requests import BadRequest, parse_job
from balancerd.control.workload_api import parse_asked
from tests.unit.fuzz.texts import anything, check_result

NOW = 1_800_000_000.0
IMPORT = (
    b'{"name": "perf.log", "samples": {"4711": 7, "1": 1}, "first_seconds": 1.5, "last_seconds": 2, '
    b'"clock": "monotonic", "lost_samples": 0}'
)
BODIES: dict[str, tuple[Callable[[bytes], Any], tuple[bytes, ...]]] = {
    "import": (parse_header, (IMPORT,)),
    "job": (parse_job, (b'{"kind": "move", "pid": 7, "to": "2-3", "from": "0,1"}', b'{"kind": "undo", "move": 12}')),
    "recording": (parse_seconds, (b'{"seconds": 60}',)),
    "samples": (lambda body: list(parse_samples(body)), (SAMPLE.pack(1, 2, 3, 4, 5) * 3,)),
}
QUESTION = "since=-7200&until=1800000000.5&workload=a.service&pid=7&policy=home&before=9&limit=10"


@pytest.mark.parametrize("name", BODIES)
@given(data=st.data())
def test_any_body_is_understood_or_refused_in_a_sentence(name: str, data: st.DataObject) -> None:
    parse, seeds = BODIES[name]
    parse(seeds[0])
    body = data.draw(anything(seeds))
    try:
        result = parse(body)
    except BadRequest as error:
        assert 0 < len(str(error)) <= 1000
    else:
        check_result(result, body)


def questions(*seeds: str) -> st.SearchStrategy[str]:
    """As a server hands them on: each byte a character."""
    return anything(tuple(map(str.encode, seeds))).map(lambda text: text.decode("latin-1"))


@given(questions(QUESTION))
@example("since=" + "9" * 400)
@example("pid=" + "9" * 5000)
def test_any_question_about_history_is_understood_or_refused(text: str) -> None:
    try:
        query = parse_query(text, now=NOW)
    except BadRequest as error:
        assert 0 < len(str(error)) <= 1000
    else:
        assert 1 <= query.limit <= 1000
        assert all(each is None or math.isfinite(each) for each in (query.since, query.until))
        assert query.pid is None or 1 <= query.pid <= 1 << 22


@given(questions("sort=cpu&match=a.service"))
def test_any_question_of_a_live_view_is_understood_or_not(text: str) -> None:
    asked = parse_asked(text)
    assert asked is None or len(asked.match) <= len(text)


@given(questions("-2h", "2026-11-20T12:00:01+01:00", "12:00", "@1800000000.5", "now", "2026-11-20"))
@example("@" + "9" * 12)
@example("9" * 5000 + "h")
@example("0001-01-01")
def test_any_moment_is_one_or_an_error_that_says_what_is_expected(text: str) -> None:
    try:
        moment = parse_moment(text, NOW)
    except ValueError as error:
        assert 0 < len(str(error)) <= 500
    else:
        assert math.isfinite(moment)
