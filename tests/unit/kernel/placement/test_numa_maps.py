from pathlib import Path

import pytest

from balancerd.kernel.errors import ParseError
from balancerd.kernel.placement.numa_maps import parse_mempolicy, parse_numa_maps
from tests.unit.kernel.trees import MACHINES

CAPTURES = [MACHINES / name / "proc/exhibit" for name in ("one-node-6.18", "four-nodes-6.12")]


@pytest.mark.parametrize(
    ("text", "mode", "nodes", "explicit"),
    [
        ("default", "default", set(), False),
        ("local", "local", set(), False),
        ("bind:0-1", "bind", {0, 1}, True),
        ("bind=static:0", "bind=static", {0}, True),
        ("bind=relative|balancing:0,2", "bind=relative|balancing", {0, 2}, True),
        ("prefer:1", "prefer", {1}, True),
        ("prefer (many):0-1", "prefer (many)", {0, 1}, True),
        ("interleave:0-3", "interleave", {0, 1, 2, 3}, True),
        ("weighted interleave:0-1", "weighted interleave", {0, 1}, True),
        ("prefer=static", "prefer=static", set(), True),
    ],
)
def test_every_form_of_a_policy_is_understood(text: str, mode: str, nodes: set[int], explicit: bool) -> None:
    line = f"7f0000001000 {text} file=/a\\040b anon=1 N0=1 kernelpagesize_kB=4\n"
    (policy,) = parse_numa_maps(line.encode(), "numa_maps").values()
    assert policy.mempolicy.mode == mode
    assert policy.mempolicy.nodes == nodes
    assert policy.mempolicy.explicit is explicit
    assert policy.page_bytes == 4096


@pytest.mark.parametrize(
    ("line", "hugetlb", "page_bytes"),
    [
        ("1000 default\n", False, 4096),
        ("1000 default stack anon=1 dirty=1 N0=1 kernelpagesize_kB=4\n", False, 4096),
        ("1000 default file=/huge\\040file mapped=1 N0=1 kernelpagesize_kB=4\n", False, 4096),
        ("1000 default file=/anon_hugepage\\040(deleted) huge dirty=1 N0=1 kernelpagesize_kB=2048\n", True, 2 << 20),
        ("1000 default file=/dev/hugepages/x huge dirty=1 N1=1 kernelpagesize_kB=1048576\n", True, 1 << 30),
        ("1000 default file=/anon_hugepage\\040(deleted) huge\n", True, None),
    ],
)
def test_the_page_size_is_known_where_the_kernel_tells_it(line: str, hugetlb: bool, page_bytes: int | None) -> None:
    policy = parse_numa_maps(line.encode(), "numa_maps")[0x1000]
    assert (policy.hugetlb, policy.page_bytes) == (hugetlb, page_bytes)


@pytest.mark.parametrize(
    ("fields", "exclusive"),
    [
        ("file=/a mapped=2 active=0 N0=2 kernelpagesize_kB=4", True),
        ("file=/a mapped=2 mapmax=2 active=0 N0=2 kernelpagesize_kB=4", False),
        ("file=/a\\040mapmax=2 mapped=2 active=0 N0=2 kernelpagesize_kB=4", True),
        ("anon=1 dirty=1 mapmax=40 N0=1 kernelpagesize_kB=4", False),
        ("", True),
    ],
)
def test_a_mapping_is_exclusive_when_no_page_of_it_has_a_second_user(fields: str, exclusive: bool) -> None:
    policy = parse_numa_maps(f"1000 default {fields}\n".encode(), "numa_maps")[0x1000]
    assert policy.exclusive is exclusive


def test_a_policy_that_the_kernel_cut_off_keeps_its_whole_numbers() -> None:
    cut = (b"bind:" + b",".join(b"%d" % n for n in range(10, 90, 2)))[:63]
    assert cut.endswith(b",4"), "48 was meant"
    nodes = parse_mempolicy(cut).nodes
    assert nodes == frozenset(range(10, 48, 2))


@pytest.mark.parametrize("exhibit", CAPTURES)
def test_the_captured_numa_maps_shows_the_policies_that_were_set(exhibit: Path) -> None:
    text = (exhibit / "numa_maps").read_bytes()
    policies = parse_numa_maps(text, "numa_maps")
    assert len(policies) == text.count(b"\n")
    modes = {p.mempolicy.mode for p in policies.values()}
    assert modes >= {"bind", "bind=static", "bind=relative", "bind=balancing", "bind=static|balancing"}
    assert modes >= {"default", "local", "prefer", "prefer (many)", "interleave", "weighted interleave"}
    assert [p.page_bytes for p in policies.values() if p.hugetlb] == [None, None, 2 << 20, 2 << 20]


def test_the_captured_policies_name_the_nodes_that_they_were_set_to() -> None:
    text = (MACHINES / "four-nodes-6.12/proc/exhibit/numa_maps").read_bytes()
    nodes = {p.mempolicy.mode: p.mempolicy.nodes for p in parse_numa_maps(text, "numa_maps").values()}
    assert nodes["bind"] == nodes["weighted interleave"] == nodes["prefer (many)"] == {0, 1, 2, 3}
    assert nodes["prefer"] == nodes["bind=static"] == nodes["bind=static|balancing"] == {3}
    assert nodes["local"] == nodes["default"] == set()


@pytest.mark.parametrize("exhibit", CAPTURES)
def test_every_captured_mapping_is_found_by_its_start(exhibit: Path) -> None:
    starts = {int(line.split(b"-")[0], 16) for line in (exhibit / "maps").read_bytes().splitlines()}
    policies = parse_numa_maps((exhibit / "numa_maps").read_bytes(), "numa_maps")
    assert starts - policies.keys() <= {0xFFFFFFFFFF600000}, "only vsyscall lies outside of the address space"


@pytest.mark.parametrize("line", ["nonsense", "zzzz default", "1000 bind:x", "1000 default kernelpagesize_kB=big"])
def test_a_line_that_is_not_understood_is_named(line: str) -> None:
    with pytest.raises(ParseError, match=r"^numa_maps:2: "):
        parse_numa_maps(b"1000 default\n" + line.encode() + b"\n", "numa_maps")
