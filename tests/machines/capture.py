"""Capture the kernel's own texts for parser tests: `python tests/machines/capture.py DIRECTORY`, as root.

Starts one process whose mappings show every form of line in maps, smaps and numa_maps, and copies its files, the
nodes in sysfs, and what procfs and sysfs tell of memory, CPUs and settings below DIRECTORY under their names on the
machine. Run it in the lab for machines
with several nodes (`python -m tests.lab run --topology NAME -- ...`); "-" writes a tar archive to stdout. The first
line of README says where a capture comes from.
"""

import contextlib
import ctypes
import io
import mmap
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

BOUND_PAGES = 4
MODES = {  # include/uapi/linux/mempolicy.h
    "preferred": 1,
    "bind": 2,
    "interleave": 3,
    "local": 4,
    "preferred-many": 5,
    "weighted-interleave": 6,
}
STATIC_NODES, RELATIVE_NODES, NUMA_BALANCING = 1 << 15, 1 << 14, 1 << 13
SYS_MBIND = 237  # x86-64
HUGE_BYTES = 2 << 20
MAP_HUGETLB, MAP_NORESERVE = 0x40000, 0x4000
PRIVATE = re.compile(r" /(mnt|work|home|root)\b|9p")  # mounts that say more of the captured machine than of the kernel
PR_SET_VMA, PR_SET_VMA_ANON_NAME = 0x53564D41, 0
OF_THE_MACHINE = (
    "proc/zoneinfo",
    "proc/buddyinfo",
    "proc/meminfo",
    "proc/stat",
    "proc/pressure/*",
    "proc/sys/kernel/numa_balancing",
    "sys/devices/system/cpu/{online,possible,present,offline}",
    "sys/devices/system/node/{online,possible,has_memory,has_cpu,has_normal_memory}",
    "sys/devices/system/node/node[0-9]*/{cpulist,distance,meminfo}",
    "sys/devices/system/node/node[0-9]*/access[0-9]*/initiators/*",
    "sys/devices/system/node/node[0-9]*/memory_side_cache/index*/{size,line_size,indexing,write_policy}",
    "sys/devices/system/node/node[0-9]*/hugepages/*/{nr,free}_hugepages",
    "sys/kernel/mm/hugepages/*/{nr,free}_hugepages",
    "sys/devices/virtual/memory_tiering/*/nodelist",
    "sys/kernel/mm/numa/demotion_enabled",
    "sys/kernel/mm/transparent_hugepage/{enabled,defrag,hpage_pmd_size}",
)
"""Files to copy as they are; a link to a node stays a link."""


def bind(address: int, length: int, mode: int, nodes: int) -> str:
    libc = ctypes.CDLL(None, use_errno=True)
    mask = ctypes.c_ulong(nodes)
    failed = libc.syscall(SYS_MBIND, ctypes.c_void_p(address), length, mode, ctypes.byref(mask), 64, 0)
    return os.strerror(ctypes.get_errno()) if failed else "ok"


def map_memory(length: int, flags: int, fd: int = -1, prot: int = mmap.PROT_READ | mmap.PROT_WRITE) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    address = libc.mmap(None, length, prot, flags, fd, 0)
    return 0 if address in {None, ctypes.c_void_p(-1).value} else int(address)


def exhibit(scratch: Path, nodes: list[int]) -> None:
    """Make mappings of every kind, say what the kernel refused, and wait to be read."""
    libc = ctypes.CDLL(None, use_errno=True)
    private, shared = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS
    length = BOUND_PAGES * mmap.PAGESIZE
    every = sum(1 << n for n in nodes)
    last = 1 << nodes[-1]
    forms = [(name, mode, every) for name, mode in MODES.items() if name not in {"preferred", "local"}]
    forms += [("preferred", MODES["preferred"], last), ("local", MODES["local"], 0)]
    forms += [("bind=static", MODES["bind"] | STATIC_NODES, last), ("bind=relative", MODES["bind"] | RELATIVE_NODES, 1)]
    forms += [("bind=balancing", MODES["bind"] | NUMA_BALANCING, every)]
    forms += [("bind=static|balancing", MODES["bind"] | STATIC_NODES | NUMA_BALANCING, last)]
    for name, mode, mask in forms:
        address = map_memory(length, private)
        print(name, bind(address, length, mode, mask), flush=True)
        ctypes.memset(address, 1, length)
    map_memory(length, private, prot=0)
    map_memory(1 << 40, private | MAP_NORESERVE)
    for flags in (shared, private):
        address = map_memory(length, flags)
        ctypes.memset(address, 1, length)
        print("name", libc.prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, ctypes.c_void_p(address), length, b"a name"))
    for flags in (private | MAP_HUGETLB, shared | MAP_HUGETLB):
        address = map_memory(HUGE_BYTES, flags)
        print("hugetlb", bool(address), flush=True)
        if address:
            ctypes.memset(address, 1, HUGE_BYTES)
    map_memory(HUGE_BYTES, private | MAP_HUGETLB)  # no page of it is ever touched
    for name in ("with a space", "with\na newline", "gone", "tab\tand=equals", "caf\u00e9"):
        path = scratch / name
        path.write_bytes(b"x" * length)
        with path.open("r+b") as file:
            ctypes.memset(map_memory(length, mmap.MAP_SHARED, file.fileno()), 2, length)
    (scratch / "gone").unlink()
    for path in (Path("/dev/shm/capture shm"), Path("/dev/zero")):
        fd = os.open(path, os.O_RDWR | os.O_CREAT)
        if path.name != "zero":
            os.ftruncate(fd, length)
        for flags in (mmap.MAP_SHARED, mmap.MAP_PRIVATE):
            ctypes.memset(map_memory(length, flags, fd), 3, length)
    Path("/dev/shm/capture shm").unlink()
    for memfd_flags in (0, os.MFD_HUGETLB):
        fd = os.memfd_create("a memfd", memfd_flags)
        os.ftruncate(fd, HUGE_BYTES)
        print("memfd", bool(map_memory(HUGE_BYTES, mmap.MAP_SHARED, fd)), flush=True)
    libc.shmat.restype = ctypes.c_void_p
    print("shmat", libc.shmat(libc.shmget(0x1234, length, 0o1600), None, 0), flush=True)
    print("ready", flush=True)
    sys.stdin.read()


def copy(source: Path, target: Path) -> None:
    if source.is_symlink() or source.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_symlink():
        target.symlink_to(source.readlink())
    elif source.is_file():
        with contextlib.suppress(OSError):  # pressure files without pressure, attributes that only take
            target.write_bytes(source.read_bytes())


def matching(root: Path, pattern: str) -> list[Path]:
    """Return what a glob with one {a,b,c} at most finds below `root`."""
    before, _, rest = pattern.partition("{")
    names, _, after = rest.partition("}")
    return [path for name in names.split(",") for path in sorted(root.glob(before + name + after))]


def capture(directory: Path, root: Path = Path("/")) -> None:
    for pattern in OF_THE_MACHINE:
        for path in matching(root, pattern):
            copy(path, directory / path.relative_to(root))
    huge = Path("/proc/sys/vm/nr_hugepages")
    huge_before = huge.read_text()
    huge.write_text("16")
    nodes = sorted(int(n.name[4:]) for n in (root / "sys/devices/system/node").glob("node[0-9]*"))
    with tempfile.TemporaryDirectory(prefix="capture-") as scratch:
        child = subprocess.Popen(
            [sys.executable, "-ISE", __file__, "--exhibit", scratch, *map(str, nodes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdin is not None
        assert child.stdout is not None
        log: list[str] = []
        while (line := child.stdout.readline()) and line != "ready\n":
            log.append(line)
        for name in ("maps", "smaps", "numa_maps", "status", "stat", "statm", "cgroup", "sched"):
            copy(Path(f"/proc/{child.pid}/{name}"), directory / "proc/exhibit" / name)
        mounts = Path("/proc/self/mountinfo").read_text().splitlines(keepends=True)
        (directory / "proc/exhibit/mountinfo").write_text("".join(m for m in mounts if PRIVATE.search(m) is None))
        child.stdin.close()
        child.wait()
        child.stdout.close()
    huge.write_text(huge_before)
    (directory / "exhibit.log").write_text("".join(log))
    (directory / "README").write_text(
        f"Captured by tests/machines/capture.py on {platform.release()}, {len(nodes)} nodes.\n"
    )


def main() -> None:
    if sys.argv[1] == "--exhibit":
        exhibit(Path(sys.argv[2]), [int(n) for n in sys.argv[3:]])
    elif sys.argv[1] == "-":
        directory = Path(tempfile.mkdtemp())
        capture(directory)
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            archive.add(directory, ".")
        shutil.rmtree(directory)
        sys.stdout.buffer.write(buffer.getvalue())
    else:
        capture(Path(sys.argv[1]))


if __name__ == "__main__":
    main()
