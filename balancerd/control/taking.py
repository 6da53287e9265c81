"""How an application takes a connection over from the server, so that an answer without end holds no thread of it.

Under TAKE_KEY the environment of a request has a callable: an application calls `take(taker)` and returns an empty
body. Once the head of the answer is sent, `taker` gets the socket, which does not block and is then its own; it gets
it, too, when the client has gone before. `taker` is called by the thread that all clients wait for and must return at
once. What it sends ends with the connection, or comes in chunks (RFC 9112, 7.1): then `take(taker, in_chunks=True)`.
It must not know who does that, nor why.
"""

import socket
from collections.abc import Callable
from typing import Final, TypeAlias

TAKE_KEY: Final = "balancerd.take"

Taker: TypeAlias = Callable[[socket.socket], None]
