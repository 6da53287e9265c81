"""One connection as the door sees it: what was heard, and what is still to be told.

It must not know what either means.
"""

import itertools
import socket
from collections import deque
from collections.abc import Hashable, Iterable
from typing import Final

from balancerd.control.access import Peer
from balancerd.control.taking import Taker
from balancerd.control.whole import Extent

MOST_PIECES: Final = 64
"""Sent with one call; far below IOV_MAX, see sendmsg(2)."""


class Caller:
    """A client; `who` it is tells it from others for whose turn it is. `since` is when it began to be waited for."""

    def __init__(self, connection: socket.socket, *, who: Hashable, peer: Peer | None, since: float) -> None:
        self.connection, self.who, self.peer, self.since = connection, who, peer, since
        self.heard = bytearray()
        self.may_go_on = False
        self.request: Extent | None = None
        self.was_answered = False
        self.stays = False
        self.taker: Taker | None = None
        self.unsent_bytes = 0
        self._unsent: deque[memoryview] = deque()

    def hear(self, most_bytes: int) -> bool:
        """Take what has come, up to so much in all; False when nothing will come any more."""
        try:
            data = self.connection.recv(most_bytes - len(self.heard))
        except BlockingIOError:
            return True
        except OSError:
            return False
        self.heard += data
        return bool(data)

    def take_request(self) -> bytes:
        """Return the request that was found whole; what came behind it stays."""
        n_bytes = 0 if self.request is None else self.request.n_bytes
        request = bytes(self.heard[:n_bytes])
        del self.heard[:n_bytes]
        return request

    def will_tell(self, pieces: Iterable[bytes], *, stays: bool, taker: Taker | None) -> None:
        """Have an answer to send; then the client may ask again, or `taker` gets the connection."""
        self._unsent.extend(memoryview(piece) for piece in pieces)
        self.unsent_bytes = sum(map(len, self._unsent))
        self.stays, self.taker, self.was_answered = stays, taker, True

    def tell(self) -> bool:
        """Send what the kernel takes of the answer; False when the client has gone."""
        while self._unsent:
            try:
                sent = self.connection.sendmsg(list(itertools.islice(self._unsent, MOST_PIECES)))
            except BlockingIOError:
                return True
            except OSError:
                return False
            self._pass_over(sent)
        return True

    def _pass_over(self, sent_bytes: int) -> None:
        self.unsent_bytes -= sent_bytes
        while sent_bytes:
            piece = self._unsent[0]
            if sent_bytes < len(piece):
                self._unsent[0] = piece[sent_bytes:]
                return
            sent_bytes -= len(piece)
            self._unsent.popleft()
