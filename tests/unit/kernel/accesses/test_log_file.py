"""Reading the file of a log: streamed, twice, and only when it is the same both times."""

from pathlib import Path

import pytest

from balancerd.kernel.accesses.log_file import LogFile, LogUnreadableError
from balancerd.kernel.accesses.perf_log import MOST_LINE_BYTES

LINE = b"42/43 [001] 4990.000000:     7f0000000000\n"
OTHER = b"77/77 [001] 4990.000000:     7f0000000000\n"


def test_only_what_is_wanted_comes_in_pieces(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes((LINE + OTHER) * 5)
    with LogFile(str(tmp_path / "log")) as file:
        tally = file.survey()
        pieces = list(file.samples(tally, {42}, 2))
    assert tally.samples_by_pid == {42: 5, 77: 5}
    assert [len(piece) for piece in pieces] == [2, 2, 1]
    assert {sample.pid for piece in pieces for sample in piece} == {42}


@pytest.mark.parametrize("later", [LINE * 6, OTHER * 5, LINE * 4])
def test_a_file_that_changed_between_the_two_readings_is_not_to_be_used(tmp_path: Path, later: bytes) -> None:
    path = tmp_path / "log"
    path.write_bytes(LINE * 5)
    with LogFile(str(path)) as file:
        tally = file.survey()
        path.write_bytes(later)
        with pytest.raises(LogUnreadableError, match="has changed"):
            list(file.samples(tally, {42}, 100))


def test_a_line_without_end_is_one_odd_line_and_hides_no_sample(tmp_path: Path) -> None:
    hidden = b"x" * MOST_LINE_BYTES + LINE
    (tmp_path / "log").write_bytes(LINE + hidden + LINE + b"#" * (MOST_LINE_BYTES - 1) + b"\n" + LINE)
    with LogFile(str(tmp_path / "log")) as file:
        tally = file.survey()
    assert (tally.samples, tally.truncated, tally.comments, tally.lines) == (3, 1, 1, 5)
    assert str(tally.odd_lines[0]) == f"{tmp_path / 'log'}:2: cut off: too long"


def test_a_link_is_followed_only_where_that_is_wanted(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(LINE)
    (tmp_path / "link").symlink_to("log")
    with LogFile(str(tmp_path / "link")) as file:
        assert file.survey().samples == 1
    with pytest.raises(LogUnreadableError), LogFile(str(tmp_path / "link"), asked_for=False):
        pass
