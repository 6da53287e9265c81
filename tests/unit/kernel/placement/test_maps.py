from collections.abc import Sequence

import pytest

from balancerd.kernel.errors import ParseError
from balancerd.kernel.placement.maps import parse_maps, parse_mountinfo, to_vma
from balancerd.model.sample import Vma, VmaKind
from balancerd.native import VMA_KINDS, Device
from tests.unit.kernel.trees import MACHINES

EXHIBIT = MACHINES / "one-node-6.18/proc/exhibit"
SHMEM, HUGETLB = VMA_KINDS.index(VmaKind.SHMEM), VMA_KINDS.index(VmaKind.HUGETLB)
DEVICES = (Device(device=0x1B, kind=SHMEM), Device(device=0x30, kind=HUGETLB))


def parse(text: bytes, devices: Sequence[Device] = DEVICES) -> tuple[Vma, ...]:
    table = parse_maps(text, "maps", devices)
    return tuple(to_vma(table.row(i)) for i in range(len(table)))


def parse_line(line: str) -> tuple[Vma, ...]:
    return parse(line.encode() + b"\n")


@pytest.mark.parametrize(
    ("rest", "kind", "name"),
    [
        ("rw-p 00000000 00:00 0 ", "anon", ""),
        ("rw-p 00000000 00:00 0                          [heap]", "heap", "[heap]"),
        ("rw-p 00000000 00:00 0                          [stack]", "stack", "[stack]"),
        ("rw-p 00000000 00:00 0                          [stack:17]", "stack", "[stack:17]"),
        ("rw-p 00000000 00:00 0                          [anon:glibc: malloc]", "anon", "[anon:glibc: malloc]"),
        ("rw-s 00000000 00:01 7                          [anon_shmem:pool]", "shmem", "[anon_shmem:pool]"),
        ("r--p 00000000 00:00 0                          [vvar]", "special", "[vvar]"),
        ("r-xp 00000000 00:00 0                          [vdso]", "special", "[vdso]"),
        ("--xp 00000000 00:00 0                          [vsyscall]", "special", "[vsyscall]"),
        (
            "rw-s 00000000 00:0e 1                          anon_inode:[perf_event]",
            "special",
            "anon_inode:[perf_event]",
        ),
        ("rw-s 00000000 00:06 9                          /dev/nvidia0", "special", "/dev/nvidia0"),
        ("rw-s 00000000 00:30 9                          /dev/huge/x", "hugetlb", "/dev/huge/x"),
        ("rw-s 00000000 00:31 9                          /dev/hugepages/x", "hugetlb", "/dev/hugepages/x"),
        ("rw-s 00000000 00:30 9                          /var/lib/huge/x", "hugetlb", "/var/lib/huge/x"),
        ("rw-s 00000000 00:1b 9                          /run/x", "shmem", "/run/x"),
        ("rw-s 00000000 00:99 9                          /dev/shm/x", "shmem", "/dev/shm/x"),
        ("rw-p 00000000 00:06 4                          /dev/zero", "anon", "/dev/zero"),
        ("rw-s 00000000 00:01 4                          /dev/zero (deleted)", "shmem", "/dev/zero (deleted)"),
        ("rw-s 00000000 00:01 4                          /SYSV00001234 (deleted)", "shmem", "/SYSV00001234 (deleted)"),
        ("rw-s 00000000 00:01 4                          /memfd:a b (deleted)", "shmem", "/memfd:a b (deleted)"),
        (
            "rw-p 00000000 00:11 4                          /anon_hugepage (deleted)",
            "hugetlb",
            "/anon_hugepage (deleted)",
        ),
        ("r-xp 00000000 fe:00 4                          /a dir/b  c (deleted)", "file", "/a dir/b  c (deleted)"),
        ("rw-s 00000000 fe:00 4                          /a\\012b", "file", "/a\\012b"),
        ("rw-s 00000000 fe:00 4                          /ends in blank ", "file", "/ends in blank "),
    ],
)
def test_a_line_tells_what_its_mapping_holds(rest: str, kind: str, name: str) -> None:
    (vma,) = parse_line(f"7f0000001000-7f0000003000 {rest}")
    assert (vma.kind, vma.name) == (kind, name)
    assert (vma.start, vma.end) == (0x7F0000001000, 0x7F0000003000)
    assert vma.shared == (rest[3] == "s")
    assert vma.executable == (rest[2] == "x")
    assert vma.program == (vma.executable and vma.kind is VmaKind.FILE)
    assert vma.page_bytes is None
    assert vma.mempolicy is None


@pytest.mark.parametrize(
    ("rest", "backing"),
    [
        ("rw-s 00000000 00:01 4                          /dev/zero (deleted)", "0:1:4"),
        ("rw-s 00000000 fe:1b 123456                     /memfd:a b (deleted)", "fe:1b:123456"),
        ("rw-s 00000000 00:01 7                          [anon_shmem:pool]", "0:1:7"),
        ("rw-s 00000000 00:11 4                          /anon_hugepage (deleted)", "0:11:4"),
        ("rw-p 00000000 00:11 4                          /anon_hugepage (deleted)", ""),
        ("rw-p 00000000 00:01 4                          /memfd:x (deleted)", ""),
        ("rw-s 00000000 00:99 9                          /dev/shm/x", ""),
        ("rw-s 00000000 00:01 4                          /SYSV00001234 (deleted)", ""),
        ("rw-s 00000000 fe:00 4                          /file", ""),
        ("rw-p 00000000 00:00 0 ", ""),
    ],
)
def test_shared_memory_that_only_those_have_who_were_given_it_has_a_backing(rest: str, backing: str) -> None:
    (vma,) = parse_line(f"7f0000001000-7f0000003000 {rest}")
    assert vma.backing == backing


def test_a_mapping_without_any_permission_is_left_out() -> None:
    assert parse_line("7f0000001000-7f0000003000 ---p 00000000 00:00 0 ") == ()
    assert parse_line("7f0000001000-7f0000003000 ---s 00000000 fe:00 12  /file") == ()


def test_the_captured_maps_show_every_kind_where_it_belongs() -> None:
    devices = parse_mountinfo((EXHIBIT / "mountinfo").read_bytes(), "mountinfo")
    text = (EXHIBIT / "maps").read_bytes()
    vmas = parse(text, devices)
    assert len(vmas) == text.count(b"\n") - text.count(b" ---p ")
    assert [v.start for v in vmas] == sorted(v.start for v in vmas)
    kinds = {v.name.rpartition("/")[2]: v.kind for v in vmas if v.name}
    assert kinds["capture shm (deleted)"] is VmaKind.SHMEM
    assert kinds["with\\012a newline"] is VmaKind.FILE
    assert kinds["caf\u00e9"] is VmaKind.FILE
    assert kinds["anon_hugepage (deleted)"] is VmaKind.HUGETLB
    assert kinds["[heap]"] is VmaKind.HEAP
    assert {v.name for v in vmas if v.kind is VmaKind.SPECIAL} == {"[vvar]", "[vvar_vclock]", "[vdso]", "[vsyscall]"}
    assert any(v.end - v.start == 1 << 40 and v.kind is VmaKind.ANON for v in vmas)


def test_the_captured_maps_tell_programs_from_data() -> None:
    text = (EXHIBIT / "maps").read_bytes()
    vmas = parse(text, parse_mountinfo((EXHIBIT / "mountinfo").read_bytes(), "mountinfo"))
    own = {int(line.split(b"-")[0], 16) for line in text.splitlines() if line.split()[1] == b"rw-p"}
    programs = {v.name for v in vmas if v.program}
    assert programs == {v.name for v in vmas if v.executable and v.kind is VmaKind.FILE}
    assert len(programs) > 1
    assert all(v.program == (v.name in programs and v.start not in own) for v in vmas), "also its constants"
    assert any(v.name in programs and v.start in own for v in vmas), "but not its variables"
    assert not any(v.program for v in vmas if v.name.endswith("caf\u00e9"))


def test_the_captured_mountinfo_names_the_devices_of_memory() -> None:
    devices = {d.device: d for d in parse_mountinfo((EXHIBIT / "mountinfo").read_bytes(), "mountinfo")}
    assert devices[0x1B].kind == SHMEM
    assert 0xFE << 20 not in devices


@pytest.mark.parametrize(
    ("options", "page_bytes"),
    [("rw", 0), ("rw,pagesize=2M", 2 << 20), ("rw,pagesize=1024M,size=4G", 1 << 30), ("rw,pagesize=big", 0)],
)
def test_optional_fields_of_a_mount_do_not_hide_its_type(options: str, page_bytes: int) -> None:
    line = f"61 27 259:48 / /dev/hugepages rw,relatime shared:28 master:1 - hugetlbfs hugetlbfs {options}\n"
    (device,) = parse_mountinfo(line.encode(), "mountinfo")
    assert device == Device(device=259 << 20 | 48, kind=HUGETLB, page_bytes=page_bytes)


def test_a_line_that_is_no_mount_is_named() -> None:
    with pytest.raises(ParseError, match=r"^mountinfo:2: not a mount"):
        parse_mountinfo(b"1 2 0:1 / / rw - ext4 x rw\n1 2 0 / / rw - tmpfs x rw\n", "mountinfo")


@pytest.mark.parametrize(
    "line",
    ["nonsense", "1000 rw-p 0 00:00 0", "2000-1000 rw-p 0 00:00 0", "1000-2000 rw 0 00:00 0", "1000-2000 rw-p 0"],
)
def test_a_line_that_is_no_mapping_is_named(line: str) -> None:
    text = b"1000-2000 rw-p 00000000 00:00 0 \n" + line.encode() + b"\n"
    with pytest.raises(ParseError, match=r"^maps:2: not a mapping") as caught:
        parse_maps(text, "maps", ())
    assert caught.value.line == line
