"""memory.numa_stat of both versions, and where it is."""

from pathlib import Path

import pytest

from balancerd.kernel.errors import ParseError
from balancerd.kernel.workloads.mounts import CgroupMount, membership_mounts, memory_mount, parse_mountinfo, read_mounts
from balancerd.kernel.workloads.numa_stat import mapped_bytes, parse_numa_stat, read_numa_stat
from tests.unit.kernel.trees import MACHINES, write_tree

# of a machine with four nodes, Linux 5.19 or later, as it stands in the tests of below(1); rows without use left out
V2 = b"""\
anon N0=133948178432 N1=85731622912 N2=56469581824 N3=67508137984
file N0=29022474240 N1=28619689984 N2=27863502848 N3=20205821952
kernel_stack N0=139689984 N1=93978624 N2=104693760 N3=145391616
pagetables N0=464572416 N1=392798208 N2=332378112 N3=352788480
shmem N0=27244945408 N1=27178311680 N2=27170930688 N3=13595549696
file_mapped N0=27685949440 N1=27733299200 N2=27522891776 N3=15582023680
file_dirty N0=6488064 N1=17436672 N2=85155840 N3=165040128
anon_thp N0=1419771904 N1=673185792 N2=536870912 N3=681574400
inactive_anon N0=160479961088 N1=112294313984 N2=83386806272 N3=80141840384
unevictable N0=405504 N1=135168 N2=0 N3=0
"""
# of a machine with four nodes and cgroup v1, as it stands in the tests of runc
V1 = b"""\
total=44611 N0=32631 N1=7501 N2=1982 N3=2497
file=44428 N0=32614 N1=7335 N2=1982 N3=2497
anon=183 N0=17 N1=166 N2=0 N3=0
unevictable=0 N0=0 N1=0 N2=0 N3=0
hierarchical_total=768133 N0=509113 N1=138887 N2=20464 N3=99669
hierarchical_file=722017 N0=496516 N1=119997 N2=20181 N3=85323
hierarchical_anon=46096 N0=12597 N1=18890 N2=283 N3=14326
hierarchical_unevictable=20 N0=0 N1=0 N2=0 N3=20
"""
# of the root cgroup of a machine with one node, Linux 6.18, cgroup v1
V1_ONE_NODE = b"""\
total=5576 N0=5576
file=80 N0=80
anon=374 N0=374
unevictable=5122 N0=5122
hierarchical_total=670371 N0=670371
hierarchical_file=291852 N0=291852
hierarchical_anon=373397 N0=373397
hierarchical_unevictable=5122 N0=5122
"""


def test_v2_tells_bytes_by_kind_and_node() -> None:
    stat = parse_numa_stat(V2, "memory.numa_stat", version=2)
    assert list(stat)[:3] == ["anon", "file", "kernel_stack"]
    assert stat["unevictable"] == {0: 405504, 1: 135168, 2: 0, 3: 0}


def test_v1_tells_pages_and_its_descendants_under_another_name() -> None:
    stat = parse_numa_stat(V1, "memory.numa_stat", version=1)
    assert list(stat) == ["total", "file", "anon", "unevictable"]
    assert stat["anon"] == {0: 12597 * 4096, 1: 18890 * 4096, 2: 283 * 4096, 3: 14326 * 4096}


@pytest.mark.parametrize(("text", "version"), [(V1, 1), (V2, 2)])
def test_only_the_kinds_that_are_asked_for_are_parsed(text: bytes, version: int) -> None:
    whole = parse_numa_stat(text, "f", version=version)
    some = parse_numa_stat(text + b"other N0=x\n", "f", version=version, kinds={"anon", "unevictable"})
    assert some == {kind: whole[kind] for kind in ("anon", "unevictable")}


def test_v1_before_it_told_of_descendants() -> None:
    stat = parse_numa_stat(V1[: V1.index(b"hierarchical")], "memory.numa_stat", version=1)
    assert stat["anon"] == {0: 17 * 4096, 1: 166 * 4096, 2: 0, 3: 0}


@pytest.mark.parametrize(
    ("text", "version", "expected"),
    [
        (V2, 2, {0: 161634127872, 1: 113464922112, 2: 83992473600, 3: 83090161664}),
        (V1, 1, {0: 12597 * 4096, 1: 18890 * 4096, 2: 283 * 4096, 3: 14346 * 4096}),
        (V1_ONE_NODE, 1, {0: 378519 * 4096}),
        (b"file_mapped N1=2 N0=1\nanon N2=4 N0=8\n", 2, {0: 9, 1: 2, 2: 4}),
        (b"anon N0=0 N1=0\n", 2, {0: 0, 1: 0}),
    ],
)
def test_what_processes_map_is_added_up_by_node(text: bytes, version: int, expected: dict[int, int]) -> None:
    mapped = mapped_bytes(parse_numa_stat(text, "memory.numa_stat", version=version), version=version)
    assert mapped == expected
    assert list(mapped) == sorted(mapped)


def test_lines_of_vendors_are_passed_over() -> None:
    extra = b"numa_locality 0 0 0 0\nnuma_exectime 0\n\n"  # as in the tests of runc
    assert parse_numa_stat(extra + V1, "f", version=1) == parse_numa_stat(V1, "f", version=1)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (b"anon N0=1\nfile N0=x\n", "f:2: "),
        (b"anon Nx=1\n", "f:1: "),
        (b"anon N0\n", "f:1: "),
        (b"file N0=1\n", "f:0: "),
        (b"", "f:0: "),
    ],
)
def test_a_line_that_is_no_memory_by_node_names_its_place(text: bytes, place: str) -> None:
    with pytest.raises(ParseError, match=f"^{place}"):
        parse_numa_stat(text, "f", version=2)


MEMORY = frozenset({"memory"})
HYBRID = CgroupMount(version=1, root="/", point="/sys/fs/cgroup/memory", controllers=MEMORY)
UNIFIED = CgroupMount(version=2, root="/", point="/sys/fs/cgroup")


@pytest.mark.parametrize(("machine", "expected"), [("four-nodes-6.12", UNIFIED), ("one-node-6.18", HYBRID)])
def test_the_mount_that_accounts_memory_is_found_on_captured_machines(machine: str, expected: CgroupMount) -> None:
    text = (MACHINES / machine / "proc/exhibit/mountinfo").read_bytes()
    assert memory_mount(parse_mountinfo(text, "mountinfo")) == expected


V1_LINE = b"37 26 0:3 / /m rw - cgroup cgroup rw,memory\n"
OWN = b"35 26 0:33 /docker/a /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw\n"
LINE = b"36 26 0:33 %s %s rw,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"", None),
        (b"22 1 0:2 / /proc rw - proc proc rw\n", None),
        (LINE % (b"/", rb"/mnt/with\040space"), CgroupMount(version=2, root="/", point="/mnt/with space")),
        (LINE % (b"/", b"/u") + V1_LINE, CgroupMount(version=1, root="/", point="/m", controllers=MEMORY)),
        # a container that was given the whole hierarchy beside its own part
        (OWN + LINE % (b"/", b"/host"), CgroupMount(version=2, root="/", point="/host")),
        (OWN + LINE % (b"/../..", b"/host"), CgroupMount(version=2, root="/../..", point="/host")),
    ],
)  # fmt: skip
def test_the_mount_that_shows_most_is_taken(text: bytes, expected: CgroupMount | None) -> None:
    assert memory_mount(parse_mountinfo(text, "mountinfo")) == expected


@pytest.mark.parametrize(
    ("machine", "points"),
    [("four-nodes-6.12", [""]), ("one-node-6.18", ["/unified", "/cpuset", "/memory"])],
)
def test_mounts_that_name_a_processs_cgroup_are_told_version_2_first(machine: str, points: list[str]) -> None:
    text = (MACHINES / machine / "proc/exhibit/mountinfo").read_bytes()
    found = membership_mounts(parse_mountinfo(text, "mountinfo"))
    assert [mount.point for mount in found] == [f"/sys/fs/cgroup{point}" for point in points]


@pytest.mark.parametrize("text", [b"nonsense\n", b"1 2 3 / /a rw cgroup2 cgroup2 rw\n", b"1 2 3 / /a - cgroup2\n"])
def test_a_line_that_is_no_mount_names_its_place(text: bytes) -> None:
    with pytest.raises(ParseError, match=r"^mountinfo:2: "):
        parse_mountinfo(b"22 1 0:2 / /proc rw - proc proc rw\n" + text, "mountinfo")


@pytest.mark.parametrize(
    ("root", "cgroup", "expected"),
    [
        ("/", "/a.slice/b.service", "/cg/a.slice/b.service"),
        ("/", "/", "/cg"),
        ("/docker/a", "/docker/a/b", "/cg/b"),
        ("/docker/a", "/docker/a", "/cg"),
        ("/docker/a", "/docker/abc", None),
        ("/docker/a", "/system.slice", None),
        ("/", "/../other", None),
        ("/..", "/../other", "/cg/other"),
        ("/../..", "/../other", None),
    ],
)
def test_a_cgroup_is_below_its_mount_or_not_shown(root: str, cgroup: str, expected: str | None) -> None:
    assert CgroupMount(version=2, root=root, point="/cg").directory(cgroup) == expected


def test_the_file_of_a_cgroup_is_read(tmp_path: Path) -> None:
    write_tree(tmp_path, {"cg/a.service/memory.numa_stat": V2, "proc/self/mountinfo": LINE % (b"/", b"/cg")})
    mount = memory_mount(read_mounts(f"{tmp_path}/proc"))
    assert mount == CgroupMount(version=2, root="/", point="/cg")
    here = CgroupMount(version=2, root="/", point=f"{tmp_path}/cg")
    assert read_numa_stat(here, "/a.service") == parse_numa_stat(V2, "f", version=2)
    assert read_numa_stat(here, "/../x") is None
    with pytest.raises(FileNotFoundError):
        read_numa_stat(here, "/gone.service")
