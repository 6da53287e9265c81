"""Whether the calls beside move_pages(2) are allowed that policies and commands make: tried, and nothing changes by it.

Each is tried in a way that leaves everything as it is: a mask that is set already, one page of this process that is
called cold, a move of this process's memory from a node to the same node. It must not know how a check is printed.
"""

import errno
import mmap
import os
import platform
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

import cffi

from balancerd.kernel.doctor import files
from balancerd.kernel.doctor.files import CAP_SYS_NICE, ROOT, Check, CheckStatus

MIGRATE_PAGES: Final[Mapping[str, int]] = {"x86_64": 256, "aarch64": 238, "riscv64": 238}  # asm/unistd_64.h
PROCESS_MADVISE: Final = 440  # the same everywhere: asm-generic/unistd.h
MADV_COLD: Final = 20  # asm-generic/mman-common.h
MOST_NODES: Final = 1024

_FILTER_FIX: Final = (
    "allow it in the seccomp filter: in a unit, SystemCallFilter=@system-service; in Docker, seccomp=unconfined"
)


class Calls(Protocol):
    """The calls that are tried. Each raises OSError when the kernel refuses."""

    def set_affinity(self, pid: int) -> None:
        """Give a process the affinity that it has."""
        ...

    def advise_cold(self, pidfd: int) -> None:
        """Call one page of this process cold, which is only advice."""
        ...

    def migrate_to_same(self, pid: int) -> None:
        """Move the memory of a process from one node to the same node."""
        ...


class RealCalls:
    """The real Calls, by raw syscalls where Python has none; they work where the native core does not load."""

    def __init__(self) -> None:
        """Allocate one touched page."""
        self._ffi = cffi.FFI()
        self._ffi.cdef("struct iovec { void *base; size_t length; }; long syscall(long number, ...);")
        self._libc: Any = self._ffi.dlopen(None)
        self._page = mmap.mmap(-1, mmap.PAGESIZE)
        self._page[0] = 1

    def set_affinity(self, pid: int) -> None:
        """See Calls."""
        os.sched_setaffinity(pid, os.sched_getaffinity(pid))

    def advise_cold(self, pidfd: int) -> None:
        """See Calls."""
        new, cast = self._ffi.new, self._ffi.cast
        vector = new("struct iovec *", {"base": self._ffi.from_buffer(self._page), "length": mmap.PAGESIZE})
        self._call(PROCESS_MADVISE, cast("long", pidfd), vector, *(cast("long", n) for n in (1, MADV_COLD, 0)))

    def migrate_to_same(self, pid: int) -> None:
        """See Calls."""
        number = MIGRATE_PAGES.get(platform.machine())
        if number is None:
            raise OSError(errno.ENOSYS, f"its number on {platform.machine()} is not known")
        cast = self._ffi.cast
        nodes = self._ffi.new("unsigned long[]", [1] + [0] * (MOST_NODES // 64 - 1))  # node 0: always there
        self._call(number, cast("long", pid), cast("long", MOST_NODES), nodes, nodes)

    def _call(self, number: int, *arguments: Any) -> None:
        if self._libc.syscall(self._ffi.cast("long", number), *arguments) < 0:
            raise OSError(self._ffi.errno, os.strerror(self._ffi.errno))


def own_affinity(calls: Calls) -> Check:
    """Whether sched_setaffinity(2) works at all: for the policy threads, on threads of the same user."""
    return _tried(
        "set-affinity",
        lambda: calls.set_affinity(0),
        works="this process may set its own affinity",
        lost="the policy threads cannot work",
    )


def other_affinity(calls: Calls, pids: Iterable[int], root: Path = ROOT) -> Check:
    """Whether sched_setaffinity(2) works on a process of another user: needs CAP_SYS_NICE, for the policy threads."""
    name = "set-affinity-others"
    for pid in pids:
        try:
            calls.set_affinity(pid)
        except ProcessLookupError:
            continue
        except PermissionError:
            return _not_permitted(name, f"the affinity of process {pid}", root)
        except OSError as error:
            if error.errno == errno.EINVAL:  # a per-CPU kernel thread
                continue
            return _refused(name, error, "the policy threads cannot work")
        return Check(name=name, status=CheckStatus.OK, seen="threads of other users can be moved (CAP_SYS_NICE)")
    return Check(name=name, status=CheckStatus.UNKNOWN, seen="unknown: no other process to try it on")


def process_madvise(calls: Calls) -> Check:
    """Whether a page can be called cold, by process_madvise: for the policy cold-eviction, and balancerctl evict."""

    def advise() -> None:
        pidfd = os.pidfd_open(os.getpid())
        try:
            calls.advise_cold(pidfd)
        finally:
            os.close(pidfd)

    lost = "the policy cold-eviction and balancerctl evict cannot work"
    return _tried("process-madvise", advise, works="a page of this process may be called cold", lost=lost)


def migrate_pages(calls: Calls) -> Check:
    """Whether memory can be moved in one go, by migrate_pages: for `balancerctl move --whole`."""
    return _tried(
        "migrate-pages",
        lambda: calls.migrate_to_same(0),
        works="memory of this process may be moved by it",
        lost="balancerctl move --whole cannot work",
    )


def _tried(name: str, call: Callable[[], None], *, works: str, lost: str) -> Check:
    try:
        call()
    except OSError as error:
        return _refused(name, error, lost)
    return Check(name=name, status=CheckStatus.OK, seen=works)


def _refused(name: str, error: OSError, lost: str) -> Check:
    """Tell what works less without it: moving memory along does not need any of these calls."""
    missing = error.errno == errno.ENOSYS
    fix = f"boot a newer kernel (process_madvise: 5.10), or {_FILTER_FIX}" if missing else _FILTER_FIX
    told = f"refused: {errno.errorcode.get(error.errno or 0, str(error.errno))} ({error.strerror}); {lost}"
    return Check(name=name, status=CheckStatus.WARNING, seen=told, fix=fix)


def _not_permitted(name: str, what: str, root: Path) -> Check:
    if files.has_capability(root, CAP_SYS_NICE):
        seen = f"{what} may not be set though CAP_SYS_NICE is in effect"
        fix = "leave the user namespace, or allow it in the security module (ausearch -m avc; dmesg | grep apparmor)"
    elif os.geteuid() != 0:
        seen = f"{what} may not be set by this user; the policy threads needs CAP_SYS_NICE"
        fix = "try it with the daemon's rights: sudo balancerctl doctor"
    else:
        seen = f"{what} may not be set: root lacks CAP_SYS_NICE here, and the policy threads cannot work"
        fix = "in Docker, --cap-add=SYS_NICE; in a unit, AmbientCapabilities= and CapabilityBoundingSet=CAP_SYS_NICE"
    return Check(name=name, status=CheckStatus.WARNING, seen=seen, fix=fix)
