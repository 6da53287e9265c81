"""The oracle: a QEMU plugin that counts which node's memory every access of every virtual CPU hits.

Owns building it, the words that start it, and marking moments from inside.  Must not know machines nor what is counted
for; counters.py reads what it wrote.  It works on hosts and guests of x86-64.
"""

import ctypes
import hashlib
import mmap
import os
import re
import struct
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.lab.state import LabError
from tests.lab.topology import Topology, TopologyError

SOURCES = Path(__file__).parent
PLUGIN = ("oracle.c", "memory.c", "pages.c")
FLAGS = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread")
PLUGIN_FLAGS = ("-fPIC", "-shared", "-fvisibility=hidden")
# From this release on a plugin must, or may, say this number; include/qemu/qemu-plugin.h of each release.
API_NUMBERS = (((9, 1), 3), ((9, 0), 2), ((6, 0), 1))

MARKER_MAGIC = 0x5ABE0000  # marker.h
LAST_NUMBER = 0xFFFF

# q35 gives RAM all of the first 2816 MiB, or only 2 GiB if there is more of it: pc_q35_init() in hw/i386/pc_q35.c
LOW_AT_MOST_MIB = 2816
LOW_WITH_HOLE_MIB = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class OracleOptions:
    """What to count.

    `l1_kib` is each CPU's filter, `llc_kib` each node's last-level cache, powers of two; 0 is none.  With `has_kernel`
    the kernel's code is counted, too, and with `has_pages` user accesses by page.  An interval of 0 is no time series.
    """

    l1_kib: int = 32
    llc_kib: int = 1024
    has_kernel: bool = True
    interval_ms: int = 500
    has_pages: bool = False


def mark(number: int) -> None:
    """Have the plugin write down all counters under this number, 0 to 65535; without the plugin this does nothing."""
    if not 0 <= number <= LAST_NUMBER:
        raise ValueError(f"a marker's number is 0 to {LAST_NUMBER}, not {number}")
    code = b"\x0f\x1f\x80" + struct.pack("<I", MARKER_MAGIC | number) + b"\xc3"  # the NOP of marker.h, and a return
    access = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
    with mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE, prot=access) as page:
        page.write(code)
        first = ctypes.c_char.from_buffer(page)
        ctypes.CFUNCTYPE(None)(ctypes.addressof(first))()
        del first  # or the page would not close


def build(folder: Path) -> Path:
    """Compile the plugin for the QEMU that is installed, unless `folder` has it; returns its path.  Raises LabError."""
    api = api_number(qemu_release())
    return _compiled(folder, f"oracle-api{api}", PLUGIN, (*PLUGIN_FLAGS, f"-DORACLE_API={api}"), ".so")


def build_patterns(folder: Path) -> Path:
    """Compile patterns.c, which is run inside, unless `folder` has it; returns its path.  Raises LabError."""
    return _compiled(folder, "patterns", ("patterns.c",), (), "")


def qemu_release() -> tuple[int, int]:
    """The first two numbers of the installed QEMU's version; raises LabError."""
    try:
        told = subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise LabError(f"QEMU does not tell its version: {error}") from error
    found = re.search(r"version (\d+)\.(\d+)", told)
    if found is None:
        raise LabError(f"QEMU does not tell its version: {told!r}")
    return int(found[1]), int(found[2])


def api_number(release: tuple[int, int]) -> int:
    """Which version of the plugin interface a QEMU of this release takes; raises LabError if none that we know."""
    for first, number in API_NUMBERS:
        if release >= first:
            return number
    raise LabError(f"QEMU {release[0]}.{release[1]} has no plugins that the oracle knows; it needs 6.0")


def arguments(topology: Topology, plugin: Path, out: Path, options: OracleOptions) -> str:
    """What follows -plugin to count on a machine of this topology into the file `out`.

    Raises TopologyError for machines whose memory QEMU lays out in other ways: with gaps in the ids, or with DIMMs.
    """
    nodes = topology.nodes
    if topology.node_ids != tuple(range(len(nodes))):
        raise TopologyError(f"{topology.name}: the oracle knows no gaps in node ids")
    if any(node.dimm for node in nodes):
        raise TopologyError(f"{topology.name}: the oracle knows no DIMMs")
    total_mib = sum(node.memory_mib for node in nodes)
    words = {
        "out": _escaped(out),
        "cpus": _dotted(node.id for node in nodes for _ in range(node.cpus)),
        "mem": _dotted(node.memory_mib for node in nodes),
        "low": LOW_WITH_HOLE_MIB if total_mib >= LOW_AT_MOST_MIB else total_mib,
        "distances": _dotted(distance for row in topology.distances for distance in row),
        "l1": options.l1_kib,
        "llc": options.llc_kib,
        "kernel": int(options.has_kernel),
        "interval": options.interval_ms,
        "pages": int(options.has_pages),
    }
    return ",".join([f"file={_escaped(plugin)}", *(f"{name}={value}" for name, value in words.items())])


def _compiled(folder: Path, name: str, sources: tuple[str, ...], flags: tuple[str, ...], suffix: str) -> Path:
    """One program from C; it is named after all that it is made of, so that several checkouts may share `folder`."""
    content = hashlib.sha256(repr((FLAGS, flags)).encode())
    for path in sorted(SOURCES.glob("*.[ch]")):
        content.update(path.read_bytes())
    program = folder / f"{name}-{content.hexdigest()[:12]}{suffix}"
    if program.exists():
        return program
    folder.mkdir(parents=True, exist_ok=True)
    partial = program.with_name(f"{program.name}.{os.getpid()}")
    command = ["gcc", *FLAGS, *flags, "-o", str(partial), *(str(SOURCES / source) for source in sources)]
    try:
        subprocess.run(command, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise LabError(f"{name} was not compiled: {error}") from error
    partial.rename(program)
    return program


def _dotted(numbers: Iterable[int]) -> str:
    return ".".join(map(str, numbers))


def _escaped(path: Path) -> str:
    return str(path).replace(",", ",,")  # a single comma ends a value of QEMU
