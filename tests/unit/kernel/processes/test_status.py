import pytest

from balancerd.kernel.errors import ParseError
from balancerd.kernel.processes.status import parse_cgroup, parse_stat, parse_status
from balancerd.model.ids import CpuId, NodeId
from tests.unit.kernel.trees import MACHINES, stat_line

EXHIBIT = MACHINES / "one-node-6.18/proc/exhibit"


def test_hugetlb_pages_are_told_in_bytes() -> None:
    assert (
        parse_status(b"Name:\tx\nUid:\t0\t0\t0\t0\nHugetlbPages:\t  131072 kB\n", "status").hugetlb_bytes == 128 << 20
    )


def test_the_captured_status_is_parsed() -> None:
    status = parse_status((EXHIBIT / "status").read_bytes(), "status")
    assert status.uid == 0
    assert status.cpus_allowed == frozenset({CpuId(0), CpuId(1)})
    assert status.mems_allowed == frozenset({NodeId(0)})


def test_the_effective_user_counts_and_a_kernel_without_cpusets_leaves_mems_unknown() -> None:
    status = parse_status(b"Name:\tx\nUid:\t1000\t33\t1000\t33\nCpus_allowed_list:\t0-3,8\n", "status")
    assert status.uid == 33
    assert status.hugetlb_bytes == 0
    assert status.cpus_allowed == frozenset(map(CpuId, (0, 1, 2, 3, 8)))
    assert status.mems_allowed is None


@pytest.mark.parametrize("text", [b"", b"Name:\tx\nUid:\t0\n", b"\nUid:\t0\t0\nMems_allowed_list:\t0-\n"])
def test_a_broken_status_is_an_error(text: bytes) -> None:
    with pytest.raises(ParseError, match=r"^status:0: "):
        parse_status(text, "status")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"0::/system.slice/redis.service\n", "/system.slice/redis.service"),
        (b"0::/\n", "/"),
        (b"0::/../../kubepods-burstable.slice/pod1\n", "/../../kubepods-burstable.slice/pod1"),
        (b"0::/with:colon\n", "/with:colon"),
        (b"4:memory:/m\n3:cpuset:/c\n0::/\n", "/c"),
        (b"4:cpu,memory:/m\n3:cpuset:/\n", "/m"),
        (b"4:memory:/m\n0::/unified\n", "/unified"),
        (b"1:name=systemd:/init.scope\n", "/"),
        (b"", "/"),
    ],
)
def test_the_cgroup_that_says_most_is_taken(text: bytes, expected: str) -> None:
    assert parse_cgroup(text, "cgroup") == expected


def test_the_captured_cgroup_of_a_hybrid_system_comes_from_the_memory_hierarchy() -> None:
    assert parse_cgroup((EXHIBIT / "cgroup").read_bytes(), "cgroup") == "/batch/job-7"


def test_a_line_that_is_no_membership_names_its_number() -> None:
    with pytest.raises(ParseError, match=r"^cgroup:2: "):
        parse_cgroup(b"0::/\nnonsense\n", "cgroup")


def test_the_captured_stat_is_parsed() -> None:
    text = (EXHIBIT / "stat").read_bytes()
    stat = parse_stat(text, "stat")
    assert stat.comm == "python3"
    assert stat.pid == int(text.split()[0])
    assert stat.start_ticks == int(text.split()[21])
    assert stat.last_cpu in {0, 1}
    assert not stat.kernel_thread


@pytest.mark.parametrize("comm", ["a b", ") R 1 (", "", "(sd-pam)", "x)"])
def test_no_name_confuses_the_fields_behind_it(comm: str) -> None:
    line = stat_line(7, comm, start_ticks=123, cpu_ticks=(5, 6), rss_pages=9, n_threads=3, cpu=4, flags=0x208040)
    stat = parse_stat(line.encode(), "stat")
    assert (stat.comm, stat.pid, stat.start_ticks, stat.cpu_ticks) == (comm, 7, 123, 11)
    assert (stat.rss_pages, stat.n_threads, stat.last_cpu, stat.kernel_thread) == (9, 3, 4, True)


@pytest.mark.parametrize("text", [b"", b"1 (a) R 1 2\n", b"1 a R" + b" 1" * 60, b"1 (a) R" + b" x" * 60])
def test_a_broken_stat_is_an_error(text: bytes) -> None:
    with pytest.raises(ParseError, match=r"^stat:1: "):
        parse_stat(text, "stat")
