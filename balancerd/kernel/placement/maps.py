"""The mappings of one process from /proc/PID/maps. Owns how a line tells what a mapping holds.

Sources: proc_pid_maps(5); show_map_vma() in fs/proc/task_mmu.c; shmem_kernel_file_setup() callers in
mm/shmem.c, mm/memfd.c and fs/hugetlbfs/inode.c for the names of files that no directory holds.
"""

from collections.abc import Mapping

from balancerd.kernel.errors import ParseError
from balancerd.model.sample import Vma, VmaKind

_FILESYSTEM_KINDS = {
    b"tmpfs": VmaKind.SHMEM,
    b"devtmpfs": VmaKind.SHMEM,
    b"hugetlbfs": VmaKind.HUGETLB,
}


def parse_mountinfo(text: bytes, path: str) -> dict[bytes, VmaKind]:
    """Parse /proc/PID/mountinfo into the kind of the mappings of each device that holds no ordinary files.

    Keys are "major:minor" as maps writes them, two hexadecimal digits at least.
    """
    kinds: dict[bytes, VmaKind] = {}
    for number, line in enumerate(text.split(b"\n"), 1):
        if not line:
            continue
        before, dash, after = line.partition(b" - ")
        try:
            kind = _FILESYSTEM_KINDS.get(after.split()[0])
            if not dash or kind is None:
                continue
            major, minor = before.split()[2].split(b":")
            kinds[b"%02x:%02x" % (int(major), int(minor))] = kind
        except (IndexError, ValueError) as error:
            raise ParseError(path, number, line, "not a mount") from error
    return kinds


def parse_maps(text: bytes, path: str, device_kinds: Mapping[bytes, VmaKind]) -> tuple[Vma, ...]:
    r"""Parse every mapping that can be read, written or executed, in ascending order.

    Mappings without any permission are left out: they are reservations, and hold pages only where a program took
    the permission away afterwards. Names stay as the kernel writes them, newlines as "\012", with " (deleted)".
    `device_kinds` comes from `parse_mountinfo`. Raises ParseError.
    """
    vmas: list[Vma] = []
    known: dict[tuple[bytes, bytes, bytes], tuple[VmaKind, str]] = {}
    for number, line in enumerate(text.split(b"\n"), 1):
        if not line:
            continue
        words = line.split(None, 5)  # the name keeps its spaces: "start-end perms offset device inode   name"
        try:
            low, high = words[0].split(b"-")
            start, end = int(low, 16), int(high, 16)
            permissions, device, inode = words[1], words[3], words[4]
        except (ValueError, IndexError) as error:
            raise ParseError(path, number, line, "not a mapping") from error
        if len(permissions) != 4 or start >= end:
            raise ParseError(path, number, line, "not a mapping")
        if permissions.startswith(b"---"):
            continue
        raw_name = words[5] if len(words) == 6 else b""
        key = (raw_name, device, inode)
        if key not in known:
            known[key] = (
                _kind(raw_name, device, inode, device_kinds),
                raw_name.decode("utf-8", "backslashreplace"),
            )
        kind, name = known[key]
        vmas.append(
            Vma(
                start=start,
                end=end,
                kind=kind,
                shared=permissions[3:] == b"s",
                executable=permissions[2:3] == b"x",
                name=name,
            )
        )
    return tuple(vmas)


def _kind(name: bytes, device: bytes, inode: bytes, device_kinds: Mapping[bytes, VmaKind]) -> VmaKind:
    """Tell what a mapping holds from its name, and from the device when the name does not say."""
    if not name:
        return VmaKind.ANON if inode == b"0" else VmaKind.FILE
    if name.startswith(b"["):
        return _kind_in_brackets(name)
    if not name.startswith(b"/"):
        return VmaKind.SPECIAL  # "anon_inode:[perf_event]", "socket:[123]": pages of a driver
    if name.startswith((b"/anon_hugepage", b"/dev/hugepages")):
        return VmaKind.HUGETLB
    if name.startswith((b"/SYSV", b"/memfd:", b"/dev/shm/")) or name == b"/dev/zero (deleted)":
        return VmaKind.SHMEM
    if name == b"/dev/zero":
        return VmaKind.ANON  # a private mapping of it is anonymous memory, mmap_zero() in drivers/char/mem.c
    if name.startswith(b"/dev/"):
        # a device's own pages, but for hugetlbfs mounted under another name there
        return device_kinds[device] if device_kinds.get(device) is VmaKind.HUGETLB else VmaKind.SPECIAL
    return device_kinds.get(device, VmaKind.FILE)


def _kind_in_brackets(name: bytes) -> VmaKind:
    if name == b"[heap]":
        return VmaKind.HEAP
    if name.startswith(b"[stack"):
        return VmaKind.STACK  # also "[stack:TID]" of Linux 3.4 to 4.4
    if name.startswith(b"[anon_shmem:"):
        return VmaKind.SHMEM  # shared and named with PR_SET_VMA_ANON_NAME
    if name.startswith(b"[anon:"):
        return VmaKind.ANON
    return VmaKind.SPECIAL  # vdso, vvar, vvar_vclock, vsyscall, uprobes: pages of the kernel
