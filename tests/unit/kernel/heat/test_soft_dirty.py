"""Heat by soft-dirty bits: what entries of pagemap say, how much is looked at, and what marks may cost."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from balancerd.kernel.errors import ParseError, ProcessGoneError
from balancerd.kernel.heat.soft_dirty import (
    ENTRY_BYTES,
    LARGEST_BYTES,
    LEAST_SECONDS,
    LOOK_SECONDS,
    MARK,
    MOST_LOCK_SECONDS,
    SoftDirtyHeat,
    count_written,
    find_obstacle,
    joined_regions,
    pick_regions,
)
from balancerd.model.access import REGION_BYTES
from balancerd.model.heat import HeatMethod, HeatRegion
from balancerd.model.ids import ProcessId
from balancerd.model.sample import PAGE_BYTES
from tests.unit.fakes import FakeClock
from tests.unit.kernel.trees import MACHINES, write_tree

PROCESS = ProcessId(7, 99)
START = 0x10000000
REGION_PAGES = REGION_BYTES // PAGE_BYTES

# pagemap.rst: bit 63 present, 62 swapped, 61 file or shared, 56 exclusively mapped, 55 soft-dirty
PRESENT, SWAPPED, EXCLUSIVE, WRITTEN = 1 << 63, 1 << 62, 1 << 56, 1 << 55
LIMITS = "Limit                     Soft Limit           Hard Limit           Units     \n"
STACK = "Max stack size            8388608              unlimited            bytes     \n"


def entries(*values: int) -> bytes:
    return b"".join(value.to_bytes(ENTRY_BYTES, "little") for value in values)


class Tree:
    """A /proc with one process: a mapping of some regions, of each of which the first pages were written."""

    def __init__(self, root: Path, written: Sequence[int]) -> None:
        self.root = root
        end = START + len(written) * REGION_BYTES
        stat = f"{PROCESS.pid} (x) S {' '.join(['0'] * 18)} {PROCESS.start_ticks} {' '.join(['0'] * 30)}\n"
        write_tree(
            root,
            {
                "self/mountinfo": "",
                "7/stat": stat,
                "7/statm": "4096 1024 100 0 0 0 0\n",
                "7/maps": f"{START:x}-{end:x} rw-p 00000000 00:00 0 \n",
                "7/limits": LIMITS + STACK,
                "7/clear_refs": "",
            },
        )
        self.write_pages(written)

    def write_pages(self, written: Sequence[int]) -> None:
        with (self.root / "7/pagemap").open("wb") as file:
            file.seek(START // PAGE_BYTES * ENTRY_BYTES)
            for n in written:
                file.write(entries(*[PRESENT | WRITTEN] * n, *[PRESENT] * (REGION_PAGES - n)))

    def marks(self) -> int:
        """How often the process was marked since this was asked last."""
        path = self.root / "7/clear_refs"
        text = path.read_text()
        path.write_text("")
        assert set(text) <= set(MARK)
        return len(text)


def source_of(tree: Tree, clock: FakeClock, *, budget: float = 0.01) -> SoftDirtyHeat:
    return SoftDirtyHeat(clock, budget_ratio=budget, procfs=str(tree.root))


@pytest.mark.parametrize(
    ("values", "written"),
    [
        ((), 0),
        ((PRESENT | WRITTEN,), 1),
        ((PRESENT, WRITTEN, SWAPPED | WRITTEN, 0), 0),
        ((PRESENT | WRITTEN | EXCLUSIVE, PRESENT | EXCLUSIVE, PRESENT | WRITTEN), 2),
        ((PRESENT | ((1 << 55) - 1), WRITTEN | ((1 << 55) - 1)), 0),
        ((PRESENT | WRITTEN,) * 512, 512),
    ],
)
def test_present_pages_that_were_written_are_counted(values: tuple[int, ...], written: int) -> None:
    assert count_written(entries(*values)) == written


@pytest.mark.parametrize(("name", "written"), [("pagemap-written", 24), ("pagemap-not-written", 0)])
def test_captured_entries_of_a_hot_and_a_cold_part(name: str, written: int) -> None:
    captured = (MACHINES / "damon-6.12" / name).read_bytes()
    assert (len(captured), count_written(captured)) == (24 * ENTRY_BYTES, written)


def test_regions_are_told_by_the_share_of_their_pages_and_equal_neighbours_as_one(tmp_path: Path) -> None:
    tree, clock = Tree(tmp_path, [512, 512, 128, 0, 0]), FakeClock()
    source = source_of(tree, clock)
    source.open(PROCESS)
    assert source.read(PROCESS) is None
    assert tree.marks() == 1
    clock.time += LOOK_SECONDS / 2
    assert source.read(PROCESS) is None
    clock.time += LOOK_SECONDS / 2
    window = source.read(PROCESS)
    assert window is not None
    assert (window.method, window.process, window.seconds) == (HeatMethod.SOFT_DIRTY, PROCESS, LOOK_SECONDS)
    assert [((r.start - START) / REGION_BYTES, (r.end - START) / REGION_BYTES, r.ratio) for r in window.regions] == [
        (0, 2, 1.0),
        (2, 3, 0.25),
        (3, 5, 0.0),
    ]
    assert tree.marks() == 0


@pytest.mark.parametrize(
    ("written", "rest_seconds"),
    [([0], LEAST_SECONDS), ([512] * 4, LEAST_SECONDS), ([512] * 400, 400 * 512 * 1e-6 / 0.01)],
)
def test_after_a_look_a_process_rests_the_longer_the_more_it_wrote(
    tmp_path: Path, written: list[int], rest_seconds: float
) -> None:
    tree, clock = Tree(tmp_path, written), FakeClock()
    source = source_of(tree, clock)
    source.open(PROCESS)
    source.read(PROCESS)
    clock.time += LOOK_SECONDS
    window = source.read(PROCESS)
    assert window is not None
    assert window.cpu_ratio is not None
    assert window.cpu_ratio <= 0.01 + 1e-9
    assert tree.marks() == 1
    clock.time += rest_seconds - 0.01
    assert source.read(PROCESS) is None
    assert tree.marks() == 0
    clock.time += 0.02
    assert source.read(PROCESS) is None
    assert tree.marks() == 1


def test_one_that_is_too_large_is_not_marked(tmp_path: Path) -> None:
    tree = Tree(tmp_path, [0])
    (tmp_path / "7/statm").write_text(f"0 {LARGEST_BYTES // PAGE_BYTES + 1} 0 0 0 0 0\n")
    with pytest.raises(LookupError, match="8 GiB are too much"):
        source_of(tree, FakeClock()).open(PROCESS)
    (tmp_path / "7/statm").write_text("x\n")
    with pytest.raises(ParseError):
        source_of(tree, FakeClock()).open(PROCESS)
    assert tree.marks() == 0


def test_one_whose_mark_took_too_long_is_not_marked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree, clock = Tree(tmp_path, [0]), FakeClock()

    def slowly(path: str, text: str) -> None:
        del path, text
        clock.time += 2 * MOST_LOCK_SECONDS

    monkeypatch.setattr("balancerd.kernel.heat.soft_dirty.write_file", slowly)
    source = source_of(tree, clock)
    source.open(PROCESS)
    assert source.read(PROCESS) is None
    clock.time += LOOK_SECONDS
    assert source.read(PROCESS) is not None
    clock.time += 2 * LEAST_SECONDS
    with pytest.raises(LookupError, match="took 100 ms"):
        source.read(PROCESS)


@pytest.mark.parametrize("name", ["pagemap", "clear_refs", "maps"])
def test_a_process_that_ends_between_two_files(tmp_path: Path, name: str) -> None:
    tree, clock = Tree(tmp_path, [0]), FakeClock()
    (tmp_path / "7" / name).unlink()
    source = source_of(tree, clock)
    source.open(PROCESS)
    if name != "clear_refs":
        source.read(PROCESS)
        clock.time += LOOK_SECONDS
    with pytest.raises(ProcessGoneError):
        source.read(PROCESS)


def test_a_pagemap_that_ends_is_that_of_a_process_that_did(tmp_path: Path) -> None:
    tree, clock = Tree(tmp_path, [0, 0]), FakeClock()
    source = source_of(tree, clock)
    source.open(PROCESS)
    source.read(PROCESS)
    tree.write_pages([0])
    clock.time += LOOK_SECONDS
    with pytest.raises(ProcessGoneError):
        source.read(PROCESS)


def test_another_process_with_its_pid_and_one_that_is_closed(tmp_path: Path) -> None:
    source = source_of(Tree(tmp_path, [0]), FakeClock())
    with pytest.raises(ProcessGoneError):
        source.open(ProcessId(PROCESS.pid, 1))
    source.open(PROCESS)
    source.close(PROCESS)
    source.close(PROCESS)
    with pytest.raises(KeyError):
        source.read(PROCESS)


R = REGION_BYTES


@pytest.mark.parametrize(
    ("ranges", "most", "picked"),
    [
        ([(0, 2 * R)], 8, [(0, R, R), (R, 2 * R, 2 * R)]),
        ([(R // 2, 2 * R)], 8, [(R // 2, R, R), (R, 2 * R, 2 * R)]),
        ([(0, R // 4)], 8, [(0, R // 4, R // 4)]),
        ([(0, 5 * R)], 2, [(0, R, 3 * R), (3 * R, 4 * R, 5 * R)]),
        ([(0, R), (8 * R, 9 * R)], 1, [(0, R, R), (8 * R, 9 * R, 9 * R)]),
        ([], 8, []),
    ],
)
def test_of_very_many_regions_some_stand_for_their_neighbours(
    ranges: list[tuple[int, int]], most: int, picked: list[tuple[int, int, int]]
) -> None:
    assert list(pick_regions(ranges, most)) == picked


def test_neighbours_are_joined_and_gaps_are_kept() -> None:
    assert joined_regions([(0, 1, 0.5), (1, 2, 0.5), (3, 4, 0.5), (4, 5, 0.25)]) == (
        HeatRegion(start=0, end=2, ratio=0.5),
        HeatRegion(start=3, end=4, ratio=0.5),
        HeatRegion(start=4, end=5, ratio=0.25),
    )


def test_on_this_machine_it_works_or_the_fix_is_told() -> None:
    obstacle = find_obstacle()
    assert obstacle is None or (obstacle.seen and obstacle.fix)


def test_without_a_pagemap_there_is_an_obstacle(tmp_path: Path) -> None:
    obstacle = find_obstacle(tmp_path)
    assert obstacle is not None
    assert "cannot be told" in obstacle.seen
