"""python -m tests.siege [--kinds KIND ...] [--each N] ADDRESS ...: clients that are slow, broken or hostile.

ADDRESS is the path of a unix socket, or HOST:PORT. Of each kind N clients besiege each address until they are killed;
one that is let go comes again. Once all have begun a line says so. What fails they keep to themselves.
"""

import argparse
import asyncio
import contextlib
import itertools
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

CHUNK: Final = b"x" * 4096
PACE_SECONDS: Final = 0.3
"""Between the bytes of those who trickle, and before the next try of those who are refused at once."""


@dataclass(frozen=True, slots=True)
class Line:
    """A connection. `path` is one that has an answer there."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    path: bytes

    @property
    def get(self) -> bytes:
        """A whole request."""
        return b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % self.path

    async def send(self, *pieces: bytes) -> None:
        """Send, at the pace at which it is taken."""
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()

    async def read_to_the_end(self) -> None:
        """Read until the other end closes."""
        while await self.reader.read(65536):
            pass


async def silent(line: Line) -> None:
    """Says nothing."""
    await line.read_to_the_end()


async def half_open(line: Line) -> None:
    """Closes its own end in the middle of a request."""
    await line.send(line.get[:20])
    line.writer.write_eof()
    await line.read_to_the_end()
    await asyncio.sleep(PACE_SECONDS)


async def byte_at_a_time(line: Line) -> None:
    """Would take long for a request."""
    for byte in line.get:
        await line.send(bytes([byte]))
        await asyncio.sleep(PACE_SECONDS)


async def huge_head(line: Line) -> None:
    """Sends 256 KiB as fast as they are taken."""
    await line.send(line.get[:-2] + b"X: ", *[CHUNK] * 64, b"\r\n\r\n")
    await line.read_to_the_end()
    await asyncio.sleep(PACE_SECONDS)


async def endless_head(line: Line) -> None:
    """Sends one header after the other."""
    await line.send(line.get[:-2])
    for number in itertools.count():
        await line.send(b"X-%d: y\r\n" % number)
        await asyncio.sleep(PACE_SECONDS / 10)


async def malformed_json(line: Line) -> None:
    """Would have the daemon pause, if it were understood."""
    body = b'{"seconds": [[[['
    await line.send(b"POST /v1/pause HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
    await line.reader.readuntil(b"\r\n\r\n")
    await asyncio.sleep(PACE_SECONDS)


async def malformed_http(line: Line) -> None:
    """Begins a handshake of TLS."""
    await line.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")
    await line.read_to_the_end()
    await asyncio.sleep(PACE_SECONDS)


async def never_reading(line: Line) -> None:
    """Asks for more than the kernel holds for it, and reads nothing of it."""
    line.writer.transport.pause_reading()  # type: ignore[attr-defined]  # of transports that read
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(30):
            while True:
                await line.send(line.get)
                await asyncio.sleep(PACE_SECONDS)


async def hanging_up(line: Line) -> None:
    """Gone before the answer comes, as often as it can."""
    await line.send(line.get)
    line.writer.transport.abort()
    await asyncio.sleep(PACE_SECONDS / 10)


async def pipelined(line: Line) -> None:
    """Sends many requests before it reads the first answer."""
    await line.send(line.get * 50)
    await line.read_to_the_end()


async def chunked(line: Line) -> None:
    """Sends a body of chunks that does not end."""
    await line.send(b"POST %b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" % line.path)
    for _ in range(100):
        await line.send(b"1000\r\n" + CHUNK + b"\r\n")
        await asyncio.sleep(PACE_SECONDS)


async def missing_body(line: Line) -> None:
    """Promises more than it sends."""
    await line.send(b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: 4000\r\n\r\n{" % line.path)
    await line.read_to_the_end()


async def flood(line: Line) -> None:
    """Asks and asks."""
    while True:
        await line.send(line.get)
        head = await line.reader.readuntil(b"\r\n\r\n")
        length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
        await line.reader.readexactly(int(length or b"0"))


Kind = Callable[[Line], Awaitable[None]]

KINDS: Final[dict[str, Kind]] = {
    kind.__name__.replace("_", "-"): kind
    for kind in (
        *(silent, half_open, byte_at_a_time, huge_head, endless_head, malformed_json, malformed_http),
        *(never_reading, hanging_up, pipelined, chunked, missing_body, flood),
    )
}


@contextlib.asynccontextmanager
async def connected(address: str) -> AsyncIterator[Line]:
    """Connect. Raises OSError."""
    if "/" in address:
        reader, writer = await asyncio.open_unix_connection(address)
        path = b"/v1/processes"
    else:
        host, _, port = address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        path = b"/metrics"
    try:
        yield Line(reader, writer, path)
    finally:
        writer.transport.abort()


async def besiege(address: str, kind: Kind, begun: Callable[[], None]) -> None:
    """Be one client, for ever."""
    is_first = True
    while True:
        try:
            async with connected(address) as line:
                if is_first:
                    is_first = False
                    begun()
                await kind(line)
        except (OSError, EOFError, asyncio.LimitOverrunError):
            await asyncio.sleep(PACE_SECONDS / 10)


async def run(addresses: Sequence[str], kinds: Sequence[str], each: int) -> None:
    """Be them all, for ever."""
    wanted = [(address, KINDS[name]) for address in addresses for name in kinds for _ in range(each)]
    left = len(wanted)

    def begun() -> None:
        nonlocal left
        left -= 1
        if not left:
            print(f"{len(wanted)} clients", flush=True)

    await asyncio.gather(*(besiege(address, kind, begun) for address, kind in wanted))


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("addresses", nargs="+", metavar="ADDRESS")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--each", type=int, default=1)
    parser.add_argument("--uid", type=int, help="as which user, where root runs this")
    given = parser.parse_args(arguments)
    if given.uid is not None:
        os.setgroups([])
        os.setresgid(given.uid, given.uid, given.uid)
        os.setresuid(given.uid, given.uid, given.uid)
    os.nice(19)  # what is measured beside it is the daemon, not who gets a core
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(run(given.addresses, given.kinds, given.each))


if __name__ == "__main__":
    main(sys.argv[1:])
