"""How listening sockets are made: the kernel's permissions on them, and what may be replaced.

A library would create a unix socket open to everyone and remove whatever stood in its place. It must not know what is
said on a connection.
"""

import contextlib
import errno
import fcntl
import grp
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from balancerd.config.custody import ExposedError, check_kept

BACKLOG = 512
"""Connections that wait to be accepted; the kernel holds them."""

_NOBODY_THERE = {errno.ECONNREFUSED, errno.ENOENT}


class ServerError(Exception):
    """A listener could not be set up; the message says which and why."""


def group_id(name: str) -> int:
    """Return the number of a group. Raises ServerError when there is none of that name."""
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise ServerError(f"control: there is no group {name!r}: see group and change_group") from None


def listen_tcp(host: str, port: int) -> socket.socket:
    """Return a listening TCP socket at the first address of `host` that can be had. Raises OSError."""
    failed = OSError(f"{host!r} has no address")
    for family, _type, _protocol, _name, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        try:
            return socket.create_server(address[:2], family=family, backlog=BACKLOG, dualstack_ipv6=address[0] == "::")
        except OSError as error:
            failed = error
    raise failed


def listen_unix(path: Path, gid: int | None) -> socket.socket:
    """Return a listening unix socket at `path`, mode 0660 and of group `gid`, or mode 0600 when that is None.

    Raises OSError, and ServerError when the path is taken.
    """
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    try:
        check_kept(path.parent, shared=True)
    except ExposedError as reason:
        raise ServerError(f"control.socket: whoever asks there must reach this daemon: {reason.strerror}") from None
    with _locked(path.parent):  # two daemons that start at once must not both find the socket stale
        _remove_stale(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            os.fchmod(listener.fileno(), 0o600)  # bind() creates the file with the socket's mode, see unix(7)
            listener.bind(str(path))
            if gid is not None:
                _open_to(path, gid)
            listener.listen(BACKLOG)
        except BaseException:
            listener.close()
            raise
    return listener


def _open_to(path: Path, gid: int) -> None:
    try:
        os.chown(path, -1, gid, follow_symlinks=False)
        path.chmod(0o660)
    except PermissionError:
        path.unlink()
        raise ServerError(
            f"control.group: the daemon is no member of group {gid}, so cannot open {path} to it"
        ) from None


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _remove_stale(path: Path) -> None:
    try:
        kind = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise ServerError(f"cannot listen on {path}: something that is no socket stands there")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.setblocking(False)  # a full backlog is EAGAIN: somebody is there, however busy
        if caller.connect_ex(str(path)) not in _NOBODY_THERE:
            raise ServerError(f"cannot listen on {path}: another daemon answers there")
    path.unlink()


def identity(path: Path) -> tuple[int, int]:
    """Return what tells a file from a later one of the same name: device and inode. Raises OSError."""
    status = path.lstat()
    return status.st_dev, status.st_ino
