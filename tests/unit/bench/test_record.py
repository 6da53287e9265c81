import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.bench.locality import record
from tests.bench.locality.figures import Point
from tests.bench.locality.record import RecordError, parse_boot
from tests.unit.bench.counted import boot, points

RESULT = {
    "gaps": {"loads-0": {"n": 5, "p99_ns": 10, "p999_ns": 20, "longest_ns": 30}},
    "pages": {"moved_bytes": 12288, "moved_once_bytes": 8192, "moved_twice_bytes": 4096},
    "daemon": {"cpu_seconds": 1.5, "moves": [{"pid": 1}, {"pid": 2}], "lines": ["moved"], "accounts": {"ticks": 9}},
    "finish": "verified 100 pages",
}


def test_a_boot_comes_back_as_it_was_kept_and_with_all_that_the_guest_told(tmp_path: Path) -> None:
    kept = boot("balancerd+kernel", 2, series=points((0.5, 1.25), (1.0, 1.0)), result=RESULT, own_cost=1.5)
    path = record.write_boot(tmp_path / "new", kept)
    assert path.name == "single.balancerd+kernel.2.json"
    assert record.read_boots(tmp_path / "new") == (kept,)
    assert json.loads(path.read_text(encoding="utf-8"))["result"]["daemon"]["accounts"] == {"ticks": 9}


def test_a_boot_that_is_repeated_replaces_the_older_one_and_no_other(tmp_path: Path) -> None:
    for one in (boot("kernel", 1), boot("kernel", 2), boot("kernel", 1, kernel_cost=7.0)):
        record.write_boot(tmp_path, one)
    assert [one.figures.kernel_cost for one in record.read_boots(tmp_path)] == [7.0, 0.0]


def test_what_the_guest_told_is_understood() -> None:
    result = boot("numad", result=RESULT).result
    assert result.stalls["loads-0"].p999_ns == 20
    assert result.stalls["loads-0"].longest_ns == 30
    assert (result.moved_bytes, result.moved_twice_bytes) == (12288, 4096)
    assert (result.cpu_seconds, result.moves, result.lines) == (1.5, 2, ("moved",))


def test_who_has_no_daemon_has_no_cpu_time_and_made_no_moves() -> None:
    result = boot("nothing").result
    assert result.cpu_seconds is None
    assert (result.moves, result.lines) == (0, ())


def test_a_long_series_is_a_few_kilobytes() -> None:
    series = tuple(Point(seconds=i * 0.6, accesses=1234567, remote=654321, cost=2345678.9) for i in range(200))
    assert len(record.as_text(boot("nothing", series=series))) < 10_000


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        pytest.param(lambda parts: parts.pop("work"), "x.json: 'work' is missing", id="a part"),
        pytest.param(lambda parts: parts["result"].pop("gaps"), "x.json: 'gaps' is missing", id="of the result"),
        pytest.param(lambda parts: parts["figures"].pop("seconds"), "x.json: .*seconds", id="of the figures"),
        pytest.param(lambda parts: parts.update(series=[[1, 2]]), "x.json: .*unpack", id="of the series"),
    ],
)
def test_what_is_missing_in_a_file_is_named(change: Callable[[dict[str, Any]], None], complaint: str) -> None:
    parts = json.loads(record.as_text(boot("nothing")))
    change(parts)
    with pytest.raises(RecordError, match=complaint):
        parse_boot(json.dumps(parts), "x.json")


def test_a_file_that_is_no_json_is_named() -> None:
    with pytest.raises(RecordError, match=r"x\.json: .*line 2"):
        parse_boot("{\n", "x.json")
