"""How hot a stretch of memory is, from regions that do not fit it."""

import pytest

from balancerd.model.heat import HeatMethod, HeatRegion, HeatWindow
from balancerd.model.ids import ProcessId

WINDOW = HeatWindow(
    process=ProcessId(1, 1),
    taken_at=0.0,
    seconds=0.1,
    watched_seconds=1.0,
    method=HeatMethod.DAMON,
    regions=(
        HeatRegion(start=100, end=200, ratio=1.0),
        HeatRegion(start=200, end=400, ratio=0.25),
        HeatRegion(start=600, end=700, ratio=0.0),
    ),
)


@pytest.mark.parametrize(
    ("start", "end", "ratio"),
    [
        (100, 200, 1.0),
        (120, 130, 1.0),
        (100, 400, 0.5),
        (150, 250, 0.625),
        (0, 150, 1.0),
        (350, 650, 0.125),
        (600, 900, 0.0),
        (0, 100, None),
        (400, 600, None),
        (700, 900, None),
        (0, 1000, 0.375),
    ],
)
def test_the_mean_by_bytes_of_what_was_looked_at(start: int, end: int, ratio: float | None) -> None:
    assert WINDOW.ratio_within(start, end) == ratio


def test_where_nothing_was_looked_at_nothing_is_known() -> None:
    empty = HeatWindow(process=ProcessId(1, 1), taken_at=0.0, seconds=0.1, watched_seconds=1.0, method=HeatMethod.DAMON)
    assert empty.ratio_within(0, 1 << 47) is None
