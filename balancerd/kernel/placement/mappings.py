"""Reading the mappings of a process, with what the mounts tell of their files. Remembers the mounts, for a minute."""

from balancerd import native
from balancerd.kernel.files import read_bytes
from balancerd.kernel.placement.maps import parse_maps, parse_mountinfo, to_vma
from balancerd.model.sample import Vma
from balancerd.native.records import Device
from balancerd.ports import Clock

_MOUNTS_SECONDS = 60.0


class Mappings:
    """Reads /proc/PID/maps below `procfs`."""

    def __init__(self, clock: Clock, procfs: str = "/proc") -> None:
        self.procfs = procfs
        self._clock = clock
        self._devices: tuple[float, tuple[Device, ...]] | None = None

    def table(self, pid: int) -> native.VmaTable:
        """Return the mappings of `pid` in ascending order, but for those without any permission.

        Takes the mmap lock of the process for reading. Raises ParseError and OSError; FileNotFoundError and
        ProcessLookupError mean that the process is gone.
        """
        path = f"{self.procfs}/{pid}/maps"
        return parse_maps(read_bytes(path), path, self._memory_devices())

    def read(self, pid: int) -> tuple[Vma, ...]:
        """Return the same as one object for each mapping, which takes microseconds each."""
        table = self.table(pid)
        return tuple(to_vma(table.row(i)) for i in range(len(table)))

    def _memory_devices(self) -> tuple[Device, ...]:
        """Return which devices are tmpfs or hugetlbfs."""
        now = self._clock.now()
        if self._devices is None or now - self._devices[0] >= _MOUNTS_SECONDS:
            path = f"{self.procfs}/self/mountinfo"
            self._devices = (now, parse_mountinfo(read_bytes(path), path))
        return self._devices[1]
