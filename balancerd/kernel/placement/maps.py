"""The mappings of one process from /proc/PID/maps, and the mounts that tell what their files are.

The line format and what a name means are known in native/maps.c, since a process may have tens of thousands of lines.
"""

from collections.abc import Sequence

from balancerd import native
from balancerd.kernel.errors import ParseError
from balancerd.model.sample import Vma, VmaKind
from balancerd.native.records import VMA_KINDS, Device, VmaRow

HUGE_PAGE_BYTES = 2 << 20
"""The smallest hugetlb page of x86-64. Asking a larger page once for each of these costs time and is still right."""

_KINDS = tuple(VmaKind(word) for word in VMA_KINDS)
_INHERITED = frozenset({"/dev/zero (deleted)", "/anon_hugepage (deleted)"})
"""What mmap(2) calls shared memory without a file, unless it was given a name, as in "[anon_shmem:name]"."""

_FILESYSTEM_KINDS = {b"tmpfs": VmaKind.SHMEM, b"devtmpfs": VmaKind.SHMEM, b"hugetlbfs": VmaKind.HUGETLB}
_UNITS = {b"K": 1 << 10, b"M": 1 << 20, b"G": 1 << 30}


def parse_mountinfo(text: bytes, path: str) -> tuple[Device, ...]:
    """Parse /proc/PID/mountinfo into the devices that hold no ordinary files. Raises ParseError.

    The page size of a hugetlbfs is its option pagesize=, see hugetlbfs_show_options() in fs/hugetlbfs/inode.c.
    """
    devices: dict[int, Device] = {}
    for number, line in enumerate(text.split(b"\n"), 1):
        if not line:
            continue
        before, dash, after = line.partition(b" - ")
        try:
            words = after.split()
            kind = _FILESYSTEM_KINDS.get(words[0])
            if not dash or kind is None:
                continue
            major, minor = before.split()[2].split(b":")
            device = int(major) << 20 | int(minor)
            devices[device] = Device(
                device=device, kind=_KINDS.index(kind), page_bytes=_page_bytes(words[-1]) if len(words) > 2 else 0
            )
        except (IndexError, ValueError) as error:
            raise ParseError(path, number, line, "not a mount") from error
    return tuple(devices.values())


def parse_maps(text: bytes, path: str, devices: Sequence[Device]) -> native.VmaTable:
    """Parse every mapping that can be read, written or executed, in ascending order.

    Mappings without any permission are left out: they are reservations, and hold pages only where a program took
    the permission away afterwards. `devices` comes from `parse_mountinfo`. Raises ParseError.
    """
    try:
        return native.parse_maps(text, devices, huge_bytes=HUGE_PAGE_BYTES)
    except native.MalformedTextError as error:
        line = text.split(b"\n", error.line_number)[error.line_number - 1]
        raise ParseError(path, error.line_number, line, "not a mapping") from error


def to_vma(row: VmaRow) -> Vma:
    """Return a mapping as the model has it; what only numa_maps tells is not known yet."""
    return Vma(
        start=row.start,
        end=row.end,
        kind=_KINDS[row.kind],
        shared=row.is_shared,
        executable=row.is_executable,
        program=row.is_program,
        guarded=row.is_guarded,
        own=row.is_own,
        name=row.name,
        backing=_backing(row),
    )


def _backing(row: VmaRow) -> str:
    """Return the device and inode of shared memory that nobody can open who was not given it; "" for all else.

    That is what fork(2) hands on, and memfd_create(2). Memory with a name, as in /dev/shm or by shmget(2), anybody may
    map who has the right to read it, and could draw away from those it belongs to.
    """
    if not row.is_shared or not (row.name in _INHERITED or row.name.startswith(("/memfd:", "[anon_shmem:"))):
        return ""
    return f"{row.device >> 20:x}:{row.device & 0xFFFFF:x}:{row.inode}"


def _page_bytes(options: bytes) -> int:
    """Return what pagesize= says, as in "rw,pagesize=1024M"; 0 without."""
    _, found, rest = options.partition(b"pagesize=")
    number = rest.partition(b",")[0]
    return int(number[:-1]) * _UNITS[number[-1:]] if found and number[-1:] in _UNITS else 0
