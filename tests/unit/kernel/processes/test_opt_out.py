"""Three ways to be left alone, and what does not count."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from balancerd.kernel.clock import MonotonicClock
from balancerd.kernel.errors import BlockedError
from balancerd.kernel.placement.pool import PatientReads, ReadPool
from balancerd.kernel.processes.opt_out import OptOuts, named_off, parse_environ
from balancerd.model.ids import ProcessId
from tests.unit.fakes import FakeClock, make_process
from tests.unit.kernel.children import child
from tests.unit.kernel.trees import MACHINES, write_tree

UNIFIED = (MACHINES / "four-nodes-6.12/proc/exhibit/mountinfo").read_bytes()
HYBRID = (MACHINES / "one-node-6.18/proc/exhibit/mountinfo").read_bytes()
IN_ENVIRONMENT = "BALANCERD=off in its environment"
T = TypeVar("T")


class Machine:
    """Environments of processes, attributes of cgroups, and what was asked of them."""

    def __init__(self, root: Path, mountinfo: bytes = UNIFIED) -> None:
        self.clock = FakeClock()
        self.procfs = write_tree(root, {"self/mountinfo": mountinfo})
        self.attributes: dict[tuple[str, str], bytes] = {}
        self.asked: list[tuple[str, str]] = []
        self.reads: list[int] = []
        self.error: Exception | None = None
        self.opt_outs = OptOuts(self.clock, self, str(self.procfs), self.getxattr)

    def environ(self, text: bytes, pid: int = 100) -> None:
        write_tree(self.procfs, {f"{pid}/environ": text})

    def read(self, process: ProcessId, read: Callable[[], T]) -> T:
        self.reads.append(process.pid)
        if self.error is not None:
            raise self.error
        return read()

    def getxattr(self, path: str, name: str) -> bytes:
        self.asked.append((path, name))
        if (path, name) not in self.attributes:
            raise OSError(errno.ENODATA, os.strerror(errno.ENODATA), path)
        return self.attributes[path, name]

    def of(self, *, pid: int = 100, comm: str = "app", cgroup: str | None = "/") -> str | None:
        return self.opt_outs.of(make_process(pid, comm=comm, cgroup=cgroup))


@pytest.mark.parametrize(
    ("text", "is_off"),
    [
        (b"BALANCERD=off\0", True),
        (b"PATH=/bin\0BALANCERD=off\0HOME=/\0", True),
        (b"A=1\0BALANCERD=off", True),
        (b"", False),
        (b"\0\0\0", False),
        (b"BALANCERD=on\0", False),
        (b"BALANCERD=offline\0", False),
        (b"NOBALANCERD=off\0", False),
        (b"A=BALANCERD=off\0", False),
        (b"BALANCERD=\0", False),
        (b"\xff\xfe=\x80\0BALANCERD=off\0", True),
        (b"nginx: master process /usr/sbin/nginx\0\0\0\0", False),
    ],
)
def test_the_variable_counts_when_it_stands_there_exactly(text: bytes, is_off: bool) -> None:
    assert parse_environ(text) is is_off


@pytest.mark.parametrize(
    ("cgroup", "where"),
    [
        ("/", None),
        ("/system.slice/db.service", None),
        ("/system.slice/db-nobalance.service", "/system.slice/db-nobalance.service"),
        ("/batch.slice/batch-nobalance.slice/job.scope/worker", "/batch.slice/batch-nobalance.slice"),
        ("/user.slice/run-nobalance.scope", "/user.slice/run-nobalance.scope"),
        ("/kubepods/pod1/x-nobalance", "/kubepods/pod1/x-nobalance"),
        ("/../../a-nobalance/b", "/../../a-nobalance"),
        ("/x-nobalance.service.d", None),
        ("/x-nobalance.mount", None),
        ("/x-nobalance-not", None),
        ("/xnobalance", None),
        ("/nobalance.slice", None),
        ("/odd\nname-nobalance", "/odd\nname-nobalance"),
    ],
)
def test_the_name_of_a_cgroup_counts_for_all_below_it(cgroup: str, where: str | None) -> None:
    assert named_off(cgroup) == (None if where is None else f"the name of its cgroup {where}")


@pytest.mark.parametrize("attribute", ["user.balancerd", "trusted.balancerd"])
@pytest.mark.parametrize("directory", ["/sys/fs/cgroup/a.slice", "/sys/fs/cgroup/a.slice/b.service"])
def test_an_attribute_of_the_cgroup_or_of_one_above_counts(tmp_path: Path, attribute: str, directory: str) -> None:
    machine = Machine(tmp_path)
    machine.attributes[directory, attribute] = b"off"
    where = directory.removeprefix("/sys/fs/cgroup")
    assert machine.of(cgroup="/a.slice/b.service") == f"{attribute}=off on the cgroup {where}"
    assert machine.of(cgroup="/a.slice-not") is None


@pytest.mark.parametrize(
    ("directory", "value"), [("/sys/fs/cgroup/a", b"on"), ("/sys/fs/cgroup/a", b""), ("/sys/fs/cgroup", b"off")]
)
def test_another_value_and_an_attribute_of_the_root_do_not_count(tmp_path: Path, directory: str, value: bytes) -> None:
    machine = Machine(tmp_path)
    machine.attributes[directory, "user.balancerd"] = value
    assert machine.of(cgroup="/a") is None


def test_with_version_1_the_hierarchies_of_cpuset_and_memory_are_asked_too(tmp_path: Path) -> None:
    machine = Machine(tmp_path, HYBRID)
    machine.attributes["/sys/fs/cgroup/memory/docker/1", "trusted.balancerd"] = b"off"
    assert machine.of(cgroup="/docker/1/x") == "trusted.balancerd=off on the cgroup /docker/1"
    assert not {path for path, _ in machine.asked if "pids" in path}


def test_a_cgroup_is_asked_again_after_half_a_minute(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    assert machine.of(cgroup="/a") is None
    machine.attributes["/sys/fs/cgroup/a", "user.balancerd"] = b"off"
    asked = len(machine.asked)
    machine.clock.time += 29.0
    assert machine.of(cgroup="/a", pid=101) is None
    assert len(machine.asked) == asked
    machine.clock.time += 1.0
    assert machine.of(cgroup="/a") is not None
    machine.attributes.clear()
    machine.clock.time += 30.0
    assert machine.of(cgroup="/a") is None


def test_without_a_readable_list_of_mounts_names_and_environments_still_count(tmp_path: Path) -> None:
    machine = Machine(tmp_path, b"1 2 3 - cgroup2 x rw\n")
    machine.environ(b"BALANCERD=off\0")
    assert machine.of(cgroup="/a") == IN_ENVIRONMENT
    assert machine.of(cgroup="/a-nobalance") == "the name of its cgroup /a-nobalance"


def test_an_environment_is_read_once_and_again_under_another_name(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.environ(b"A=1\0")
    assert machine.of() is None
    machine.environ(b"BALANCERD=off\0")
    machine.clock.time += 3600.0
    assert machine.of() is None
    assert machine.of(comm="other") == IN_ENVIRONMENT
    assert machine.of(comm="other") == IN_ENVIRONMENT
    assert machine.reads == [100, 100]


def test_the_environment_is_not_read_when_the_cgroup_has_said_it_nor_for_a_kernel_thread(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.of(cgroup="/a-nobalance")
    assert machine.opt_outs.of(make_process(2, kernel_thread=True, cgroup="/")) is None
    assert machine.reads == []


@pytest.mark.parametrize("error", [PermissionError(errno.EACCES, "no"), ProcessLookupError(errno.ESRCH, "gone")])
def test_an_unreadable_environment_says_nothing_and_is_tried_again_after_half_a_minute(
    tmp_path: Path, error: OSError
) -> None:
    machine = Machine(tmp_path)
    machine.environ(b"BALANCERD=off\0")
    machine.error = error
    assert machine.of() is None
    machine.error = None
    machine.clock.time += 29.0
    assert machine.of() is None
    assert machine.reads == [100]
    machine.clock.time += 1.0
    assert machine.of() == IN_ENVIRONMENT


def test_a_blocked_environment_leaves_the_last_answer_and_is_tried_at_the_next_tick(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.environ(b"BALANCERD=off\0")
    machine.error = BlockedError("locked")
    assert machine.of() is None
    machine.error = None
    assert machine.of() == IN_ENVIRONMENT
    machine.error = BlockedError("locked")
    assert machine.of(comm="renamed") == IN_ENVIRONMENT
    assert machine.reads == [100] * 3


def test_who_is_gone_is_forgotten_and_old_cgroups_too(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.environ(b"", 100)
    machine.environ(b"", 101)
    machine.of(pid=100, cgroup="/a")
    machine.of(pid=101, cgroup="/a")
    machine.opt_outs.forget_all_but({ProcessId(101, 1)})
    machine.of(pid=100, cgroup="/a")
    machine.of(pid=101, cgroup="/a")
    assert machine.reads == [100, 101, 100]
    machine.clock.time += 30.0
    machine.opt_outs.forget_all_but(set())
    assert machine.opt_outs._cgroups == {}
    assert machine.opt_outs._environments == {}


def test_a_real_process_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = MonotonicClock()
    pool = ReadPool()
    opt_outs = OptOuts(clock, PatientReads(clock, pool, 60.0))
    with child() as (_, plain):
        monkeypatch.setenv("BALANCERD", "off")
        with child() as (_, off):
            told = [opt_outs.of(make_process(process.pid, id=process, cgroup="/")) for process in (plain, off)]
    pool.close()
    clock.close()
    assert told == [None, IN_ENVIRONMENT]
