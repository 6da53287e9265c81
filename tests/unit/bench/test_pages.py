"""Where pages are before and after, and what that makes of a count of moves."""

import ctypes
import mmap
import os
import subprocess
from array import array
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from balancerd.kernel.errors import ParseError
from tests.bench.locality import pages
from tests.bench.locality.pages import PageAccount, Placed, Span
from tests.unit.kernel.trees import MACHINES

MAPS = MACHINES / "four-nodes-6.12/proc/exhibit/maps"
ENOENT, EFAULT = -2, -14


def placed(*nodes: int, start: int = 0x1000) -> Placed:
    span = Span(pid=7, start=start, end=start + len(nodes) * pages.PAGE_BYTES)
    return Placed(span=span, nodes=array("h", nodes))


@pytest.mark.parametrize(
    ("before", "after", "looked", "kept", "once"),
    [
        ((0, 0, 0), (0, 0, 0), 3, 3, 0),
        ((0, 1, 2), (3, 1, 0), 3, 3, 2),
        ((0, 0, ENOENT), (1, ENOENT, 1), 2, 1, 1),
        ((ENOENT, EFAULT), (1, 2), 0, 0, 0),
        ((0, 0), (ENOENT, EFAULT), 2, 0, 0),
    ],
)
def test_a_page_moved_when_it_was_there_both_times_on_different_nodes(
    before: tuple[int, ...], after: tuple[int, ...], looked: int, kept: int, once: int
) -> None:
    told = pages.account([placed(*before)], [placed(*after)])
    assert (told.looked_pages, told.kept_pages, told.moved_once_pages) == (looked, kept, once)
    assert told.before_by_node == Counter(node for node in before if node >= 0)
    assert told.after_by_node == Counter(node for node in after if node >= 0)


def test_spans_are_compared_with_themselves_and_what_ended_is_not_kept() -> None:
    first, second = placed(0, 0, start=0x1000), placed(1, 1, 1, start=0x9000)
    told = pages.account([first, second], [placed(2, 1, 1, start=0x9000)])
    assert (told.looked_pages, told.kept_pages, told.moved_once_pages) == (5, 3, 1)
    assert told.after_by_node == Counter({1: 2, 2: 1})


@pytest.mark.parametrize(
    ("once", "migrated", "twice"), [(100, 100, 0), (100, 150, 50), (100, 90, 0), (0, 512, 512), (0, 0, 0)]
)
def test_what_moved_more_often_than_pages_are_elsewhere_moved_twice(once: int, migrated: int, twice: int) -> None:
    told = PageAccount(
        looked_pages=200,
        kept_pages=200,
        moved_once_pages=once,
        before_by_node=Counter({0: 200}),
        after_by_node=Counter({0: 200 - once, 1: once}),
    )
    found = pages.moved_bytes(told, migrated)
    assert found == {
        "moved_bytes": migrated * 4096,
        "moved_once_bytes": once * 4096,
        "moved_twice_bytes": twice * 4096,
    }


def test_with_no_page_to_look_at_nobody_knows_what_moved_twice() -> None:
    found = pages.moved_bytes(pages.account([], []), 5)
    assert found == {"moved_bytes": 20480, "moved_once_bytes": None, "moved_twice_bytes": None}


def test_mappings_that_others_may_have_are_told_by_what_they_map() -> None:
    found = pages.parse_maps(7, MAPS.read_text(encoding="utf-8"), str(MAPS))
    by_start = {span.start: origin for span, origin in found}
    assert by_start[0x41F000] == "00:1a 521625 0001f000 2830336"  # the program's text
    assert by_start[0x946000] == ""  # its data, of which each process has a copy
    assert by_start[0x315CC000] == ""  # [heap]
    assert by_start[0x7E2F347F4000] == "00:01 0 00000000 16384"  # System V memory, the first of all: inode 0
    assert by_start[0x7E2F34C00000] == "00:11 2252 00000000 2097152"  # hugetlb, MAP_SHARED
    assert by_start[0x7F2F35007000] == "00:20 2 00000000 16384"
    assert 0x7F2F35027000 not in by_start  # PROT_NONE


def test_what_the_kernel_itself_maps_is_passed_over() -> None:
    text = (
        "7ffd3a0b0000-7ffd3a0d1000 rw-p 00000000 00:00 0                          [stack]\n"
        "7ffd3a141000-7ffd3a145000 r--p 00000000 00:00 0                          [vvar]\n"
        "7ffd3a145000-7ffd3a147000 r-xp 00000000 00:00 0                          [vdso]\n"
    )
    (only,) = pages.parse_maps(7, text, "maps")
    assert only == (Span(pid=7, start=0x7FFD3A0B0000, end=0x7FFD3A0D1000), "")


def test_private_memory_that_nobody_may_write_any_more_is_its_process_s_own() -> None:
    text = "7f2f35003000-7f2f35007000 r--p 00000000 00:00 0 \n"
    assert [origin for _, origin in pages.parse_maps(7, text, "maps")] == [""]


def test_a_line_that_is_no_mapping_is_told_with_its_number() -> None:
    with pytest.raises(ParseError, match=r"^maps:2: not a mapping: '00400000 r--p'"):
        pages.parse_maps(7, "00400000-0041f000 r--p 00000000 00:1a 5 /bin/x\n00400000 r--p\n", "maps")


def test_each_present_page_of_a_process_has_a_node_and_absent_ones_have_none() -> None:
    with mmap.mmap(-1, 64 * 4096, flags=mmap.MAP_PRIVATE) as memory:
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        first = ctypes.c_char.from_buffer(memory)
        start = ctypes.addressof(first)
        del first  # or the mapping cannot be closed
        mine = Span(pid=os.getpid(), start=start, end=start + 64 * 4096)
        assert any(span.start <= mine.start and mine.end <= span.end for span in pages.read_spans([os.getpid()]))
        for at in range(0, 48 * 4096, 4096):
            memory[at] = 1
        (placed,) = pages.locate([mine])
        assert [node >= 0 for node in placed.nodes] == [True] * 48 + [False] * 16
        assert pages.account([placed], [placed]).looked_pages == 48


@contextmanager
def settled() -> Iterator[int]:
    """A process that has mapped all that it is going to map."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("there\n")
        process.stdin.flush()
        assert process.stdout.readline() == "there\n"
        try:
            yield process.pid
        finally:
            process.kill()


def test_two_who_map_the_same_file_have_its_pages_once() -> None:
    with settled() as first, settled() as second:
        alone = pages.read_spans([first])
        both = pages.read_spans([first, second])
    seconds = [span for span in both if span.pid == second]
    assert 0 < len(seconds) < len(alone)
    assert len(both) == len(alone) + len(seconds)


def test_of_a_process_that_has_ended_nothing_is_known() -> None:
    with settled() as pid:
        spans = pages.read_spans([pid])
    assert spans
    assert pages.locate(spans) == ()
    assert pages.read_spans([pid]) == ()
