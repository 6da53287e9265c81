"""Pages chosen by chance, against mappings of which every page's state is known.

One range of one page each, at addresses where nothing is mapped, shows which pages were asked for.
"""

import errno
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancerd.native import Tally, VmaTable, parse_maps, sample
from tests.unit.native.memory import (
    PAGE,
    address_of,
    child,
    map_pages,
    needs_root,
    node_count,
    touch,
    without_privileges,
)

NODES = node_count()
NOWHERE = 0x100000


def table(*ranges: tuple[int, int], name: str = "") -> VmaTable:
    return parse_maps("".join(f"{a:x}-{b:x} rw-p 00000000 00:00 0 {name}\n" for a, b in ranges).encode())


def single_pages(count: int) -> VmaTable:
    return table(*((NOWHERE + 2 * i * PAGE, NOWHERE + (2 * i + 1) * PAGE) for i in range(count)))


def ask(vmas: VmaTable, questions: int, *, seed: int = 1, pid: int | None = None, n_nodes: int = NODES) -> Tally:
    strata = [stratum.index for stratum in vmas.strata()]
    found = sample(pid or os.getpid(), vmas, n_nodes=n_nodes, strata=strata, questions=questions, seed=seed)
    assert sum(sum(row.on_node) + row.absent + row.other for row in found.rows) == found.asked_units
    assert sum(found.on_node) == found.present_units
    assert all(lone <= pairs for lone, pairs in zip(found.lone_pairs, found.differing_pairs, strict=True))
    return found


def asked(found: Tally) -> list[int]:
    """Which of single_pages() were asked for."""
    return [row.vma for row in found.rows]


def test_as_many_questions_as_pages_ask_for_every_one() -> None:
    area = map_pages(100)
    touch(area, 0, 40)
    assert area[40 * PAGE] + area[41 * PAGE] == 0  # reading maps the zero page
    start = address_of(area)
    found = ask(table((start, start + 50 * PAGE), (start + 50 * PAGE, start + 100 * PAGE)), 100)
    assert (found.asked_units, found.present_units, found.units) == (100, 40, 100)
    assert [(row.vma, sum(row.on_node), row.absent, row.other) for row in found.rows] == [(0, 40, 8, 2), (1, 0, 50, 0)]
    assert sum(found.differing_pairs) == sum(found.lone_pairs) == 0


@given(total=st.integers(3, 300), data=st.data(), seed=st.integers(0, 2**64 - 1))
def test_two_pages_are_asked_for_in_each_cell(total: int, data: st.DataObject, seed: int) -> None:
    questions = data.draw(st.integers(2, total - 1))
    cells = questions // 2
    pages = asked(ask(single_pages(total), questions, seed=seed))
    assert len(set(pages)) == len(pages) == 2 * cells

    def is_start(shift: int) -> bool:
        inside = [0] * cells
        for page in pages:
            number = (page - shift) % total
            cell = number * cells // total
            inside[cell + (number >= (cell + 1) * total // cells)] += 1
        return set(inside) == {2}

    assert any(map(is_start, range(total)))


@pytest.mark.parametrize(("total", "questions"), [(50, 6), (5, 4), (7, 6)])
def test_every_page_is_as_likely_as_any_other(total: int, questions: int) -> None:
    pages = single_pages(total)
    hits = [0] * total
    for seed in range(4000):
        for page in asked(ask(pages, questions, seed=seed)):
            hits[page] += 1
    deviation = (4000 * questions / total * (1 - questions / total)) ** 0.5
    assert all(abs(n - 4000 * questions / total) < 5 * deviation for n in hits)


def test_every_pair_within_a_cell_is_as_likely_as_any_other() -> None:
    pages = single_pages(6)
    pairs: dict[tuple[int, ...], int] = {}
    for seed in range(6000):
        pair = tuple(sorted(asked(ask(pages, 2, seed=seed))))
        pairs[pair] = pairs.get(pair, 0) + 1
    assert len(pairs) == 15
    assert all(abs(n - 400) < 5 * 20 for n in pairs.values())


def test_the_same_seed_asks_for_the_same_pages() -> None:
    pages = single_pages(1000)
    assert asked(ask(pages, 64, seed=7)) == asked(ask(pages, 64, seed=7)) != asked(ask(pages, 64, seed=8))


@pytest.mark.parametrize(
    ("period", "present", "low", "high"), [(1, 2000, 0, 0), (2, 1000, 500, 612), (4000, 1200, 0, 5)]
)
def test_the_pairs_that_differ_tell_how_mixed_the_pages_are(period: int, present: int, low: int, high: int) -> None:
    area = map_pages(10_000)
    for page in range(10_000):
        if page % period < max(1, period // 2):
            touch(area, page, page + 1)
    start = address_of(area)
    found = ask(table((start, start + 10_000 * PAGE)), 2000)
    assert low <= sum(found.differing_pairs) <= high, "of 1000 pairs in cells of 10 pages"
    assert found.lone_pairs == found.differing_pairs, "the other page is on no node at all"
    assert found.present_units == pytest.approx(present, abs=60)


def test_only_the_strata_named_are_asked() -> None:
    vmas = table((NOWHERE, NOWHERE + PAGE), (2 * NOWHERE, 2 * NOWHERE + 100 * PAGE))
    found = sample(os.getpid(), vmas, n_nodes=1, strata=[1], questions=10, seed=3)
    assert {row.vma for row in found.rows} == {1}
    assert (found.asked_units, found.units) == (10, 100)
    assert sample(os.getpid(), vmas, n_nodes=1, strata=[5], questions=10, seed=3).units == 0
    assert sample(os.getpid(), vmas, n_nodes=1, strata=[], questions=10, seed=3).rows == ()


def test_a_hugetlb_page_is_one_question() -> None:
    text = b"40000000-41000000 rw-p 00000000 00:11 4  /anon_hugepage (deleted)\n"
    vmas = parse_maps(text, huge_bytes=2 << 20)
    found = ask(vmas, 100)
    assert (found.asked_units, found.units) == (8, 8)
    mixed = parse_maps(text + b"50000000-50001000 rw-p 00000000 00:00 0 \n", huge_bytes=2 << 20)
    with pytest.raises(OSError, match="Invalid argument"):
        ask(mixed, 100)


def test_pages_of_a_child_are_asked_over_several_calls() -> None:
    with child(pages=20_000, touched=15_000) as other:
        vmas = table((other.start, other.end))
        found = ask(vmas, 10_000, pid=other.process.pid)
        every = ask(vmas, 20_000, pid=other.process.pid)
    assert every.present_units == 15_000
    assert found.present_units == pytest.approx(7_500, abs=10)
    assert (found.asked_units, len(found.rows)) == (10_000, 1 if found.rows[0] == found.rows[-1] else 2)


def test_a_node_beyond_those_asked_for_is_among_the_others() -> None:
    area = map_pages(4)
    touch(area, 0, 4)
    found = ask(table((address_of(area), address_of(area) + 4 * PAGE)), 4, n_nodes=0)
    assert (found.present_units, [row.other for row in found.rows]) == (0, [4])


def test_a_hundred_tebibytes_are_asked_as_quickly_as_anything() -> None:
    found = ask(table((0, 1 << 47)), 2048)
    assert (found.asked_units, found.units) == (2048, 1 << 35)


def test_arguments_out_of_bounds_are_refused() -> None:
    vmas = single_pages(3)
    for pid, n_nodes in ((0, 1), (os.getpid(), 1025)):
        with pytest.raises(OSError, match="Invalid argument"):
            sample(pid, vmas, n_nodes=n_nodes, strata=[0], questions=2, seed=0)


def test_a_process_that_is_gone_is_told_by_its_pid() -> None:
    with child(pages=1, touched=1) as other:
        pid, vmas = other.process.pid, table((other.start, other.end))
    with pytest.raises(ProcessLookupError, match=f"process {pid}"):
        ask(vmas, 1, pid=pid)


@needs_root
def test_a_process_of_another_user_is_refused_without_privileges() -> None:
    def attempt(pid: int, vmas: VmaTable) -> int | None:
        try:
            ask(vmas, 1, pid=pid)
        except PermissionError as error:
            return error.errno
        return None

    with child(pages=1, touched=1) as other:
        vmas = table((other.start, other.end))
        assert without_privileges(lambda: attempt(other.process.pid, vmas)) == errno.EPERM
