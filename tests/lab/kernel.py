"""The guest's kernel: Debian's own image and modules, unpacked under the lab's directory and never installed.

Installing it would run the host's boot loader and initramfs hooks.  Must not know QEMU.
"""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.lab.packages import dependency, refresh, unpack
from tests.lab.state import LabError

# The first that apt knows; 6.12 is in Debian 12 (security) and 13, has memory tiers and weighted interleave.
META_PACKAGES = ("linux-image-6.12-amd64", "linux-image-amd64")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """An unpacked kernel: bootable `image`, and `modules` (the folder named after `release`, with modules.dep)."""

    image: Path
    modules: Path

    @property
    def release(self) -> str:
        """What uname -r says inside."""
        return self.modules.name


def ensure_kernel(cache: Path) -> Kernel:
    """Find the kernel unpacked under `cache`, or fetch it there (about 110 MB).  Raises LabError."""
    present = sorted(cache.glob("linux-image-*/lib/modules/*/modules.dep"))
    if present:
        return _kernel(present[-1].parent)
    package = _newest() or _newest_after_refresh()
    (modules,) = (unpack(package, cache) / "lib/modules").iterdir()
    subprocess.run(["/sbin/depmod", "-b", modules.parents[2], modules.name], check=True)
    return _kernel(modules)


def _kernel(modules: Path) -> Kernel:
    return Kernel(image=modules.parents[2] / "boot" / f"vmlinuz-{modules.name}", modules=modules)


def _newest() -> str | None:
    return next(filter(None, (dependency(meta, "linux-image-") for meta in META_PACKAGES)), None)


def _newest_after_refresh() -> str:
    refresh()
    package = _newest()
    if package is None:
        raise LabError(f"apt knows none of {', '.join(META_PACKAGES)}: the lab boots a Debian kernel")
    return package
