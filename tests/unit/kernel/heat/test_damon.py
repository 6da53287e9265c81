"""Heat by DAMON over a tree that behaves as the kernel's: whose it is, what is written, what is left behind."""

import errno
import os
from pathlib import Path

import pytest

from balancerd.kernel.errors import ParseError, ProcessGoneError
from balancerd.kernel.heat import damon_obstacles
from balancerd.kernel.heat.damon import LEAST_SECONDS, MOST_FACTOR, RATE_SECONDS, DamonHeat, choose_factor
from balancerd.kernel.heat.damon_obstacles import NO_VADDR, find_obstacle, find_tree_obstacle
from balancerd.kernel.heat.kdamonds import TREE, Intervals, Kdamonds, Owner, Region, TakenError, parse_number
from balancerd.model.heat import HeatMethod, HeatRegion
from balancerd.model.ids import ProcessId
from tests.unit.fakes import FakeClock
from tests.unit.kernel.heat.damon_tree import DamonTree
from tests.unit.kernel.trees import MACHINES

OWN, PEER, TARGET, OTHER = ProcessId(50, 500), ProcessId(51, 510), ProcessId(100, 1), ProcessId(101, 2)
CAPTURED = MACHINES / "damon-6.12/sys"
FOUND = (Region(start=0x1000, end=0x5000, accesses=20, age=7), Region(start=0x5000, end=0x9000, accesses=1, age=0))


def kdamonds_of(tree: DamonTree, own: ProcessId = OWN) -> Kdamonds:
    return Kdamonds(own, sysfs=str(tree.sysfs), procfs=str(tree.procfs), write=tree.write)


def source_of(
    tree: DamonTree, clock: FakeClock | None = None, *, slots: int = 2, own: ProcessId = OWN, budget: float = 0.01
) -> DamonHeat:
    return DamonHeat(
        clock or FakeClock(),
        kdamonds_of(tree, own),
        slots=slots,
        budget_ratio=budget,
        sysfs=str(tree.sysfs),
        procfs=str(tree.procfs),
        thread_seconds=lambda: 0.0,
    )


@pytest.fixture
def tree(tmp_path: Path) -> DamonTree:
    made = DamonTree(tmp_path)
    for process in (OWN, TARGET, OTHER):
        made.add_process(process)
    made.regions = FOUND
    return made


def set_up_a_foreign_one(tree: DamonTree) -> None:
    tree.write(f"{tree.top}/nr_kdamonds", "1")
    tree.write(f"{tree.top}/0/contexts/nr_contexts", "1")
    tree.write(f"{tree.top}/0/contexts/0/schemes/nr_schemes", "1")
    tree.writes.clear()


def test_regions_are_told_as_the_share_of_looks_and_their_age_in_seconds(tree: DamonTree) -> None:
    clock = FakeClock()
    source = source_of(tree, clock)
    assert source.probe() is None
    source.open(TARGET)
    assert tree.threads[0].target == TARGET.pid
    assert source.read(TARGET) is None  # its regions are as they began
    clock.time += 1.0
    window = source.read(TARGET)
    assert window is not None
    assert (window.method, window.process, window.seconds) == (HeatMethod.DAMON, TARGET, 0.1)
    assert window.watched_seconds == 1.0
    assert window.regions == (
        HeatRegion(start=0x1000, end=0x5000, ratio=1.0, age_seconds=7 * 0.1),
        HeatRegion(start=0x5000, end=0x9000, ratio=0.05, age_seconds=0.0),
    )
    clock.time += LEAST_SECONDS / 2
    assert source.read(TARGET) is None  # it is not read more often than that
    clock.time += LEAST_SECONDS / 2
    assert source.read(TARGET) is not None


def test_the_captured_tree_of_a_kernel_is_read_as_it_was(tmp_path: Path) -> None:
    writes: list[tuple[str, str]] = []

    def note(path: str, text: str) -> None:
        writes.append((Path(path).name, text))

    captured = Kdamonds(ProcessId(210, 849), sysfs=str(CAPTURED), procfs=str(tmp_path), write=note)
    assert (captured.count(), captured.owner(), captured.offers_vaddr()) == (2, Owner.THIS, True)
    assert [captured.is_on(slot) for slot in range(2)] == [True, False]
    assert [captured.thread(slot) for slot in range(2)] == [213, None]
    regions = captured.regions(0)
    assert writes == [("state", "update_schemes_tried_regions")]
    assert len(regions) == 8
    assert [region.start for region in regions] == sorted(region.start for region in regions)
    assert [(region.accesses, region.age) for region in regions] == [*[(0, 8)] * 4, (2, 0), (9, 0), (3, 0), (6, 0)]
    assert regions[-1] == Region(start=140476481576960, end=140476481773568, accesses=6, age=0)
    assert Kdamonds(OWN, sysfs=str(CAPTURED), procfs=str(tmp_path)).owner() is Owner.CRASHED


def test_what_is_written_bounds_the_cost_and_asks_for_every_region(tree: DamonTree) -> None:
    source = source_of(tree, slots=1)
    assert source.probe() is None
    source.open(TARGET)
    context = tree.top / "0/contexts/0"

    def told(name: str) -> str:
        return (context / name).read_text().strip()

    assert told("operations") == "vaddr"
    assert [told(f"monitoring_attrs/nr_regions/{name}") for name in ("min", "max")] == ["10", "200"]
    assert [told(f"monitoring_attrs/intervals/{name}_us") for name in ("sample", "aggr", "update")] == [
        *("5000", "100000", "5000000")
    ]
    assert told("schemes/0/action") == "stat"  # which does nothing to memory
    for what in ("sz", "nr_accesses", "age"):
        assert [told(f"schemes/0/access_pattern/{what}/{end}") for end in ("min", "max")] == ["0", str(2**64 - 1)]


def test_each_process_has_a_thread_and_a_closed_ones_serves_the_next(tree: DamonTree) -> None:
    source = source_of(tree)
    assert source.probe() is None
    source.open(TARGET)
    source.open(OTHER)
    source.open(OTHER)
    assert {slot: thread.target for slot, thread in tree.threads.items()} == {0: TARGET.pid, 1: OTHER.pid}
    third = ProcessId(102, 3)
    tree.add_process(third)
    with pytest.raises(LookupError, match="all 2 threads"):
        source.open(third)
    source.close(TARGET)
    source.close(TARGET)
    assert set(tree.threads) == {1}
    source.open(third)
    assert tree.threads[0].target == third.pid


def test_a_process_that_ended_and_a_pid_that_is_anothers_now(tree: DamonTree) -> None:
    clock = FakeClock()
    source = source_of(tree, clock)
    assert source.probe() is None
    with pytest.raises(ProcessGoneError):
        source.open(ProcessId(TARGET.pid, 77))
    assert tree.threads == {}
    source.open(TARGET)
    tree.end_process(TARGET)
    clock.time += 1.0
    with pytest.raises(ProcessGoneError):
        source.read(TARGET)
    source.close(TARGET)
    with pytest.raises(KeyError):
        source.read(TARGET)


def test_a_thread_that_somebody_stopped_is_an_error_and_not_an_empty_window(tree: DamonTree) -> None:
    clock = FakeClock()
    source = source_of(tree, clock)
    assert source.probe() is None
    source.open(TARGET)
    tree.write(f"{tree.top}/0/state", "off")
    clock.time += 1.0
    with pytest.raises(OSError, match="not running"):
        source.read(TARGET)


def test_shutting_leaves_nothing(tree: DamonTree) -> None:
    source = source_of(tree)
    assert source.probe() is None
    source.open(TARGET)
    source.shut()
    assert (kdamonds_of(tree).count(), tree.threads) == (0, {})
    assert kdamonds_of(tree).owner() is Owner.NOBODY
    source.shut()


def test_what_a_crashed_daemon_left_is_recognised_and_cleaned_up(tree: DamonTree) -> None:
    before = source_of(tree, own=PEER, slots=3)
    tree.add_process(PEER)
    assert before.probe() is None
    before.open(TARGET)
    assert kdamonds_of(tree).owner() is Owner.PEER
    tree.end_process(PEER)
    assert kdamonds_of(tree).owner() is Owner.CRASHED
    source_of(tree).recover()
    assert (kdamonds_of(tree).count(), tree.threads) == (0, {})


def test_a_pid_used_again_by_another_program_is_no_running_daemon(tree: DamonTree) -> None:
    tree.add_process(PEER)
    assert source_of(tree, own=PEER).probe() is None
    tree.add_process(ProcessId(PEER.pid, PEER.start_ticks + 1))
    assert kdamonds_of(tree).owner() is Owner.CRASHED
    source = source_of(tree)
    assert source.probe() is None  # it may as well be taken over
    assert kdamonds_of(tree).owner() is Owner.THIS


@pytest.mark.parametrize("does_run", [False, True])
def test_somebody_elses_tree_is_never_written(tree: DamonTree, *, does_run: bool) -> None:
    set_up_a_foreign_one(tree)
    if does_run:
        tree.write(f"{tree.top}/0/contexts/0/targets/nr_targets", "1")
        tree.write(f"{tree.top}/0/contexts/0/targets/0/pid_target", str(OTHER.pid))
        tree.write(f"{tree.top}/0/state", "on")
        tree.writes.clear()
    assert kdamonds_of(tree).owner() is Owner.OTHER
    source = source_of(tree)
    source.recover()
    obstacle = source.probe()
    assert obstacle is not None
    assert "somebody else" in obstacle.seen
    assert "echo 0 > nr_kdamonds" in obstacle.fix
    with pytest.raises(TakenError):
        source.open(TARGET)
    source.shut()
    with pytest.raises(TakenError):
        kdamonds_of(tree).take_down()
    with pytest.raises(TakenError):
        kdamonds_of(tree).set_up(1, least_regions=10, most_regions=20)
    assert tree.writes == []


def test_a_thread_that_somebody_runs_in_our_tree_makes_it_theirs(tree: DamonTree) -> None:
    source = source_of(tree)
    assert source.probe() is None
    source.open(TARGET)
    tree.write(f"{tree.top}/1/contexts/nr_contexts", "1")
    assert kdamonds_of(tree).owner() is Owner.THIS
    tree.write(f"{tree.top}/1/contexts/0/targets/nr_targets", "1")
    tree.write(f"{tree.top}/1/contexts/0/targets/0/pid_target", str(OTHER.pid))
    tree.write(f"{tree.top}/1/state", "on")
    assert kdamonds_of(tree).owner() is Owner.OTHER


def test_a_tree_that_somebody_takes_while_all_threads_rest_is_theirs(tree: DamonTree) -> None:
    clock = FakeClock()
    source = source_of(tree, clock)
    assert source.probe() is None
    source.open(TARGET)
    tree.write(f"{tree.top}/0/state", "off")
    set_up_a_foreign_one(tree)
    clock.time += 1.0
    with pytest.raises(TakenError):
        source.read(TARGET)
    source.close(TARGET)
    source.shut()
    assert tree.writes == []


def test_another_balancerd_that_runs_is_in_the_way_of_a_daemon_and_not_of_the_doctor(tree: DamonTree) -> None:
    tree.add_process(PEER)
    assert source_of(tree, own=PEER).probe() is None
    obstacle = source_of(tree).probe()
    assert obstacle is not None
    assert "another balancerd" in obstacle.seen
    assert find_obstacle(tree.sysfs.parent) is None


def test_more_threads_are_set_up_anew_and_fewer_are_not(tree: DamonTree) -> None:
    source = source_of(tree, slots=2)
    assert source.probe() is None
    assert source.probe() is None
    assert [text for path, text in tree.writes if path == "nr_kdamonds"] == ["2"]
    source.slots = 3
    assert source.probe() is None
    assert kdamonds_of(tree).count() == 3


def test_for_an_instant_the_tree_is_busy(tree: DamonTree) -> None:
    tree.busy = 10
    assert source_of(tree).probe() is None
    tree.busy = 1000
    with pytest.raises(OSError, match="busy") as caught:
        source_of(tree).open(TARGET)
    assert caught.value.errno == errno.EBUSY


def test_a_kernel_without_damon_and_one_whose_damon_cannot_watch_processes(tmp_path: Path) -> None:
    obstacle = find_obstacle(tmp_path)
    assert obstacle is not None
    assert "CONFIG_DAMON_SYSFS=y" in obstacle.fix
    tree = DamonTree(tmp_path, operations="paddr\n")
    tree.add_process(OWN)
    assert source_of(tree).probe() == NO_VADDR
    assert kdamonds_of(tree).count() == 0


@pytest.mark.parametrize("module", damon_obstacles.ALONE)
def test_modules_that_suffer_nobody_else(tree: DamonTree, module: str) -> None:
    enabled = tree.sysfs / f"module/{module}/parameters/enabled"
    enabled.parent.mkdir(parents=True)
    enabled.write_text("N\n")
    assert source_of(tree).probe() is None
    enabled.write_text("Y\n")
    obstacle = source_of(tree).probe()
    assert obstacle is not None
    assert (module in obstacle.seen, obstacle.fix) == (True, f"echo N > {enabled}")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write every file")
def test_files_that_this_user_may_not_write(tree: DamonTree) -> None:
    (tree.top / "nr_kdamonds").chmod(0o400)
    obstacle = find_tree_obstacle(kdamonds_of(tree), str(tree.sysfs), may_be_peers=True)
    assert obstacle is not None
    assert "CAP_DAC_OVERRIDE" in obstacle.fix


def test_intervals_grow_by_what_a_thread_takes(tree: DamonTree) -> None:
    clock = FakeClock()
    source = source_of(tree, clock, slots=1, budget=0.01)
    assert source.probe() is None
    source.open(TARGET)
    clock.time += 1.0
    window = source.read(TARGET)
    assert window is not None
    assert window.cpu_ratio is None
    tree.run(0, 20 * os.sysconf("SC_CLK_TCK") // 100)  # 0.2 s
    clock.time += RATE_SECONDS + 4.0
    window = source.read(TARGET)
    assert window is not None
    assert window.cpu_ratio == pytest.approx(0.01)
    tree.run(0, 60 * os.sysconf("SC_CLK_TCK") // 100)
    clock.time += 20.0
    assert source.read(TARGET) is not None  # 3 %: four times as long
    assert (tree.top / "0/contexts/0/monitoring_attrs/intervals/sample_us").read_text() == "20000\n"
    assert tree.threads[0].ticks == 0  # it has begun anew
    clock.time += 3.9
    assert source.read(TARGET) is None
    clock.time += 2.0
    window = source.read(TARGET)
    assert window is not None
    assert window.seconds == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("factor", "cpu_ratio", "allowed", "chosen"),
    [
        (1, 0.01, 0.01, 1),
        (1, 0.011, 0.01, 2),
        (1, 0.05, 0.01, 8),
        (2, 0.05, 0.01, 16),
        (8, 9.0, 0.01, MOST_FACTOR),
        (8, 0.003, 0.01, 8),
        (8, 0.002, 0.01, 4),
        (8, 0.0, 0.01, 1),
        (1, 0.0, 0.01, 1),
    ],
)
def test_by_how_much_intervals_are_longer(factor: int, cpu_ratio: float, allowed: float, chosen: int) -> None:
    assert choose_factor(factor, cpu_ratio, allowed) == chosen


def test_intervals_keep_their_proportions() -> None:
    assert Intervals().times(4) == Intervals(sample_us=20_000, aggregation_us=400_000, update_us=20_000_000)


@pytest.mark.parametrize("text", ["", "-1", "0x10", "1 2", "²", "on"])
def test_what_is_no_number(text: str) -> None:
    with pytest.raises(ParseError, match="not a number"):
        parse_number(text, "start")


def test_a_region_that_ends_before_it_begins_is_told_with_its_path(tree: DamonTree) -> None:
    tree.regions = (Region(start=0x5000, end=0x5000, accesses=0, age=0),)
    clock = FakeClock()
    source = source_of(tree, clock)
    assert source.probe() is None
    source.open(TARGET)
    clock.time += 1.0
    with pytest.raises(ParseError, match="tried_regions/0"):
        source.read(TARGET)


def test_on_this_machine_looking_for_obstacles_changes_nothing() -> None:
    count = Path("/sys") / TREE / "nr_kdamonds"
    before = count.read_text() if count.exists() else None
    obstacle = find_obstacle()
    assert obstacle is None or (obstacle.seen and obstacle.fix)
    assert (count.read_text() if count.exists() else None) == before
