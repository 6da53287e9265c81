"""Mappings and their strata, against lines of which everything is known; their kinds: kernel/placement/test_maps."""

import time

import pytest

from balancerd.native import VMA_KINDS, Device, MalformedTextError, VmaRow, VmaTable, parse_maps

MIB = 1 << 20


def line(start_page: int, pages: int, rest: str = "rw-p 00000000 00:00 0 ") -> str:
    return f"{start_page << 12:x}-{(start_page + pages) << 12:x} {rest}\n"


def rows(table: VmaTable) -> list[VmaRow]:
    return [table.row(i) for i in range(len(table))]


def test_every_mapping_of_a_file_with_an_executable_one_is_of_a_program_but_for_its_variables() -> None:
    text = (
        line(16, 1, "r--p 00000000 fe:00 7  /lib/a.so")
        + line(17, 1, "r-xp 00001000 fe:00 7  /lib/a.so")
        + line(23, 1, "rw-p 00002000 fe:00 7  /lib/a.so")
        + line(24, 1, "rwxp 00003000 fe:00 7  /lib/a.so")
        + line(18, 1, "rw-p 00002000 fe:00 8  /data")
        + line(19, 1, "r--p 00002000 fe:01 7  /another/disk")
        + line(20, 1, "rwxp 00000000 00:00 0 ")
        + line(21, 1, "rw-s 00000000 fe:00 9  /lib/b.so (deleted)")
        + line(22, 1, "r-xp 00000000 fe:00 9  /lib/b.so (deleted)")
    )
    found = [row.is_program for row in rows(parse_maps(text.encode()))]
    assert found == [True, True, False, True, False, False, False, True, True]


def test_what_a_small_mapping_without_permissions_ends_at_is_guarded() -> None:
    none = "---p 00000000 00:00 0 "
    text = (
        line(16, 1, none)
        + line(17, 256)
        + line(273, 16)
        + line(289, 17, none)  # a reservation, such as the rest of an arena
        + line(306, 4)
        + line(310, 16, none)
        + line(400, 4)
        + line(500, 16, none)
        + line(516, 4)
    )
    found = rows(parse_maps(text.encode()))
    assert [row.start >> 12 for row in found if row.is_guarded] == [17, 516]


@pytest.mark.parametrize(
    ("pages", "stratum"), [(1, 0), (31, 0), (32, 1), (2047, 1), (2048, 2), (1 << 17, 3), (1 << 35, 6), (1 << 44, 7)]
)
def test_mappings_of_about_the_same_size_share_a_stratum(pages: int, stratum: int) -> None:
    (row,) = rows(table := parse_maps(line(1, pages).encode()))
    assert row.stratum == stratum
    ((index, units, unit_bytes),) = ((s.index, s.units, s.unit_bytes) for s in table.strata())
    assert (index, units, unit_bytes) == (stratum, pages, 4096)


def test_hugetlb_pages_have_strata_by_their_size() -> None:
    huge = "rw-s 00000000 00:30 9  /huge/x"
    gigantic = "rw-s 00000000 00:31 9  /gigantic/x"
    unknown = "rw-p 00000000 00:11 4  /anon_hugepage (deleted)"
    kind = VMA_KINDS.index("hugetlb")
    devices = [Device(device=0x30, kind=kind, page_bytes=2 * MIB), Device(device=0x31, kind=kind, page_bytes=1 << 30)]
    text = line(1 << 18, 1024, huge) + line(2 << 18, 2 << 18, gigantic) + line(4 << 18, 512, unknown)
    table = parse_maps(text.encode(), devices, huge_bytes=2 * MIB)
    assert [(s.units, s.unit_bytes) for s in table.strata()] == [(3, 2 * MIB), (2, 1 << 30)]
    assert len({row.stratum for row in rows(table)}) == 2


def test_hugetlb_pages_of_unknown_size_are_asked_as_base_pages() -> None:
    text = line(1 << 18, 512, "rw-p 00000000 00:11 4  /anon_hugepage (deleted)")
    assert [s.unit_bytes for s in parse_maps(text.encode()).strata()] == [4096]


def test_pages_of_the_kernel_have_no_stratum() -> None:
    text = (
        line(1, 2, "r-xp 00000000 00:00 0  [vdso]")
        + "ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0  [vsyscall]"
    )
    table = parse_maps(text.encode())
    assert [row.stratum for row in rows(table)] == [None, None]
    assert table.strata() == ()


def test_a_row_beyond_the_last_does_not_exist() -> None:
    table = parse_maps(line(1, 1).encode())
    with pytest.raises(IndexError):
        table.row(1)
    with pytest.raises(IndexError):
        table.row(-1)


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        "1000-2000",
        "1000-2000 rw-p",
        "1000-2000 rw-p 0 00:00",
        "1000-2000 rw-p 0 00:00 x",
        "1000-2000 rw-p 0 0000 0",
        "1000-2000 rw-pp 0 00:00 0",
        "1000-1000 rw-p 0 00:00 0",
        "-2000 rw-p 0 00:00 0",
        "123456789012345678901-2 rw-p 0 00:00 0",
        "1000-2000 rw-p 0 00:00 0x",
    ],
)
def test_text_that_is_no_mapping_is_told_by_its_line(text: str) -> None:
    for end in ("", "\n", "\n" + line(9, 9)):
        with pytest.raises(MalformedTextError) as caught:
            parse_maps((line(1, 1) + "\n" + text + end).encode())
        assert caught.value.line_number == 3


def test_sixty_thousand_mappings_take_no_time_worth_mentioning() -> None:
    text = "".join(line(2 * i, 1) for i in range(1, 60_001)).encode()
    began = time.process_time()
    assert len(parse_maps(text)) == 60_000
    assert time.process_time() - began < 0.1
