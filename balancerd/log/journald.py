"""The native protocol of systemd-journald: datagrams of fields, see https://systemd.io/JOURNAL_NATIVE_PROTOCOL/.

Owns the socket, and how a field is written. Nothing here ever raises: a journal that is gone, or that does not read, is
no reason to stop, and it holds up whoever logs for a moment, once. It must not know what is logged.
"""

import errno
import fcntl
import os
import socket
import struct
import threading
from collections.abc import Iterable, Mapping
from typing import Final

SOCKET: Final = "/run/systemd/journal/socket"

_BLOCKED_SECONDS: Final = 0.25
"""So long a datagram waits for a journal that is behind; the next ones do not until it reads again."""

_SEND_BUFFER_BYTES: Final = 8 << 20
"""What sd_journal_send(3) asks for; the kernel gives what net.core.wmem_max allows."""

_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL

Field = tuple[str, str]
"""A name of capital letters, digits and "_", and a value of any characters."""


def is_journal(fd: int, environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether what is written to `fd` goes to the journal: JOURNAL_STREAM names its device and inode.

    See systemd.exec(5): a program that inherits the variable may have other streams than the one it is about.
    """
    device, _, inode = environment.get("JOURNAL_STREAM", "").partition(":")
    if not all(text.isascii() and text.isdecimal() for text in (device, inode)):
        return False
    try:
        about = os.fstat(fd)
    except OSError:
        return False
    return (about.st_dev, about.st_ino) == (int(device), int(inode))


def encode(fields: Iterable[Field]) -> bytes:
    """Return fields as a datagram: NAME=value, or with a length before the value where that has a line's end."""
    parts: list[bytes] = []
    for name, value in fields:
        data, key = value.encode("utf-8", "surrogateescape"), name.encode("ascii")
        if b"\n" in data:
            parts.append(key + b"\n" + struct.pack("<Q", len(data)) + data + b"\n")
        else:
            parts.append(key + b"=" + data + b"\n")
    return b"".join(parts)


class Journal:
    """Sends entries to the journal that listens on `path`. For any thread."""

    def __init__(self, path: str = SOCKET) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._is_behind = False
        self.lost_entries = 0

    def send(self, fields: Iterable[Field]) -> bool:
        """Send one entry; False, and counted, when the journal did not take it."""
        with self._lock:
            try:
                self._send(encode(fields))
            except (OSError, ValueError):
                self.lost_entries += 1
                return False
            return True

    def close(self) -> None:
        """Close the socket."""
        with self._lock:
            if self._socket is not None:
                self._socket.close()
                self._socket = None

    def _send(self, data: bytes) -> None:
        channel = self._open()
        channel.settimeout(0.0 if self._is_behind else _BLOCKED_SECONDS)
        try:
            channel.sendmsg([data], [], socket.MSG_NOSIGNAL, self._path)
        except (BlockingIOError, TimeoutError):
            self._is_behind = True
            raise
        except OSError as error:
            if error.errno not in {errno.EMSGSIZE, errno.ENOBUFS}:
                raise
            self._send_file(channel, data)
        self._is_behind = False

    def _send_file(self, channel: socket.socket, data: bytes) -> None:
        """Send what is too large for a datagram as a sealed file in memory, of which only the descriptor goes over."""
        fd = os.memfd_create("balancerd-journal", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", fd))
            channel.sendmsg([], [rights], socket.MSG_NOSIGNAL, self._path)

    def _open(self) -> socket.socket:
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        return self._socket
