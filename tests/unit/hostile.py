"""Real processes whose names, arguments, files and control groups are chosen to do harm where they are shown.

python -m tests.unit.hostile FOLDER [CGROUP...] makes one process for each name, prints their pids on a line, and keeps
them until its standard input ends.
"""

import ctypes
import mmap
import os
import signal
import sys
import time
from pathlib import Path
from typing import Final

COMMS: Final = (
    b"\x1b]0;owned\x07",
    b"\r\x1b[2J\x9b31m",
    b"a\n# HELP x y\nz 1",
    b'"} 1\nb{c="',
    b"\"'\\`$(id)",
    b"<script>1",
    b"</td><img>",
    b"]]>&lt;",
    b"\xff\xfe\x80\xc3",
    "\u202egpj\u2066".encode(),
    "\u200b\u200d\ufeff\u3164".encode(),
    b"%s%n{0}{x}",
    b"=1+cmd|x",
    b"[bold]red[/]",
    b"pid 1) R 0 0 0",
    b"",
)
"""At most 15 bytes each, TASK_COMM_LEN."""

FILE: Final = b"\x1b[31m\"'<b>\n\xff" + "\u202e".encode() + b"x" * 220
"""A file that each of them has mapped; 255 bytes are the most."""

ARGUMENT: Final = b'--\x1b]52;c;AAAA\x07\n"<script>' + "\u202e".encode() + b"\xff" * 4096

CGROUPS: Final = (
    b"evil\\x0a\\x1b[2J\\x00.service",
    b'\x1b]0;x\x07"} 1.service',
    "\u202ebdi\u200b.scope".encode(),
    b"<script>alert(1)",
    b"\xff\xfe" + b"y" * 240,
)

HELD_BYTES: Final = 8 << 20


def main(folder: Path, cgroups: list[bytes]) -> None:
    """Make the processes, tell their pids, and end them when told to."""
    path = os.path.join(os.fsencode(folder), FILE)  # noqa: PTH118 -- bytes
    with open(path, "wb") as file:  # noqa: PTH123 -- bytes
        file.truncate(HELD_BYTES)
    places = dict(enumerate(cgroups))
    children = [_make(comm, path, places.get(number)) for number, comm in enumerate(COMMS)]
    print(*children, flush=True)
    sys.stdin.read()
    for pid in children:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _make(comm: bytes, path: bytes, cgroup: bytes | None) -> int:
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        if cgroup is not None:
            with open(os.path.join(cgroup, b"cgroup.procs"), "w") as procs:  # noqa: PTH118, PTH123 -- bytes
                procs.write(str(os.getpid()))
        held = mmap.mmap(-1, HELD_BYTES)
        held.write(b"x" * HELD_BYTES)
        fd = os.open(path, os.O_RDWR)
        shown = mmap.mmap(fd, HELD_BYTES)
        shown.write(b"x" * HELD_BYTES)
        ctypes.CDLL(None).prctl(15, comm)  # PR_SET_NAME
        os.write(theirs, b"!")
        while True:
            time.sleep(0.02)

    os.close(theirs)
    assert os.read(ours, 1) == b"!"
    os.close(ours)
    return pid


if __name__ == "__main__":
    main(Path(sys.argv[1]), [os.fsencode(each) for each in sys.argv[2:] if not each.startswith("--")])
