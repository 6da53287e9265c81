"""The guest's kernels: Debian's own images and modules, unpacked under the lab's directory and never installed.

Installing one would run the host's boot loader and initramfs hooks.  Must not know QEMU.
"""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.lab.packages import dependency, refresh, unpack
from tests.lab.state import LabError

# 6.12: Debian 13, and 12 by its security archive; has memory tiers, weighted interleave and multi-size THP.
# 6.1: Debian 12, the oldest that balancerd is tried on.
SERIES = ("6.12", "6.1")
DEFAULT = "6.12"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """An unpacked kernel: bootable `image`, and `modules` (the folder named after `release`, with modules.dep)."""

    image: Path
    modules: Path

    @property
    def release(self) -> str:
        """What uname -r says inside."""
        return self.modules.name


def ensure_kernel(cache: Path, series: str = DEFAULT) -> Kernel:
    """Find a kernel of this series unpacked under `cache`, or fetch it there (70 to 110 MB).

    Another series is never taken for it.  Raises LabError.
    """
    present = sorted(cache.glob(f"linux-image-{series}.*/lib/modules/{series}.*/modules.dep"))
    if present:
        return _kernel(present[-1].parent)
    package = _package(series) or _package_after_refresh(series)
    (modules,) = (unpack(package, cache) / "lib/modules").iterdir()
    subprocess.run(["/sbin/depmod", "-b", modules.parents[2], modules.name], check=True)
    return _kernel(modules)


def _kernel(modules: Path) -> Kernel:
    return Kernel(image=modules.parents[2] / "boot" / f"vmlinuz-{modules.name}", modules=modules)


def meta_packages(series: str) -> tuple[str, str]:
    """What may name the newest kernel of a series: Debian's package for an older release, then a release's own."""
    return f"linux-image-{series}-amd64", "linux-image-amd64"


def _package(series: str) -> str | None:
    prefix = f"linux-image-{series}."  # the dot: 6.1 is not 6.12, and no meta package has it
    return next(filter(None, (dependency(meta, prefix) for meta in meta_packages(series))), None)


def _package_after_refresh(series: str) -> str:
    refresh()
    package = _package(series)
    if package is None:
        raise LabError(
            f"apt knows no Linux {series}: neither {' nor '.join(meta_packages(series))} depends on one.  Its sources "
            "must name Debian 12 with its security archive (deb .../debian-security bookworm-security main)"
            + (", or Debian 13" if series == "6.12" else "")
        )
    return package
