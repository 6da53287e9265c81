"""The small files of one process: /proc/PID/{status,cgroup,stat,cmdline}. Owns their spelling; remembers nothing."""

from dataclasses import dataclass

from balancerd.kernel.errors import ParseError
from balancerd.model.ids import CpuId, NodeId, parse_id_list

KERNEL_THREAD_FLAG = 0x00200000
"""PF_KTHREAD, include/linux/sched.h: bit in field 9 of /proc/PID/stat."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What matters of /proc/PID/status. The lists are None on a kernel built without cpusets.

    `hugetlb_bytes` are the hugetlb pages that the process uses, which its resident size does not count.
    """

    uid: int
    hugetlb_bytes: int
    cpus_allowed: frozenset[CpuId] | None
    mems_allowed: frozenset[NodeId] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stat:
    """What matters of /proc/PID/stat: times in clock ticks, resident size in base pages."""

    pid: int
    comm: str
    flags: int
    cpu_ticks: int
    n_threads: int
    start_ticks: int
    rss_pages: int
    last_cpu: CpuId

    @property
    def kernel_thread(self) -> bool:
        """Whether it is a thread of the kernel, without an address space of its own."""
        return bool(self.flags & KERNEL_THREAD_FLAG)


def parse_status(text: bytes, path: str) -> Status:
    """Parse /proc/PID/status (proc_pid_status(5)); `uid` is the effective one, as ps(1) shows it."""
    uid = _field(text, b"\nUid:")
    if uid is None:
        raise ParseError(path, 0, text, "no Uid")
    cpus = _field(text, b"\nCpus_allowed_list:")
    mems = _field(text, b"\nMems_allowed_list:")
    hugetlb = _field(text, b"\nHugetlbPages:") or b"0 kB"
    try:
        return Status(
            uid=int(uid.split()[1]),
            hugetlb_bytes=int(hugetlb.split()[0]) * 1024,
            cpus_allowed=None if cpus is None else frozenset(map(CpuId, parse_id_list(cpus.decode("ascii")))),
            mems_allowed=None if mems is None else frozenset(map(NodeId, parse_id_list(mems.decode("ascii")))),
        )
    except (ValueError, IndexError) as error:
        raise ParseError(
            path, 0, b" ".join(f for f in (uid, hugetlb, cpus, mems) if f is not None), str(error)
        ) from error


def _field(text: bytes, name: bytes) -> bytes | None:
    """Return the value behind `name`; a newline in Name: is escaped by the kernel, so it cannot pose as a field."""
    at = text.find(name)
    if at < 0:
        return None
    at += len(name)
    end = text.find(b"\n", at)
    return text[at : end if end >= 0 else len(text)].strip()


def parse_cgroup(text: bytes, path: str) -> str:
    """Parse /proc/PID/cgroup (cgroups(7)) into the path that says most about where the process belongs.

    That is the v2 path, unless it is the root while a v1 hierarchy of cpuset or memory knows better,
    as on hybrid systems. Raises ParseError when a line is not "id:controllers:path".
    """
    unified, cpuset, memory = "", "", ""
    for number, line in enumerate(text.split(b"\n"), 1):
        if not line:
            continue
        parts = line.split(b":", 2)
        if len(parts) != 3 or not parts[2].startswith(b"/"):
            raise ParseError(path, number, line, "not a cgroup membership")
        where = parts[2].decode("utf-8", "backslashreplace")
        controllers = parts[1].split(b",")
        if parts[0] == b"0" and not parts[1]:
            unified = where
        if b"cpuset" in controllers:
            cpuset = where
        if b"memory" in controllers:
            memory = where
    known = [where for where in (unified, cpuset, memory) if where]
    return next((where for where in known if where != "/"), "/")


def parse_cmdline(text: bytes) -> str:
    """Parse /proc/PID/cmdline (proc_pid_cmdline(5)): arguments between spaces; "" for a zombie or a kernel thread."""
    return text.rstrip(b"\0").replace(b"\0", b" ").decode("utf-8", "backslashreplace")


def parse_stat(text: bytes, path: str) -> Stat:
    """Parse /proc/PID/stat or /proc/PID/task/TID/stat (proc_pid_stat(5)); the name may hold anything, even ") R 1"."""
    opening, closing = text.find(b"("), text.rfind(b")")
    fields = text[closing + 2 :].split()  # fields[0] is field 3 of the man page
    if opening < 0 or closing < opening or len(fields) < 37:
        raise ParseError(path, 1, text, "too few fields")
    try:
        return Stat(
            pid=int(text[:opening]),
            comm=text[opening + 1 : closing].decode("utf-8", "backslashreplace"),
            flags=int(fields[6]),
            cpu_ticks=int(fields[11]) + int(fields[12]),
            n_threads=int(fields[17]),
            start_ticks=int(fields[19]),
            rss_pages=int(fields[21]),
            last_cpu=CpuId(int(fields[36])),
        )
    except ValueError as error:
        raise ParseError(path, 1, text, "a field is not a number") from error
