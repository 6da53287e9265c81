"""How much of what a client has sent is a whole request: pure.

Knows of HTTP/1.1 (RFC 9112) only where a message ends. What goes beyond the bounds, or cannot be told, counts as whole,
and as the last of its connection: whoever reads requests then refuses it in so many words. It must not know sockets.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
"""What a client may wait for before it sends the body (RFC 9110, 10.1.1)."""

_END: Final = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length[ \t]*:[ \t]*([^\r\n]*)", re.IGNORECASE)
_ENCODING = re.compile(rb"\r\ntransfer-encoding[ \t]*:", re.IGNORECASE)
_EXPECTATION = re.compile(rb"\r\nexpect[ \t]*:[^\r\n]*", re.IGNORECASE)
_BARE_LINE_FEED = re.compile(rb"(?<!\r)\n")
_MOST_DIGITS = 12
"""Of a length that is worth a conversion."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """The first `n_bytes` are a request; `is_last`: what comes behind cannot be told to be another."""

    n_bytes: int
    is_last: bool


def measure(heard: bytes | bytearray, *, most_head_bytes: int, most_body_bytes: int) -> Extent | None:
    """Return the extent of the first request in what was heard, None while that is not whole."""
    end = heard.find(_END, 0, most_head_bytes)
    if end < 0:
        is_hopeless = len(heard) > most_head_bytes or _BARE_LINE_FEED.search(heard) is not None
        return Extent(n_bytes=len(heard), is_last=True) if is_hopeless else None
    head_bytes = end + len(_END)
    head = heard[:head_bytes]
    body_bytes = None if _ENCODING.search(head) else _body_bytes(_LENGTH.findall(head))
    if body_bytes is None or body_bytes > most_body_bytes:
        return Extent(n_bytes=head_bytes, is_last=True)
    whole_bytes = head_bytes + body_bytes
    return None if len(heard) < whole_bytes else Extent(n_bytes=whole_bytes, is_last=False)


def awaits_continue(heard: bytes | bytearray) -> bool:
    """Whether the head has come, of a request whose client waits to be told that it may send the body."""
    end = heard.find(_END)
    return end >= 0 and _EXPECTATION.search(heard, 0, end) is not None


def without_expectation(request: bytes) -> bytes:
    """Return the request of a client that was told to continue, as if it had not waited."""
    head, end, body = request.partition(_END)
    return _EXPECTATION.sub(b"", head) + end + body


def _body_bytes(lengths: Sequence[bytes]) -> int | None:
    """Return the length that the fields tell; None when they tell none that makes sense."""
    told = {length.strip(b" \t") for length in lengths}
    if not told:
        return 0
    digits = told.pop()
    return int(digits) if not told and digits.isdigit() and len(digits) <= _MOST_DIGITS else None
