"""What a process may do to whoever looks at it: files without an end, and page faults that nobody answers."""

import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from balancerd import native
from balancerd.kernel.files import MOST_BYTES
from balancerd.kernel.live import LiveKernel
from balancerd.kernel.placement.pool import PatientReads, ReadPool
from balancerd.kernel.processes.identity import read_start_ticks
from balancerd.kernel.processes.opt_out import OptOuts
from balancerd.kernel.processes.process_files import ProcessFiles
from balancerd.model.decision import Reason
from balancerd.model.ids import ProcessId
from balancerd.model.sample import PAGE_BYTES, SampleRequest
from tests.unit.fakes import FakeClock, make_process
from tests.unit.kernel.children import child
from tests.unit.kernel.trees import write_tree
from tests.unit.kernel.worlds import NO_LIMITS
from tests.unit.native.memory import own_node

LIBC = """
import ctypes, os, struct, sys, threading
libc = ctypes.CDLL(None, use_errno=True)

def anonymous(n_bytes):
    libc.mmap.restype = ctypes.c_void_p
    return libc.mmap(None, ctypes.c_size_t(n_bytes), 3, 0x4022, -1, ctypes.c_long(0))  # MAP_NORESERVE too

def give_up(call):
    if ctypes.get_errno() in (1, 22, 38):  # EPERM, EINVAL, ENOSYS
        print(f"this kernel or user has no {call}", flush=True)
        sys.exit()
    raise OSError(ctypes.get_errno(), call)
"""

ENDLESS = (
    LIBC
    + """
N = int(sys.argv[1])
at = anonymous(N)
stat = open("/proc/self/stat").read().rpartition(")")[2].split()
start_code, end_code, start_stack = (int(stat[i - 3]) for i in (26, 27, 28))
start_data, end_data, start_brk = (int(stat[i - 3]) for i in (45, 46, 47))
libc.sbrk.restype = ctypes.c_void_p
fields = [start_code, end_code, start_data, end_data, start_brk, libc.sbrk(0), start_stack, at, at + N, at, at + N, 0]
new = struct.pack("=12QIi", *fields, 0, -1)  # struct prctl_mm_map
if libc.prctl(35, 14, new, ctypes.c_ulong(len(new)), 0):  # PR_SET_MM, PR_SET_MM_MAP
    give_up("PR_SET_MM_MAP")
print("ready", flush=True)
sys.stdin.read()
"""
)

UNANSWERED = (
    LIBC
    + """
fd = libc.syscall(323, 0o2000000)  # userfaultfd, O_CLOEXEC
if fd < 0:
    give_up("userfaultfd")
N = 16 * 4096
at = anonymous(N)
ctypes.memset(at, 1, 4096)
api = ctypes.create_string_buffer(struct.pack("=3Q", 0xAA, 0, 0))
assert libc.ioctl(fd, ctypes.c_ulong(0xC018AA3F), api) == 0  # UFFDIO_API
missing = ctypes.create_string_buffer(struct.pack("=4Q", at, N, 1, 0))
assert libc.ioctl(fd, ctypes.c_ulong(0xC020AA00), missing) == 0  # UFFDIO_REGISTER, for pages that are missing
there = ctypes.c_void_p(at + 8 * 4096)
threading.Thread(target=lambda: libc.memchr(there, 0, ctypes.c_size_t(1)), daemon=True).start()  # without the GIL
assert os.read(fd, 32)  # the fault is there; nobody will answer it
print("ready", at, flush=True)
sys.stdin.read()
"""
)


@contextmanager
def running(program: str, *arguments: object) -> Iterator[tuple[ProcessId, list[str]]]:
    """Run a program, which may say that this machine has not what it needs; its id, and what it said."""
    command = [sys.executable, "-ISE", "-c", program, *map(str, arguments)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as started:
        assert started.stdout is not None
        said = started.stdout.readline()
        try:
            if said.startswith("this "):
                pytest.skip(said)
            assert said.startswith("ready"), said
            yield ProcessId(started.pid, read_start_ticks(started.pid)), said.split()[1:]
        finally:
            started.kill()


def test_an_environment_of_gigabytes_is_read_up_to_where_a_true_one_ends() -> None:
    clock = FakeClock()
    reads = PatientReads(clock, ReadPool(), 60.0)
    files = ProcessFiles()
    with running(ENDLESS, 4 << 30) as (id_, _):
        tracemalloc.start()
        try:
            assert OptOuts(clock, reads).of(make_process(id_.pid, id=id_)) is None
            cmdline = files.cmdline(id_.pid)
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak_bytes < 32 << 20
    assert cmdline is None or len(cmdline) <= 4096
    files.close()
    reads.close()


def test_mappings_without_an_end_are_refused_and_others_are_sampled(tmp_path: Path) -> None:
    with child() as (_, hostile), child("m = mmap.mmap(-1, 1 << 20); m.write(b'x' * (1 << 20))") as (_, other):
        procfs = write_tree(
            tmp_path,
            {
                "self/mountinfo": "",
                f"{hostile.pid}/stat": Path(f"/proc/{hostile.pid}/stat").read_text(),
                f"{other.pid}/stat": Path(f"/proc/{other.pid}/stat").read_text(),
                f"{other.pid}/maps": Path(f"/proc/{other.pid}/maps").read_bytes(),
            },
        )
        with (procfs / f"{hostile.pid}/maps").open("wb") as maps:
            maps.truncate(MOST_BYTES + 1)  # as 1300 mappings of a file 50 KB deep are
        live = LiveKernel(FakeClock(), pace=NO_LIMITS, procfs=procfs)
        sampling = live.sample(tuple(SampleRequest(process=id_, rss_bytes=1 << 30) for id_ in (hostile, other)))
        live.close()
    assert [placement.process for placement in sampling.placements] == [other]
    (missed,) = sampling.missed
    assert (missed.process, missed.reason) == (hostile, Reason.UNREADABLE)
    assert "more than" in missed.detail


def test_a_page_whose_fault_nobody_answers_is_absent_for_whoever_asks_or_moves() -> None:
    """userfaultfd(2): the thread that touched the page waits for ever, and move_pages(2) never brings a page in."""
    with running(UNANSWERED) as (id_, (at,)):
        start = int(at)
        pages = native.RangeArray([(start, start + 16 * PAGE_BYTES, PAGE_BYTES)])
        found = native.placement(id_.pid, pages, n_nodes=own_node() + 1)
        assert (sum(found.on_node), found.by_errno) == (1, ((2, 15),))
        done = native.migrate(
            id_.pid, pages, node=own_node(), cursor=native.Cursor(), batch_pages=16, look_pages=16, huge_bytes=0
        )
        assert (done.already_on_target_pages, done.absent_pages, done.is_done) == (1, 15, True)
        for name in ("maps", "environ", "cmdline", "status", "numa_maps"):
            assert Path(f"/proc/{id_.pid}/{name}").read_bytes() is not None
