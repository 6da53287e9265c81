"""Parsers of what the kernel and other services write: any text is understood or is one ParseError that says where."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancerd.kernel.accesses.kernel_counters import parse_sched
from balancerd.kernel.accesses.memory import parse_stack_bytes
from balancerd.kernel.accesses.pmu import parse_cpuinfo, parse_event, parse_format
from balancerd.kernel.affinity.cpusets import parse_memberships
from balancerd.kernel.errors import ParseError
from balancerd.kernel.heat import kdamonds
from balancerd.kernel.machine import cpu_load, values
from balancerd.kernel.machine.memory import parse_node_memory, parse_swap
from balancerd.kernel.machine.pressure import parse_pressure
from balancerd.kernel.machine.release import parse_release
from balancerd.kernel.machine.topology import parse_distance, parse_ids, parse_node_meminfo
from balancerd.kernel.machine.zones import parse_buddyinfo, parse_zoneinfo
from balancerd.kernel.moving.room import parse_huge_mappings
from balancerd.kernel.neighbours.kubelet import parse_cpu_manager_state, parse_memory_manager_state
from balancerd.kernel.neighbours.libvirt import parse_domain_status
from balancerd.kernel.neighbours.units import parse_unit
from balancerd.kernel.placement import maps
from balancerd.kernel.placement.numa_maps import parse_numa_maps
from balancerd.kernel.processes import status
from balancerd.kernel.processes.opt_out import parse_environ
from balancerd.kernel.workloads import mounts
from balancerd.kernel.workloads.names import (
    parse_container_log,
    parse_docker_config,
    parse_kubelet_name,
    parse_pod_directory,
    parse_storage,
)
from balancerd.kernel.workloads.numa_stat import parse_numa_stat
from balancerd.kernel.workloads.paths import parse_path
from balancerd.model.ids import NodeId
from balancerd.model.sample import Vma
from balancerd.native import VmaTable
from tests.unit.fuzz.texts import anything, captured, check_result

PATH = "/proc/a file"
EXHIBIT = "four-nodes-6.12/proc/exhibit"
MOUNTINFO = captured(f"{EXHIBIT}/mountinfo") + (
    b"31 1 0:27 /a /sys/fs/cgroup/cpu rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
    b"40 1 0:30 / /dev/huge\\040pages rw - hugetlbfs none rw,pagesize=1024M\n"
)
SCHED = (
    b"spin (42, #threads: 1)\n---\nse.sum_exec_runtime                          :          1234.567890\n"
    b"current_node=1, numa_group_id=0\nnuma_faults node=0 task_private=7 task_shared=1 group_private=0 group_shared=0\n"
    b"numa_faults node=1 task_private=70 task_shared=0 group_private=0 group_shared=0\n"
)
LIMITS = b"Limit  Soft Limit  Hard Limit  Units\nMax stack size            8388608   unlimited  bytes\n"
GUEST = (
    b"<?xml version='1.0' encoding='UTF-8'?>\n<domstatus state='running' pid='4711'><numad nodeset='0'/><domain>"
    b"<name>web</name><vcpu cpuset='0-3'>2</vcpu><cputune><vcpupin vcpu='0' cpuset='1'/></cputune>"
    b"<numatune><memory mode='strict' nodeset='0'/></numatune></domain></domstatus>\n"
)
V1_STAT = b"total=9 N0=5 N1=4\nanon=3 N0=3 N1=0\nhierarchical_anon=7 N0=3 N1=4\n"
V2_STAT = b"anon N0=4096 N1=0\nfile N0=8192 N1=4096\nfile_mapped N0=0 N1=4096\n"
CPU_STAT = b"cpu  10 0 10 100 0 0 0 0 0 0\ncpu0 5 0 5 50 0 0 0 0 0 0\ncpu7 5 0 5 50 0 0 0 0 0 0\nintr 1\n"


class Parser(NamedTuple):
    """One parser of bytes, and what it is made for."""

    parse: Callable[[bytes], Any]
    seeds: tuple[bytes, ...]


def of_name(parse: Callable[[str], Any]) -> Callable[[bytes], Any]:
    """A parser of names, which are bytes to the kernel."""
    return lambda text: parse(text.decode("utf-8", "surrogateescape"))


def to_vmas(table: VmaTable) -> list[Vma]:
    """What the daemon makes of the table of mappings."""
    return [maps.to_vma(table.row(i)) for i in range(len(table))]


PARSERS = {
    "id list": Parser(lambda text: parse_ids(text, PATH), (b"0-3,8\n", b"0-31:2/8", b"")),
    "distances": Parser(lambda text: parse_distance(text, PATH, (NodeId(0), NodeId(1))), (b"10 20\n",)),
    "meminfo of a node": Parser(
        lambda text: parse_node_meminfo(text, PATH),
        (captured("four-nodes-6.12/sys/devices/system/node/node0/meminfo"),),
    ),
    "memory of a node": Parser(
        lambda text: parse_node_memory(text, PATH, NodeId(0), 0),
        (captured("four-nodes-6.12/sys/devices/system/node/node0/meminfo"),),
    ),
    "swap": Parser(lambda text: parse_swap(text, PATH), (captured("four-nodes-6.12/proc/meminfo"),)),
    "buddyinfo": Parser(lambda text: parse_buddyinfo(text, PATH), (captured("four-nodes-6.12/proc/buddyinfo"),)),
    "zoneinfo": Parser(lambda text: parse_zoneinfo(text, PATH), (captured("four-nodes-6.12/proc/zoneinfo", 60),)),
    "pressure": Parser(lambda text: parse_pressure(text, PATH), (captured("four-nodes-6.12/proc/pressure/cpu"),)),
    "times of CPUs": Parser(lambda text: cpu_load.parse_stat(text, PATH), (CPU_STAT,)),
    "number": Parser(lambda text: values.parse_number(text, PATH), (b"1\n",)),
    "truth": Parser(lambda text: values.parse_truth(text, PATH), (b"true\n", b"0")),
    "choice": Parser(lambda text: values.parse_choice(text, PATH), (b"always [madvise] never\n",)),
    "number of DAMON": Parser(lambda text: kdamonds.parse_number(text.decode("ascii", "replace"), PATH), (b"7",)),
    "status": Parser(lambda text: status.parse_status(text, PATH), (captured(f"{EXHIBIT}/status", 70),)),
    "cgroup": Parser(
        lambda text: status.parse_cgroup(text, PATH),
        (captured(f"{EXHIBIT}/cgroup"), b"4:memory:/a\n3:cpuset,cpu:/b c\n0::/\n"),
    ),
    "memberships": Parser(lambda text: parse_memberships(text, PATH), (b"4:memory:/a\n3:cpuset,cpu:/b c\n0::/d\n",)),
    "cmdline": Parser(status.parse_cmdline, (b"spin\0-n\x002\0",)),
    "environ": Parser(parse_environ, (b"HOME=/\0BALANCERD=off\0",)),
    "stat": Parser(lambda text: status.parse_stat(text, PATH), (captured(f"{EXHIBIT}/stat"),)),
    "sched": Parser(lambda text: parse_sched(text, PATH), (SCHED,)),
    "limits": Parser(lambda text: parse_stack_bytes(text, PATH), (LIMITS,)),
    "cpuinfo": Parser(parse_cpuinfo, (b"processor\t: 0\nvendor_id\t: GenuineIntel\nflags\t\t: fpu vme\n\n",)),
    "format of a PMU": Parser(lambda text: parse_format(text, PATH), (b"config:0-7,32-35\n", b"config1:0")),
    "event of a PMU": Parser(lambda text: parse_event(text, PATH), (b"event=0xcd,umask=0x1,ldlat=3,precise\n",)),
    "mounts of devices": Parser(lambda text: maps.parse_mountinfo(text, PATH), (MOUNTINFO,)),
    "mounts of cgroups": Parser(lambda text: mounts.parse_mountinfo(text, PATH), (MOUNTINFO,)),
    "maps": Parser(
        lambda text: to_vmas(maps.parse_maps(text, PATH, ())),
        (captured(f"{EXHIBIT}/maps"),),
    ),
    "numa_maps": Parser(
        lambda text: parse_numa_maps(text, PATH),
        (captured(f"{EXHIBIT}/numa_maps"), b"7f00 prefer (many)=static:0-1 anon=1 N0=1 huge kernelpagesize_kB=2048\n"),
    ),
    "smaps": Parser(lambda text: parse_huge_mappings(text, PATH), (captured(f"{EXHIBIT}/smaps-of-another", 60),)),
    "numa_stat of v1": Parser(lambda text: parse_numa_stat(text, PATH, version=1), (V1_STAT,)),
    "numa_stat of v2": Parser(lambda text: parse_numa_stat(text, PATH, version=2), (V2_STAT,)),
    "release": Parser(of_name(parse_release), (b"6.12.117+deb12-amd64",)),
    "path of a cgroup": Parser(
        of_name(parse_path),
        (
            b"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod0f_1.slice/cri-containerd-0a.scope",
            b"/../../system.slice/docker-0123456789ab.scope",
            b"/machine.slice/machine-qemu\\x2d1\\x2dweb.scope/libvirt/vcpu0",
        ),
    ),
    "name of a pod": Parser(of_name(parse_pod_directory), (b"shop_web-0_0f1e2d3c-0000-4000-8000-000000000001",)),
    "log of a container": Parser(of_name(parse_container_log), (b"web-0_shop_nginx-" + b"0a" * 32 + b".log",)),
    "name of the kubelet": Parser(of_name(parse_kubelet_name), (b"k8s_nginx_web-0_shop_0f1e_0",)),
    "docker": Parser(lambda text: parse_docker_config(text, PATH), (b'{"Name":"/web","Config":{}}',)),
    "storage": Parser(lambda text: parse_storage(text, PATH), (b'[{"id":"0a","names":["web"]}]',)),
    "CPU manager": Parser(
        lambda text: parse_cpu_manager_state(text, PATH),
        (b'{"policyName":"static","defaultCpuSet":"0-1","entries":{"u":{"c":"2-3"}},"checksum":1}',),
    ),
    "memory manager": Parser(
        lambda text: parse_memory_manager_state(text, PATH),
        (b'{"policyName":"Static","entries":{"u":{"c":[{"numaAffinity":[0,1],"size":1}]}},"checksum":1}',),
    ),
    "guest": Parser(lambda text: parse_domain_status(text, PATH), (GUEST, GUEST.replace(b"UTF-8", b"shift_jis"))),
    "unit": Parser(parse_unit, (b"[Service]\nNUMAPolicy=bind\nNUMAMask = 0-1 \r\n",)),
}


@pytest.mark.parametrize("name", PARSERS)
def test_what_it_is_made_for_is_understood(name: str) -> None:
    parser = PARSERS[name]
    check_result(parser.parse(parser.seeds[0]), parser.seeds[0])


@pytest.mark.parametrize("name", PARSERS)
@given(data=st.data())
def test_any_text_is_understood_or_an_error_that_says_where(name: str, data: st.DataObject) -> None:
    parser = PARSERS[name]
    text = data.draw(anything(parser.seeds))
    try:
        result = parser.parse(text)
    except ParseError as error:
        assert error.path == PATH
        assert 0 <= error.line_number <= text.count(b"\n") + 1
        assert str(error).startswith(f"{PATH}:{error.line_number}: ")
        assert len(str(error)) <= 2000
        assert str(error).isprintable()
    else:
        check_result(result, text)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("id list", b"0-1999999"),
        ("id list", b"1," + b"x" * 5000),
        ("buddyinfo", b"Node 0, zone DMA32 1 2 3\nNode 0, zone Normal 1 2\n"),
        ("pressure", b"some avg10=nan avg60=0 avg300=0 total=0\n"),
        ("number of DAMON", b"9" * 5000),
        ("format of a PMU", b"config:7-3"),
        ("format of a PMU", b"config:0-99999999999"),
        ("event of a PMU", b"event=" + b"9" * 5000),
        ("CPU manager", b"[" * 100_000),
        ("memory manager", b'{"policyName":"Static","entries":{"u":{"c":[{"numaAffinity":[Infinity]}]}}}'),
        ("guest", GUEST.replace(b"UTF-8", b"shift_jis")),
    ],
)
def test_what_once_was_taken_badly_is_an_error_that_says_where(name: str, text: bytes) -> None:
    with pytest.raises(ParseError) as raised:
        PARSERS[name].parse(text)
    assert len(str(raised.value)) <= 2000


def test_numbers_of_more_digits_than_the_kernel_writes_tell_nothing() -> None:
    assert parse_sched(SCHED.replace(b"1234.567890", b"9" * 400 + b".5"), PATH) == parse_sched(
        SCHED.replace(b"se.sum_exec_runtime", b"other"), PATH
    )
    assert parse_release("9" * 5000 + ".1") == (0, 0)
    assert parse_event(b"event=010", PATH) == {"event": 10}
