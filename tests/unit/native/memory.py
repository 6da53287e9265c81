"""Mappings of this process and of children, of which each page's state is known."""

import ctypes
import mmap
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

from balancerd.kernel.processes.status import parse_stat

T = TypeVar("T")

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user for one thread")

PAGE = 4096
SETRESUID = 117  # arch/x86/entry/syscalls/syscall_64.tbl

_CHILD = f"""
import ctypes, mmap, sys
area = mmap.mmap(-1, int(sys.argv[1]) * {PAGE}, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
area.madvise(mmap.MADV_NOHUGEPAGE)
for page in range(int(sys.argv[2])):
    area[page * {PAGE}] = 1
print(ctypes.addressof(ctypes.c_char.from_buffer(area)), flush=True)
sys.stdin.read()
"""


def address_of(area: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(area))


def map_pages(pages: int) -> mmap.mmap:
    """An untouched private mapping of base pages in this process."""
    area = mmap.mmap(-1, pages * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    area.madvise(mmap.MADV_NOHUGEPAGE)
    return area


def touch(area: mmap.mmap, first: int, end: int) -> None:
    for page in range(first, end):
        area[page * PAGE] = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """A process with one mapping, whose first pages are touched."""

    process: subprocess.Popen[str]
    start: int
    end: int


@contextmanager
def child(pages: int, touched: int) -> Iterator[Child]:
    argv = [sys.executable, "-ISE", "-c", _CHILD, str(pages), str(touched)]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        start = int(process.stdout.readline())
        yield Child(process=process, start=start, end=start + pages * PAGE)
    finally:
        process.kill()
        process.communicate()


def without_privileges(function: Callable[[], T]) -> T:
    """Run a function in a thread of another user: the raw system call changes the calling thread alone."""
    results: list[T] = []

    def run() -> None:
        assert ctypes.CDLL(None).syscall(SETRESUID, 65534, 65534, 65534) == 0
        results.append(function())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return results[0]


def kernel_thread() -> int:
    """The pid of one; the test is skipped where none is visible from this PID namespace."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            stat = parse_stat(path.read_bytes(), str(path))
            if stat.kernel_thread:
                return stat.pid
    pytest.skip("no kernel thread is visible from this PID namespace")


def own_node() -> int:
    """The node of this machine where new pages go when there is only one with memory."""
    text = Path("/sys/devices/system/node/has_memory").read_text().strip()
    return int(text.replace(",", "-").split("-")[0])


def node_count() -> int:
    text = Path("/sys/devices/system/node/has_memory").read_text().strip()
    return int(text.replace(",", "-").split("-")[-1]) + 1
