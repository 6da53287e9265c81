"""What heat changes in the policy access: the order in which parts move, and nothing else."""

from dataclasses import replace

import pytest

from balancerd.model.decision import Decision
from balancerd.model.extent import Extent
from balancerd.model.heat import HeatMethod, HeatRegion, Heats, HeatWindow
from balancerd.model.sample import Window
from balancerd.policies.access import AccessOptions, plugin
from balancerd.ports import PolicyContext
from tests.unit.fakes import (
    GIB,
    VMA_START,
    make_access_run,
    make_access_window,
    make_process,
    make_snapshot,
    make_survey,
)

WEIGHTS = [1.0, 5.0, 3.0, 4.0, 2.0]
PROCESS = make_process(run=dict.fromkeys(range(4), 2.0), cpu_cores=64.0, rss_bytes=100 * GIB)


def chosen(ratios: dict[int, float] | None) -> list[int]:
    """Return which of five parts of 1 GiB move first, two of them, by the heat of some; None: heat is not watched."""
    runs = [make_access_run(1024, 2, {0: 1024}, at_mib=1024 * i, weight=w) for i, w in enumerate(WEIGHTS)]
    snapshot = make_snapshot(make_survey(PROCESS, at=2.0), windows=[make_access_window(*runs)])
    if ratios is not None:
        regions = [
            HeatRegion(start=VMA_START + i * GIB, end=VMA_START + (i + 1) * GIB, ratio=ratio)
            for i, ratio in sorted(ratios.items())
        ]
        window = HeatWindow(
            process=PROCESS.id,
            taken_at=1.0,
            seconds=0.1,
            watched_seconds=60.0,
            method=HeatMethod.DAMON,
            regions=tuple(regions),
        )
        snapshot = replace(snapshot, heats=Heats(method=HeatMethod.DAMON, windows={PROCESS.id: window}))
    policy = plugin.build("parts", AccessOptions(), PolicyContext(migration_bytes_per_second=GIB))
    (decision,) = policy.decide(Window(now=snapshot, before=None))
    assert isinstance(decision, Decision)
    assert decision.misplaced_bytes == 2 * GIB
    whole = [i for i in range(5) if any(_covers(extent, i) for extent in decision.extents or ())]
    assert len(whole) == 2
    return whole


def _covers(extent: Extent, index: int) -> bool:
    return extent.start <= VMA_START + index * GIB and VMA_START + (index + 1) * GIB <= extent.end


@pytest.mark.parametrize(
    ("ratios", "parts"),
    [
        pytest.param(None, [1, 3], id="nobody looks: by samples"),
        pytest.param({}, [1, 3], id="nothing was looked at"),
        pytest.param({0: 1.0, 4: 0.6}, [0, 4], id="what is known to be hot, though it has few samples"),
        pytest.param(dict.fromkeys(range(5), 1.0), [1, 3], id="all as hot"),
        pytest.param({0: 0.55, 1: 0.5, 2: 0.45, 3: 0.5, 4: 0.4}, [1, 3], id="about as hot: by samples"),
        pytest.param({0: 0.0, 1: 0.0, 2: 1.0}, [1, 2], id="the hot one and then by samples"),
    ],
)
def test_the_hottest_go_first(ratios: dict[int, float] | None, parts: list[int]) -> None:
    assert chosen(ratios) == parts
