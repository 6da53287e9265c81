"""What the kernel says of the other end of a connection. Must not know who may do what (see access)."""

import contextlib
import select
import socket
import struct
from collections.abc import Iterable

from balancerd.control.access import Peer

SO_PEERGROUPS = 59
"""include/uapi/asm-generic/socket.h, since Linux 4.13; Python 3.13 has no name for it."""

_LARGEST_OPTION_BYTES = 1024
"""What Python's getsockopt() can fetch: 256 groups. Who has more is judged by the primary group alone."""


def read_peer(connection: socket.socket) -> Peer | None:
    """Return who connected a unix socket (SO_PEERCRED, SO_PEERGROUPS, see unix(7)); None when that is not told."""
    try:
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    except OSError:
        return None
    _pid, uid, gid = struct.unpack("3i", credentials)
    groups: Iterable[tuple[int]] = ()
    with contextlib.suppress(OSError):
        groups = struct.iter_unpack("I", connection.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, _LARGEST_OPTION_BYTES))
    return Peer(uid=uid, gid=gid, groups=frozenset(group for (group,) in groups))


def has_hung_up(connection: socket.socket) -> bool:
    """Whether the client has closed its end: nothing that is asked for comes after that."""
    poll = select.poll()
    try:
        poll.register(connection, select.POLLRDHUP)
        return bool(poll.poll(0))
    except (OSError, ValueError):  # ValueError: closed at this end
        return True
