"""In whose hands a file is: what others may write, or put another in the place of, tells a privileged daemon nothing.

Owns who counts as others, and the way to a path: each step of it is opened before it is judged, and the next one is
looked up from there, so that nothing can be exchanged in between (see path_resolution(7), and O_PATH in open(2)). It
must not know what the files are for.
"""

import contextlib
import errno
import os
import stat
from collections import deque
from collections.abc import Collection, Iterator
from enum import StrEnum, unique
from pathlib import Path
from typing import Final

MOST_LINKS: Final = 40
"""What the kernel follows, see path_resolution(7)."""

_CODE: Final = Path(__file__).parent


class ExposedError(PermissionError):
    """Others may write to a file, or to a directory on the way to it; `strerror` says to which, and what to do."""


def is_privileged() -> bool:
    """Return whether this process may do what its user's other processes may not: it is root, or has a capability."""
    if os.geteuid() == 0:
        return True
    status = Path("/proc/self/status").read_bytes()
    return any(line.startswith(b"CapEff:") and int(line.split()[1], 16) for line in status.splitlines())


def objection(status: os.stat_result, *, shared: bool = False) -> str | None:
    """Return who else may write to a file or directory of this status, and the fix; None when nobody may.

    Nobody else is root, the daemon's user, and whoever may write the daemon's own code: a checkout serves its owner.
    With `shared`, a directory may be like /tmp, in which others touch only what is their own (the sticky bit).
    """
    code = _CODE.stat()
    group = code.st_gid if code.st_mode & stat.S_IWGRP else None
    exposure = find_exposure(status, owners={0, os.geteuid(), code.st_uid}, group=group)
    if exposure is Exposure.OWNER:
        return f"it belongs to user {status.st_uid}: chown root"
    if exposure is None or (shared and status.st_mode & stat.S_ISVTX):
        return None
    mode = stat.S_IMODE(status.st_mode)
    return f"others than root and the daemon's user may write to it, its mode is {mode:04o}: chmod go-w"


@unique
class Exposure(StrEnum):
    """What lets others write to a file."""

    OWNER = "owner"
    MODE = "mode"


def find_exposure(status: os.stat_result, *, owners: Collection[int], group: int | None) -> Exposure | None:
    """Return by what others than `owners` and the members of `group` may write to a file; None when they may not."""
    if status.st_uid not in owners:
        return Exposure.OWNER
    if stat.S_ISLNK(status.st_mode):  # its mode says nothing, see symlink(7)
        return None
    is_open = status.st_mode & stat.S_IWOTH or (status.st_mode & stat.S_IWGRP and status.st_gid != group)
    return Exposure.MODE if is_open else None


def open_kept(path: Path | str, flags: int = os.O_RDONLY, *, shared: bool = False) -> int:
    """Return a descriptor of a file or directory that nobody else can write to or exchange.

    An unprivileged process opens any. Symbolic links are followed, and judged likewise; what was handed over as a
    descriptor (/dev/stdin) is taken as it is. With `shared`, others may have files of their own in the directory.
    Raises OSError, and ExposedError.
    """
    if not is_privileged():
        return os.open(path, flags | os.O_CLOEXEC)
    with contextlib.ExitStack() as stack:
        return _Walk(stack, os.path.join(os.getcwd(), path)).open(flags, shared=shared)  # noqa: PTH109, PTH118


def check_kept(directory: Path | str, *, shared: bool = False) -> None:
    """Raise ExposedError when others can write to a directory, or put another in its place; one may be missing."""
    with contextlib.suppress(FileNotFoundError):
        os.close(open_kept(directory, os.O_PATH | os.O_DIRECTORY, shared=shared))


class _Walk:
    """The way from / to a path, of which every directory is held open until the end of `stack`."""

    def __init__(self, stack: contextlib.ExitStack, path: str) -> None:
        self._stack = stack
        self._steps = deque(_steps(path))
        self._links = 0
        self._at = self._root = self._hold(os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        self._told = "/"
        self._proc = Path("/proc").stat().st_dev

    def open(self, flags: int, *, shared: bool) -> int:
        while self._steps:
            name = self._steps.popleft()
            found = self._hold(os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._at))
            status = os.fstat(found)
            told = f"{self._told.rstrip('/')}/{name}"
            if stat.S_ISLNK(status.st_mode) and status.st_dev == self._proc:  # to where no path leads
                found = self._hold(os.open(name, os.O_PATH | os.O_CLOEXEC, dir_fd=self._at))
                if not self._steps:
                    return _reopen(found, flags)
            else:
                self._judge(found, status, told, shared=shared or bool(self._steps))
                if stat.S_ISLNK(status.st_mode):
                    self._follow(os.readlink("", dir_fd=found))
                    continue
            self._at, self._told = found, told
        return _reopen(self._at, flags)

    def _judge(self, fd: int, status: os.stat_result, told: str, *, shared: bool) -> None:
        if stat.S_ISCHR(status.st_mode):  # such as /dev/null: only root makes them
            return
        problem = objection(status, shared=shared)
        if problem is not None and not self._is_given(fd):
            raise ExposedError(errno.EPERM, f"{told}: {problem} {told}")

    def _is_given(self, fd: int) -> bool:
        """Whether a directory was mounted here just for this process, and read-only: a ConfigMap of Kubernetes is."""
        return bool(os.fstatvfs(fd).f_flag & os.ST_RDONLY) and _mount(fd) != _mount(self._at)

    def _follow(self, target: str) -> None:
        self._links += 1
        if self._links > MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        self._steps.extendleft(reversed([*_steps(target)]))
        if target.startswith("/"):
            self._at, self._told = self._root, "/"

    def _hold(self, fd: int) -> int:
        self._stack.callback(os.close, fd)
        return fd


def _steps(path: str) -> Iterator[str]:
    return (step for step in path.split("/") if step not in {"", "."})


def _reopen(fd: int, flags: int) -> int:
    """Open what a descriptor is of, and not what has its name by now."""
    return os.open(f"/proc/self/fd/{fd}", flags | os.O_CLOEXEC)


def _mount(fd: int) -> str:
    """Return which mount a descriptor is on, see proc_pid_fdinfo(5)."""
    lines = Path(f"/proc/self/fdinfo/{fd}").read_text(encoding="ascii").splitlines()
    return next((line for line in lines if line.startswith("mnt_id:")), "")
