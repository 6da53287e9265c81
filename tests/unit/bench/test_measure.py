"""The order of things inside the guest, and the shape of what is told: an idle workload, and this process as daemon."""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from balancerd.config import loader
from tests.bench.locality import compare, measure, rivals
from tests.bench.locality.plan import BEGIN, DONE, THREE_QUARTERS, Plan
from tests.bench.locality.rivals import Rival
from tests.bench.victim import Gaps

GAPS = Gaps(longest_ns=900, in_long_ns=0, below=Counter({128: 990, 256: 9, 1024: 1}))
VMSTAT = """\
nr_free_pages 1000
pgmigrate_success 4096
pgmigrate_fail 3
pgalloc_normal 77
numa_pte_updates 5
numa_hint_faults 9
numa_hint_faults_local 8
numa_pages_migrated 2
numa_hit 1234
thp_migration_split 1
"""


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "SETTLE_SECONDS", 0.0)


class Idle:
    """A workload under way that only marks, and notes when it was asked for what."""

    name, summary, mib, is_misplaced, units_per_second = "idle", "does nothing", 1, False, 1
    stays_seconds: float | None = None

    def __init__(self, story: list[str], *, fails: bool = False) -> None:
        self.pids = (os.getpid(),)
        self.gaps: Mapping[str, Gaps] = {"touch": GAPS}
        self.plan: Plan | None = None
        self._story = story
        self._fails = fails

    @contextmanager
    def start(self, plan: Plan) -> Iterator["Idle"]:
        balancing = plan.folder / "numa_balancing"
        self._story.append(f"workload starts, balancing {balancing.read_text()}")
        self.plan = plan
        try:
            yield self
        finally:
            self._story.append("workload gone")

    def work(self, mark: Callable[[int], None]) -> None:
        mark(BEGIN)
        if self._fails:
            raise RuntimeError("it ended too early")
        mark(THREE_QUARTERS)
        mark(DONE)

    def finish(self) -> str:
        self._story.append("finish")
        return "verified 256 pages"


class Watcher:
    """A rival's daemon that is this process."""

    def __init__(self, story: list[str]) -> None:
        self.pid = os.getpid()
        self._story = story

    def tell(self, pids: Iterable[int]) -> dict[str, Any]:
        self._story.append("daemon tells")
        return {"moves": [{"pid": pid, "to": "0"} for pid in pids], "lines": []}


def run_idle(tmp_path: Path, story: list[str], *, is_kernel_on: bool = False, fails: bool = False) -> dict[str, Any]:
    @contextmanager
    def start(folder: Path, house_cpu: int) -> Iterator[Watcher]:
        story.append(f"rival starts in {folder.name}, house-keeping CPU {house_cpu}")
        try:
            yield Watcher(story)
        finally:
            story.append("rival gone")

    balancing = tmp_path / "numa_balancing"

    def marker(number: int) -> None:
        story.append(f"mark {number}, balancing {balancing.read_text()}")

    plan = Plan(work=5, mib=1, is_bound=False, cpus={0: 0, 2: 3}, folder=tmp_path)
    rival = Rival(name="watcher", summary="", is_kernel_on=is_kernel_on, start=start)
    return measure.run(Idle(story, fails=fails), rival, plan, house_cpu=4, marker=marker, balancing=balancing)


def test_the_rival_is_ready_first_and_tells_while_the_processes_are_still_there(tmp_path: Path) -> None:
    story: list[str] = []
    run_idle(tmp_path, story, is_kernel_on=True)
    assert story == [
        "rival starts in rival, house-keeping CPU 4",
        "workload starts, balancing 0",
        "mark 1, balancing 1",
        "mark 2, balancing 1",
        "mark 3, balancing 1",
        "daemon tells",
        "finish",
        "workload gone",
        "rival gone",
    ]
    assert (tmp_path / "numa_balancing").read_text() == "0"


def test_the_result_tells_everything_in_json(tmp_path: Path) -> None:
    told = json.loads(json.dumps(run_idle(tmp_path, [])))
    assert (told["workload"], told["rival"], told["work"], told["mib"]) == ("idle", "watcher", 5, 1)
    assert told["kernel"] == os.uname().release
    assert (told["house_cpu"], told["cpus"]) == (4, {"0": 0, "2": 3})
    assert told["error"] is None
    assert list(told["marks"]) == ["1", "2", "3"]
    assert sorted(told["marks"].values()) == list(told["marks"].values())
    assert told["gaps"] == {"touch": {"n": 1000, "p99_ns": 128, "p999_ns": 256, "longest_ns": 900}}
    assert told["vmstat"]["pgmigrate_success"] >= 0
    pages = told["pages"]
    assert pages["looked_bytes"] >= pages["kept_bytes"] > 0
    assert sum(pages["before_bytes"].values()) == pages["looked_bytes"]
    assert pages["moved_bytes"] == told["vmstat"]["pgmigrate_success"] * 4096
    mine = ",".join(map(str, sorted(os.sched_getaffinity(0))))
    assert mine in told["affinity"][str(os.getpid())]["before"]
    daemon = told["daemon"]
    assert daemon["cpu_seconds_before"] > 0
    assert daemon["cpu_seconds"] >= 0
    assert daemon["rss_mib"] > 1
    assert daemon["moves"] == [{"pid": os.getpid(), "to": "0"}]
    assert told["finish"] == "verified 256 pages"


def test_without_a_daemon_nothing_is_told_of_one(tmp_path: Path) -> None:
    plan = Plan(work=5, mib=1, is_bound=True, cpus={0: 0}, folder=tmp_path)
    workload = Idle([])
    told = measure.run(
        workload,
        rivals.RIVALS["bound"],
        plan,
        house_cpu=4,
        marker=lambda _: None,
        balancing=tmp_path / "numa_balancing",
    )
    assert told["error"] is None
    assert told["daemon"] is None
    assert workload.plan is plan


def test_a_failure_is_in_the_result_and_everything_is_ended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    story: list[str] = []
    told = run_idle(tmp_path, story, fails=True)
    assert told["error"] == "RuntimeError: it ended too early"
    assert "finish" not in told
    assert story[-3:] == ["mark 1, balancing 0", "workload gone", "rival gone"]
    assert "it ended too early" in capsys.readouterr().err
    assert (tmp_path / "numa_balancing").read_text() == "0"


def test_counters_are_read_just_outside_of_the_marks() -> None:
    story: list[str] = []

    class Telling(measure.Marks):
        def _read(self, number: int) -> None:
            story.append(f"read at {number}")

    marks = Telling(lambda number: story.append(f"mark {number}"), None, lambda: story.append("begin"))
    for number in (BEGIN, THREE_QUARTERS, DONE):
        marks(number)
    assert story == ["read at 1", "begin", "mark 1", "mark 2", "mark 3", "read at 3"]


def test_of_vmstat_only_what_moves_or_balances_is_told() -> None:
    assert measure.parse_vmstat(VMSTAT) == {
        "pgmigrate_success": 4096,
        "pgmigrate_fail": 3,
        "numa_pte_updates": 5,
        "numa_hint_faults": 9,
        "numa_hint_faults_local": 8,
        "numa_pages_migrated": 2,
        "thp_migration_split": 1,
    }


def test_the_rivals_are_those_of_the_comparison() -> None:
    assert tuple(rivals.RIVALS) == compare.RIVALS
    on = ["kernel", "balancerd+hints", "balancerd+kernel"]
    assert [name for name, rival in rivals.RIVALS.items() if rival.is_kernel_on] == on
    assert [name for name, rival in rivals.RIVALS.items() if rival.is_bound] == ["bound"]
    assert [name for name, rival in rivals.RIVALS.items() if rival.start is None] == ["nothing", "kernel", "bound"]


@pytest.mark.parametrize(
    ("rival", "source"),
    [("balancerd", "registers"), ("balancerd+access", "registers"), ("balancerd+hints", "hint-faults")],
)
def test_what_a_rival_is_called_is_what_its_daemon_is_configured_for(
    rival: str, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []

    def start(folder: Path, config: str, *, overrides: object) -> AbstractContextManager[None]:
        assert folder == tmp_path
        assert overrides == rivals.SETTINGS
        started.append(config)
        return nullcontext()

    monkeypatch.setattr(rivals, "Balancerd", start)
    with rivals.at_work(rivals.RIVALS[rival], tmp_path, 4):
        config = loader.load_text(started[0]).config
    assert config.accesses.sources == (source,)
    kinds = [policy.kind for policy in config.policies]
    assert ("access" in kinds) == (rival != "balancerd")
    assert "kernel-balancing" not in config.yield_to
