"""Reading the mappings of a process, with what the mounts tell of their files. Remembers the mounts, for a minute."""

from collections.abc import Mapping

from balancerd.kernel.files import read_bytes
from balancerd.kernel.placement.maps import parse_maps, parse_mountinfo
from balancerd.model.sample import Vma, VmaKind
from balancerd.ports import Clock

_MOUNTS_SECONDS = 60.0


class Mappings:
    """Reads /proc/PID/maps below `procfs`."""

    def __init__(self, clock: Clock, procfs: str = "/proc") -> None:
        self.procfs = procfs
        self._clock = clock
        self._device_kinds: tuple[float, Mapping[bytes, VmaKind]] | None = None

    def read(self, pid: int) -> tuple[Vma, ...]:
        """Return the mappings of `pid` in ascending order, but for those without any permission.

        Takes the mmap lock of the process for reading. Raises ParseError and OSError; FileNotFoundError and
        ProcessLookupError mean that the process is gone.
        """
        path = f"{self.procfs}/{pid}/maps"
        return parse_maps(read_bytes(path), path, self._kinds())

    def _kinds(self) -> Mapping[bytes, VmaKind]:
        """Return which devices are tmpfs or hugetlbfs."""
        now = self._clock.now()
        if self._device_kinds is None or now - self._device_kinds[0] >= _MOUNTS_SECONDS:
            path = f"{self.procfs}/self/mountinfo"
            self._device_kinds = (now, parse_mountinfo(read_bytes(path), path))
        return self._device_kinds[1]
