import pytest

from balancerd.kernel.errors import ParseError
from balancerd.kernel.machine.zones import (
    Watermarks,
    parse_buddyinfo,
    parse_zoneinfo,
    read_free_blocks,
    read_high_watermarks,
    read_watermarks,
)
from tests.unit.kernel.trees import MACHINES

PAGE = 4096
ZONEINFO = b"""\
Node 0, zone      DMA
  per-node stats
      nr_inactive_anon 2225
  pages free     2814
        boost    0
        min      18
        low      22
        high     26
        spanned  4095
  pagesets
    cpu: 0
              count:    0
              high:     14
              batch:    1
              high_min: 14
              high_max: 1000
Node 0, zone   Normal
  pages free     99999
        min      600
        low      800
        high     1000
Node 3, zone   Normal
  pages free     99999
        min      300
        low      400
        high     500
Node 3, zone  Movable
  pages free     0
        min      0
        low      0
        high     0
"""
"""Composed in the format of the captures: two nodes, one of them with two zones."""


def marks(low: int, mid: int, high: int) -> Watermarks:
    return Watermarks(min_bytes=low * PAGE, low_bytes=mid * PAGE, high_bytes=high * PAGE)


def test_watermarks_are_summed_over_the_zones_of_a_node_and_page_lists_are_not_taken_for_them() -> None:
    assert parse_zoneinfo(ZONEINFO, "zoneinfo") == {0: marks(618, 822, 1026), 3: marks(300, 400, 500)}


def test_the_captured_zoneinfo_has_rising_watermarks_for_each_node() -> None:
    found = read_watermarks(str(MACHINES / "sparse-nodes-6.12/proc"))
    assert set(found) == {0, 2, 5}
    for of_node in found.values():
        assert 1 << 20 < of_node.min_bytes < of_node.low_bytes < of_node.high_bytes < 64 << 20


def test_the_captured_zoneinfo_gives_the_sum_of_its_bare_lines() -> None:
    path = MACHINES / "one-node-6.18/proc"
    lines = [line.split() for line in (path / "zoneinfo").read_text().splitlines()]
    sums = [sum(int(w[1]) for w in lines if len(w) == 2 and w[0] == name) for name in ("min", "low", "high")]
    assert min(sums) > 0
    assert read_watermarks(str(path)) == {0: marks(*sums)}
    assert read_high_watermarks(path) == {0: sums[2] * PAGE}


@pytest.mark.parametrize("line", ["   high many", "   min 1 2", "   low -"])
def test_a_watermark_that_is_no_number_names_its_line(line: str) -> None:
    with pytest.raises(ParseError, match=r"^zoneinfo:3: "):
        parse_zoneinfo(f"Node 0, zone DMA\n  pages free 1\n{line}\n".encode(), "zoneinfo")


def test_the_free_blocks_of_a_machine_are_read_as_the_kernel_writes_them() -> None:
    free = read_free_blocks(str(MACHINES / "four-nodes-6.12/proc"))
    assert free is not None
    assert {int(node): blocks for node, blocks in free.items()}[0] == (4, 3, 3, 2, 4, 1, 0, 2, 1, 1, 236)
    assert [blocks[9:] for blocks in free.values()][3] == (1, 240)


def test_free_blocks_are_those_of_zones_that_memory_of_processes_lies_in() -> None:
    text = b"Node 0, zone DMA 1 2\nNode 0, zone DMA32 10 20\nNode 0, zone Normal 100 200\nNode 4, zone Device 1 1\n"
    assert parse_buddyinfo(text, "b") == {0: (110, 220), 4: (0, 0)}


@pytest.mark.parametrize("text", [b"Node x, zone Normal 1 2", b"Node 0, zone", b"Node 0, zone Normal 1 b"])
def test_another_text_tells_no_free_blocks(text: bytes) -> None:
    with pytest.raises(ParseError, match="b:1: not the free blocks"):
        parse_buddyinfo(text, "b")


def test_without_the_file_free_blocks_are_not_known() -> None:
    assert read_free_blocks(str(MACHINES / "one-node-6.18/proc")) is None
