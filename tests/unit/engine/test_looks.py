"""The longer nothing changes, the later the next look; any change brings the process back."""

import pytest

from balancerd.engine.looks import Looks
from balancerd.model.ids import ProcessId
from tests.unit.fakes import MIB, make_placement, make_process


def next_looks(looks: Looks, rss_mib: int, held: dict[int, float], times: int, start: float = 0.0) -> list[float]:
    """Look so many times, each as soon as it is due; return the waits between."""
    waits, now = [], start
    for _ in range(times):
        looks.note(make_placement(held, taken_at=now), rss_mib * MIB)
        process = make_process(rss_bytes=rss_mib * MIB)
        wait = next(s for s in (5, 10, 20, 40, 80, 160, 320, 640) if looks.is_due(process, now + s))
        assert not looks.is_due(process, now + wait - 0.1)
        waits.append(float(wait))
        now += wait
    return waits


def test_an_unknown_process_is_due() -> None:
    assert Looks().is_due(make_process(), 0.0)


def test_intervals_double_while_nothing_changes() -> None:
    assert next_looks(Looks(), 256, {0: 256}, 9) == [5, 10, 20, 40, 80, 160, 320, 320, 320]


@pytest.mark.parametrize(("held", "wait"), [({0: 252, 2: 4}, 40.0), ({0: 240, 2: 16}, 5.0), ({2: 256}, 5.0)])
def test_memory_that_lies_elsewhere_brings_the_process_back(held: dict[int, float], wait: float) -> None:
    looks = Looks()
    next_looks(looks, 256, {0: 256}, 3)
    assert next_looks(looks, 256, held, 1, start=35.0) == [wait]


@pytest.mark.parametrize(("rss_mib", "due"), [(256, False), (268, False), (270, True), (240, True)])
def test_a_change_of_size_brings_the_process_back_at_once(rss_mib: int, due: bool) -> None:
    looks = Looks()
    next_looks(looks, 256, {0: 256}, 5)
    assert looks.is_due(make_process(rss_bytes=rss_mib * MIB), 76.0) is due


def test_a_process_that_is_gone_is_forgotten() -> None:
    looks = Looks()
    looks.note(make_placement({0: 1}), MIB)
    looks.forget_all_but({ProcessId(7, 1)})
    assert looks.is_due(make_process(rss_bytes=MIB), 0.0)
