from balancerd.kernel.placement.confidence import Part
from balancerd.kernel.placement.numa_maps import VmaPolicy, parse_mempolicy
from balancerd.kernel.placement.placing import place
from balancerd.model.sample import VmaKind
from balancerd.native import VmaTable, parse_maps
from balancerd.native.records import Tally, VmaTally

TABLE = b"""\
1000-9000 rw-p 00000000 00:00 0
10000-20000 rw-s 00000000 00:01 9  /memfd:x (deleted)
30000-38000 rw-p 00000000 00:00 0  [heap]
7f000-80000 r-xp 00000000 00:00 0  [vdso]
"""


def table() -> VmaTable:
    return parse_maps(TABLE)


def make_part(scale: float, *rows: tuple[int, tuple[int, int], int, int]) -> Part:
    tally = Tally(
        asked_units=0,
        present_units=0,
        units=0,
        on_node=(0, 0),
        differing_pairs=(0, 0),
        lone_pairs=(0, 0),
        rows=tuple(VmaTally(vma=vma, on_node=on, absent=absent, other=other) for vma, on, absent, other in rows),
        seconds=0.0,
    )
    return Part(strata=(0,), tally=tally, scale=scale)


def test_mappings_in_which_no_page_was_found_are_not_listed() -> None:
    placed = place(table(), [make_part(2.0, (2, (0, 3), 1, 0), (0, (0, 0), 4, 1))], {})
    assert [(p.vma.start, p.pages_by_node, p.absent_pages, p.found_pages) for p in placed] == [
        (0x30000, {1: 6.0}, 2.0, 3)
    ]


def test_a_complete_placement_lists_all_but_the_kernels_own() -> None:
    placed = place(table(), [make_part(2.0, (2, (0, 3), 1, 0), (0, (0, 0), 2, 1))], {}, complete=True)
    assert [p.vma.start for p in placed] == [0x1000, 0x10000, 0x30000]
    assert [p.absent_pages for p in placed] == [6.0, 0.0, 2.0]
    assert [p.found_pages for p in placed] == [0, 0, 3]


def test_answers_of_several_parts_and_rows_add_up_nodes_ascending() -> None:
    parts = [make_part(1.0, (0, (0, 2), 0, 0)), make_part(10.0, (0, (1, 0), 0, 3), (0, (2, 2), 0, 0))]
    (placed,) = place(table(), parts, {})
    assert (placed.pages_by_node, placed.absent_pages, placed.found_pages) == ({0: 30.0, 1: 22.0}, 30.0, 7)
    assert list(placed.pages_by_node) == [0, 1]


def test_of_what_was_counted_the_rest_is_absent() -> None:
    placed = place(table(), [make_part(1.0, (0, (5, 1), 0, 0))], {}, is_counted=True, complete=True)
    assert [p.absent_pages for p in placed] == [2.0, 16.0, 8.0]


def test_what_numa_maps_said_is_added_by_the_start_of_a_mapping() -> None:
    policy = VmaPolicy(mempolicy=parse_mempolicy(b"bind:1"), hugetlb=True, page_bytes=2 << 20, exclusive=True)
    placed = place(table(), [], {0x10000: policy, 0x999: policy}, complete=True)
    assert [(p.vma.kind, p.vma.page_bytes) for p in placed] == [
        (VmaKind.ANON, None),
        (VmaKind.HUGETLB, 2 << 20),
        (VmaKind.HEAP, None),
    ]
    assert placed[1].vma.mempolicy == policy.mempolicy
    assert [p.vma.exclusive for p in placed] == [False, True, False]
