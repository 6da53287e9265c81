"""The initial RAM disk: busybox, the modules that reach the host's files, guest/init.sh and its settings.

Owns the archive format.  Must not know QEMU or topologies.
"""

import gzip
import lzma
import shlex
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.lab.kernel import Kernel

GUEST = Path(__file__).parent / "guest"
BUSYBOX = Path("/bin/busybox")
MODULES = ("virtio_pci", "virtio_console", "9pnet_virtio", "9p", "overlay")
NETWORK_MODULES = ("virtio_net",)
DISK_MODULES = ("virtio_blk", "crc32c_generic", "ext4")
FOLDERS = ("bin", "dev", "proc", "sys", "modules")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One member of the archive; `mode` holds type and permission bits."""

    name: str
    mode: int
    content: bytes = b""


def build(kernel: Kernel, settings: Mapping[str, str]) -> bytes:
    """The compressed archive; `settings` become shell variables for init.sh, beside its own KERNEL_MODULES."""
    wanted = [*MODULES]
    wanted += NETWORK_MODULES if settings["ADDRESS"] else ()
    wanted += DISK_MODULES if settings["ROOT_DISK"] else ()
    modules = load_order(kernel, wanted)
    variables = {**settings, "KERNEL_MODULES": " ".join(name for name, _ in modules)}
    lines = "".join(f"{key}={shlex.quote(value)}\n" for key, value in variables.items())
    entries = [Entry(name=name, mode=stat.S_IFDIR | 0o755) for name in FOLDERS]
    entries.append(_program("bin/busybox", BUSYBOX.read_bytes()))
    entries.append(_program("init", (GUEST / "init.sh").read_bytes()))
    entries.append(_program("systemd.sh", (GUEST / "systemd.sh").read_bytes()))
    entries.append(_program("settings.sh", lines.encode()))
    entries += [_program(f"modules/{name}", content) for name, content in modules]
    return gzip.compress(cpio(entries), 1)


def load_order(kernel: Kernel, names: Iterable[str]) -> list[tuple[str, bytes]]:
    """(file name, ELF content) of the modules and what they need, each after its dependencies.

    Read from modules.dep (see modules.dep(5)); a name that is not there is built into the kernel.
    """
    lines = (line.split(":", 1) for line in (kernel.modules / "modules.dep").read_text(encoding="utf-8").splitlines())
    needs = {path: rest.split() for path, rest in lines}
    by_name = {_module_name(path): path for path in needs}
    ordered: dict[str, None] = {}

    def visit(path: str) -> None:
        for needed in needs[path]:
            visit(needed)
        ordered[path] = None

    for name in names:
        if name in by_name:
            visit(by_name[name])
    return [(f"{_module_name(path)}.ko", _read_module(kernel.modules / path)) for path in ordered]


def cpio(entries: Iterable[Entry]) -> bytes:
    """An archive in the kernel's "newc" format (Documentation/driver-api/early-userspace/buffer-format.rst)."""
    archive = bytearray()
    for inode, entry in enumerate([*entries, Entry(name="TRAILER!!!", mode=0)], start=1):
        name = entry.name.encode() + b"\0"
        header = (inode, entry.mode, 0, 0, 1, 0, len(entry.content), 0, 0, 0, 0, len(name), 0)
        archive += b"070701" + b"".join(b"%08X" % field for field in header) + name
        archive += b"\0" * (-len(archive) % 4) + entry.content
        archive += b"\0" * (-len(archive) % 4)
    return bytes(archive)


def _program(name: str, content: bytes) -> Entry:
    return Entry(name=name, mode=stat.S_IFREG | 0o755, content=content)


def _module_name(path: str) -> str:
    return Path(path).name.split(".", 1)[0]


def _read_module(path: Path) -> bytes:
    content = path.read_bytes()
    return lzma.decompress(content) if path.suffix == ".xz" else content
