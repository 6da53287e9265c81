"""Tries out whether this machine and this user can do what balancerd needs: the doctor's probes that act.

Owns the syscalls tried on this process and on a foreign one, and the list of all probes. Nothing is compared with a
version: each interface is called, on one page of this process, and what the kernel answers is reported. It must not
know how a check is printed, nor need a daemon, a privilege or a second node.
"""

import errno
import importlib
import mmap
import os
import platform
import subprocess
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final, Protocol

import cffi
import psutil

from balancerd.kernel.doctor import calls, files, guards
from balancerd.kernel.doctor.files import CAP_SYS_NICE, CAP_SYS_PTRACE, ROOT, Check, CheckStatus
from balancerd.kernel.doctor.managers import other_managers
from balancerd.kernel.processes.identity import GONE

SYSCALL_NUMBER: Final[Mapping[str, int]] = {"x86_64": 279, "aarch64": 239, "riscv64": 239}  # asm/unistd_64.h
MPOL_MF_MOVE = 2  # include/uapi/linux/mempolicy.h
MPOL_MF_MOVE_ALL = 4
NOBODY = 65534  # the kernel's own overflow uid, /proc/sys/kernel/overflowuid

_SECCOMP_FIX = (
    "a seccomp filter refuses it: in Docker, --security-opt seccomp=unconfined; in Kubernetes, "
    "securityContext.seccompProfile.type: Unconfined; in a unit, SystemCallFilter=@system-service"
)


class PageCaller(Protocol):
    """move_pages(2) on a single page of this process. Each method raises OSError when the kernel refuses the call."""

    def ask(self, pid: int) -> int:
        """Return the node of the page's address in process `pid` (0: this one), or -errno when it has none there."""
        ...

    def move(self, node: int, flags: int) -> int:
        """Move the page to `node`; return the node where it is then, or -errno when it stayed."""
        ...


class OnePage:
    """The real PageCaller: one touched page, and the raw syscall.

    cffi's ABI mode needs no compiled module, so that the doctor works where the native core does not load; and the
    core never asks the kernel to move a page to the node where it is, which is just what is tried here.
    """

    def __init__(self) -> None:
        """Raise NotImplementedError on a processor whose syscall number is not known here."""
        machine = platform.machine()
        if machine not in SYSCALL_NUMBER:
            raise NotImplementedError(f"the number of move_pages on {machine} is not known")
        self._number = SYSCALL_NUMBER[machine]
        self._ffi = cffi.FFI()
        self._ffi.cdef("long syscall(long number, ...);")
        self._libc: Any = self._ffi.dlopen(None)
        self._page = mmap.mmap(-1, mmap.PAGESIZE)
        self._page[0] = 1

    def ask(self, pid: int) -> int:
        """See PageCaller."""
        return self._call(pid, self._ffi.NULL, 0)

    def move(self, node: int, flags: int) -> int:
        """See PageCaller."""
        return self._call(0, self._ffi.new("int[1]", [node]), flags)

    def _call(self, pid: int, nodes: Any, flags: int) -> int:
        new, cast = self._ffi.new, self._ffi.cast
        pages = new("void *[1]", [self._ffi.from_buffer(self._page)])
        status = new("int[1]", [-errno.EAGAIN])
        arguments = (cast("long", pid), cast("long", 1), pages, cast("int *", nodes), status, cast("long", flags))
        if self._libc.syscall(self._number, *arguments) < 0:
            raise OSError(self._ffi.errno, os.strerror(self._ffi.errno))
        return int(status[0])


def kernel_release() -> Check:
    """The running kernel, for bug reports; nothing is concluded from it."""
    system = os.uname()
    return Check(name="kernel", status=CheckStatus.INFO, seen=f"{system.sysname} {system.release} {system.machine}")


def native_core() -> Check:
    """Whether the compiled core can be imported."""
    name = "native-core"
    try:
        importlib.import_module("balancerd.native._core")
    except ImportError as error:
        return Check(
            name=name,
            status=CheckStatus.FAILURE,
            seen=f"cannot be imported: {error}",
            fix="install balancerd from a wheel for this machine, or build it with a C compiler: pip install .",
        )
    return Check(name=name, status=CheckStatus.OK, seen="loads")


def query_self(caller: PageCaller) -> Check:
    """Whether move_pages(2) tells where a page of this process is."""
    name = "move-pages-query"
    try:
        status = caller.ask(0)
    except OSError as error:
        return _refused_on_self(name, error)
    if status < 0:
        return Check(name=name, status=CheckStatus.UNKNOWN, seen=f"unknown: the kernel answers {_name(-status)}")
    return Check(name=name, status=CheckStatus.OK, seen=f"a page of this process is on node {status}")


def move_self(caller: PageCaller) -> Check:
    """Whether move_pages(2) with MPOL_MF_MOVE moves a page of this process, to the node where it is."""
    name = "move-pages-move"
    try:
        node = caller.ask(0)
        status = caller.move(node, MPOL_MF_MOVE)
    except OSError as error:
        return _refused_on_self(name, error)
    if status != node:
        return Check(name=name, status=CheckStatus.UNKNOWN, seen=f"unknown: the kernel answers {_name(-status)}")
    return Check(name=name, status=CheckStatus.OK, seen=f"moved a page of this process to its own node {node}")


def move_all(caller: PageCaller, root: Path = ROOT) -> Check:
    """Whether MPOL_MF_MOVE_ALL is allowed, which moves pages that several processes map: needs CAP_SYS_NICE."""
    name = "move-pages-shared"
    try:
        caller.move(caller.ask(0), MPOL_MF_MOVE_ALL)
    except PermissionError:
        return _not_permitted(name, "MPOL_MF_MOVE_ALL", root, CAP_SYS_NICE, "SYS_NICE")
    except OSError as error:
        return _refused_on_self(name, error)
    return Check(name=name, status=CheckStatus.OK, seen="MPOL_MF_MOVE_ALL is allowed (CAP_SYS_NICE)")


def query_other(caller: PageCaller, pids: Iterable[int], root: Path = ROOT) -> Check:
    """Whether move_pages(2) answers about a process of another user: needs CAP_SYS_PTRACE.

    `pids` are tried in turn until one gives an answer; kernel threads and those that have exited give none.
    """
    name = "other-processes"
    for pid in pids:
        try:
            caller.ask(pid)
        except PermissionError:
            return _not_permitted(name, f"looking at process {pid}", root, CAP_SYS_PTRACE, "SYS_PTRACE")
        except OSError as error:
            if error.errno in GONE:
                continue
            return _refused_on_self(name, error)
        return Check(
            name=name,
            status=CheckStatus.OK,
            seen="the memory of another user's process can be looked at (CAP_SYS_PTRACE)",
        )
    return Check(name=name, status=CheckStatus.UNKNOWN, seen="unknown: no other process to try it on")


def foreign_pids() -> Generator[int, None, None]:
    """Yield processes of other users: a child that root makes for this, then others that run, at last pid 1.

    The child lives until the generator goes on or is closed.
    """
    with _stranger() as pid:
        if pid is not None:
            yield pid
    uid = os.getuid()
    for process in psutil.process_iter(["uids"]):
        uids = process.info["uids"]
        if uids is not None and uids.real != uid:
            yield process.pid
    if os.getpid() != 1:
        yield 1


@contextmanager
def _stranger() -> Iterator[int | None]:
    """A process of the user nobody that waits for the end of its input; None where this user cannot make one."""
    try:
        child = subprocess.Popen(
            ["/bin/cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, user=NOBODY, group=NOBODY, extra_groups=[]
        )
    except OSError:
        yield None
        return
    with child:  # closes its input and waits for it
        yield child.pid


def pidfd() -> Check:
    """Whether pidfd_open(2) works: it keeps a pid from meaning another process while its memory is moved."""
    name = "pidfd-open"
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError as error:
        fix = "boot Linux 5.3 or newer" if error.errno == errno.ENOSYS else _SECCOMP_FIX
        return Check(name=name, status=CheckStatus.FAILURE, seen=f"refused: {error.strerror}", fix=fix)
    return Check(name=name, status=CheckStatus.OK, seen="works")


def register_sampling(root: Path = ROOT) -> Check:
    """Whether the registers of a thread can be sampled, which tells what memory it uses: for the policy access."""
    status = CheckStatus.INFO if os.geteuid() != 0 else CheckStatus.WARNING
    return _source(root, "registers", status, "the registers of this thread can be sampled")


def hint_faults(root: Path = ROOT) -> Check:
    """Whether the kernel's balancing makes hint faults, and these can be watched: for the policy access."""
    return _source(root, "hint-faults", CheckStatus.INFO, "hint faults are made, and can be watched")


def kernel_counters(root: Path = ROOT) -> Check:
    """Whether the kernel's balancing tells how many hint faults were local: for the policy access."""
    return _source(root, "kernel-counters", CheckStatus.INFO, "the kernel counts hint faults and tells them")


def pebs(root: Path = ROOT) -> Check:
    """Whether Intel's PMU tells which memory is accessed: for the policy access."""
    return _source(root, "pebs", CheckStatus.INFO, "loads of this thread can be sampled (mem-loads)")


def ibs(root: Path = ROOT) -> Check:
    """Whether AMD's CPUs tell which memory is accessed: for the policy access."""
    return _source(root, "ibs", CheckStatus.INFO, "instructions of this thread can be sampled (ibs_op)")


def damon(root: Path = ROOT) -> Check:
    """Whether DAMON's files can be written and are nobody else's: for accesses.heat."""
    works = "its threads can be set up; whether they can watch processes, the daemon tells"
    return _source(root, "damon", CheckStatus.INFO, works, room="heat", module="damon_obstacles")


def soft_dirty(root: Path = ROOT) -> Check:
    """Whether the kernel tells which pages a process wrote, and lets this user mark them: for accesses.heat."""
    return _source(root, "soft-dirty", CheckStatus.INFO, "pages that processes write are told", room="heat")


def _source(
    root: Path, source: str, status: CheckStatus, works: str, *, room: str = "accesses", module: str = ""
) -> Check:
    """Try a source of accesses, or of heat; `status` is for one that does not work."""
    name = f"{room}-{source}"
    try:
        found = importlib.import_module(f"balancerd.kernel.{room}.{module or source.replace('-', '_')}")
    except ImportError:
        return Check(name=name, status=CheckStatus.UNKNOWN, seen="unknown: the native core cannot be imported")
    try:
        obstacle = found.find_obstacle(root)
    except (OSError, ValueError) as error:
        return Check(name=name, status=CheckStatus.UNKNOWN, seen=f"unknown: {error}")
    if obstacle is None:
        return Check(name=name, status=CheckStatus.OK, seen=works)
    return Check(name=name, status=status, seen=obstacle.seen, fix=obstacle.fix)


def examine(root: Path = ROOT) -> tuple[Check, ...]:
    """Run every probe, the files below `root`; no probe raises."""
    checks = [kernel_release(), files.numa_nodes(root), native_core()]
    try:
        caller = OnePage()
    except (NotImplementedError, OSError) as error:
        checks.append(Check(name="move-pages", status=CheckStatus.UNKNOWN, seen=f"unknown: {error}"))
    else:
        checks += [query_self(caller), move_self(caller), move_all(caller, root)]
        with closing(foreign_pids()) as pids:
            checks.append(query_other(caller, pids, root))
    real = calls.RealCalls()
    checks += [calls.own_affinity(real)]
    with closing(foreign_pids()) as pids:
        checks.append(calls.other_affinity(real, pids, root))
    checks += [calls.process_madvise(real), calls.migrate_pages(real)]
    reads: tuple[Callable[[Path], Check], ...] = (
        files.seccomp,
        files.other_processes,
        files.numa_maps,
        files.kernel_balancing,
        files.transparent_huge_pages,
        files.hugetlb_pools,
        files.cgroup_version,
        files.perf_paranoia,
        guards.security_modules,
        guards.pressure,
        guards.swap,
        guards.demotion,
    )
    accesses = (register_sampling(root), hint_faults(root), kernel_counters(root), pebs(root), ibs(root))
    sources = (*accesses, damon(root), soft_dirty(root))
    held = guards.capabilities(root)
    return (*checks, pidfd(), *held, *(read(root) for read in reads), *sources, *other_managers(root))


def _refused_on_self(name: str, error: OSError) -> Check:
    """A process may always look at itself and move its own pages, so only a filter or the kernel's build can refuse."""
    built_out = "boot a kernel with CONFIG_NUMA=y and CONFIG_MIGRATION=y; or "
    return Check(
        name=name,
        status=CheckStatus.FAILURE,
        seen=f"move_pages fails on this very process: {_name(error.errno or 0)} ({error.strerror})",
        fix=(built_out if error.errno == errno.ENOSYS else "") + _SECCOMP_FIX,
    )


def _not_permitted(name: str, what: str, root: Path, capability: int, word: str) -> Check:
    """EPERM: tell a user without privileges from a root without capabilities, and both from a security module."""
    held = files.has_capability(root, capability)
    if held:
        return Check(
            name=name,
            status=CheckStatus.FAILURE,
            seen=f"{what} is refused though CAP_{word} is in effect",
            fix="leave the user namespace, or allow it in the security module (ausearch -m avc; dmesg | grep apparmor)",
        )
    if os.geteuid() != 0:
        return Check(
            name=name,
            status=CheckStatus.WARNING,
            seen=f"{what} is refused to this user; the daemon needs CAP_{word}",
            fix="try it with the daemon's rights: sudo balancerctl doctor",
        )
    return Check(
        name=name,
        status=CheckStatus.FAILURE,
        seen=f"{what} is refused: root lacks CAP_{word} here",
        fix=f"in Docker, --cap-add={word}; in Kubernetes, securityContext.capabilities.add: [{word}]; "
        f"in a unit, AmbientCapabilities=CAP_{word} and CapabilityBoundingSet=CAP_{word}",
    )


def _name(number: int) -> str:
    return errno.errorcode.get(number, f"errno {number}")
