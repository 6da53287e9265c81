"""Reading the small files of a process: stat, status, cgroup, exe and cmdline. Remembers nothing.

None but cmdline takes the lock of the address space of the process that is read, so none can wait for it.
"""

import contextlib
import os

from balancerd.kernel.files import read_bytes
from balancerd.kernel.processes.status import Stat, Status, parse_cgroup, parse_cmdline, parse_stat, parse_status

_CMDLINE_BYTES = 4096
_DELETED = " (deleted)"


class ProcessFiles:
    """Reads /proc/PID/{stat,status,cgroup,exe,cmdline} below `procfs`.

    Every method raises OSError and ParseError of its file.
    """

    def __init__(self, procfs: str = "/proc") -> None:
        self.path = procfs
        self.directory_fd = os.open(procfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def close(self) -> None:
        """Give the directory back; nothing can be read any more."""
        os.close(self.directory_fd)

    def stat(self, pid: int) -> Stat:
        """Read /proc/PID/stat."""
        return parse_stat(self._read(f"{pid}/stat"), f"{self.path}/{pid}/stat")

    def status(self, pid: int) -> Status:
        """Read /proc/PID/status."""
        return parse_status(self._read(f"{pid}/status"), f"{self.path}/{pid}/status")

    def cgroup(self, pid: int) -> str:
        """Read /proc/PID/cgroup."""
        return parse_cgroup(self._read(f"{pid}/cgroup"), f"{self.path}/{pid}/cgroup")

    def exe(self, pid: int) -> str | None:
        """Return the path of the program, also when the file is deleted by now; None when we may not know it."""
        try:
            target = os.readlink(f"{pid}/exe", dir_fd=self.directory_fd)
        except PermissionError:
            return None
        return os.fsencode(target).decode("utf-8", "backslashreplace").removesuffix(_DELETED)

    def cmdline(self, pid: int) -> str | None:
        """Return the first 4096 bytes of the command line; None when we may not know it, or it is empty.

        It lies in the memory of the process, so this waits while the process holds its mmap lock for writing.
        """
        try:
            fd = os.open(f"{pid}/cmdline", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.directory_fd)
        except PermissionError:
            return None
        with contextlib.closing(os.fdopen(fd, "rb", buffering=0)) as file:
            return parse_cmdline(file.read(_CMDLINE_BYTES)) or None

    def _read(self, path: str) -> bytes:
        return read_bytes(path, self.directory_fd)
