"""Times as people write them."""

import time
from collections.abc import Iterator

import pytest

from balancerd.cli.moments import format_moment, parse_moment, spell_moment

NOW = 1_795_600_000.5  # 2026-11-25T09:46:40.5Z


@pytest.fixture(autouse=True, params=["UTC", "Asia/Kolkata"])
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield request.param
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("now", NOW),
        ("-2h", NOW - 7200),
        ("2h", NOW - 7200),
        ("-1d12h", NOW - 129_600),
        ("500ms", NOW - 0.5),
        ("@1795600000", 1_795_600_000.0),
        ("2026-11-25T09:46:40Z", 1_795_600_000.0),
        ("2026-11-25T10:46:40+01:00", 1_795_600_000.0),
        ("2026-11-25 09:46:40.500+00:00", NOW),
    ],
)
def test_a_moment_with_a_zone_is_the_same_everywhere(text: str, moment: float) -> None:
    assert parse_moment(text, NOW) == moment


@pytest.mark.parametrize(
    ("text", "in_utc"),
    [
        ("2026-11-25", 1_795_564_800.0),
        ("2026-11-25T09:46", 1_795_599_960.0),
        ("09:46", 1_795_599_960.0),
        ("9:46", 1_795_599_960.0),
        ("9:46:40", 1_795_600_000.0),
    ],
)
def test_a_moment_without_a_zone_is_one_of_this_machine(text: str, in_utc: float, zone: str) -> None:
    offset = 0.0 if zone == "UTC" else 5.5 * 3600
    assert parse_moment(text, NOW) == in_utc - offset


@pytest.mark.parametrize(
    "text", ["", "2", "-2", "yesterday", "2026-13-01", "25:00", "2h1d", "1\u0662:00", "-2 h", "9999999-01-01", "@x"]
)
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected|unit"):
        parse_moment(text, NOW)


def test_a_moment_is_written_for_people_in_their_zone_and_for_programs_in_utc(zone: str) -> None:
    assert format_moment(NOW) == ("2026-11-25 09:46:40" if zone == "UTC" else "2026-11-25 15:16:40")
    assert spell_moment(NOW) == "2026-11-25T09:46:40.500Z"
