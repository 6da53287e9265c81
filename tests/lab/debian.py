"""A fresh Debian 12 with systemd as an image of a root file system: made once, kept with the fetched packages.

Owns what is in it. Must not know who boots it, nor what is installed in it later: what the inside writes vanishes.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.lab.packages import as_root, unpack
from tests.lab.state import LabError

PREPARE = "make lab-thorough"
RELEASE = "bookworm"
PACKAGES = ("systemd", "systemd-sysv", "python3", "prometheus")
"""Beside what is essential: systemd as PID 1 (systemctl needs no dbus as root), Python for the lab's agent, and the
server that scrapes."""

UNUSED = ("usr/share/doc", "usr/share/info", "usr/share/locale", "usr/share/man", "var/cache/apt", "var/lib/apt/lists")
MACHINE_ID = "6c61623a62616c616e636572642d3132"
"""Without one systemd takes the boot for the first, and enables what presets name."""

SPARE_RATIO = 1.15
SPARE_MIB = 24
"""What ext4 needs beside the files."""


def ensure_root(cache: Path, more: tuple[str, ...] = ()) -> Path:
    """Find the image under `cache`, or make it there (150 MB to fetch, a minute or two). Raises LabError.

    `more` are packages that it has beside PACKAGES.
    """
    packages = (*PACKAGES, *more)
    image = cache / f"debian-{RELEASE}-{_digest(packages)}.ext4"
    if image.exists():
        return image
    script = unpack("debootstrap", cache)
    print(f"lab: making a Debian root ({image})", file=sys.stderr)
    scratch = Path(tempfile.mkdtemp(prefix="root-", dir=cache))
    root, part = scratch / "root", scratch / "image"
    bootstrap = [
        *("env", f"DEBOOTSTRAP_DIR={script}/usr/share/debootstrap", f"{script}/usr/sbin/debootstrap"),
        *("--variant=minbase", f"--include={','.join(packages)}", RELEASE, str(root)),
    ]
    try:
        with (cache / "debootstrap.log").open("wb") as log:
            _run([*bootstrap], log.fileno())
            _run(["rm", "-rf", *(str(root / path) for path in UNUSED)], log.fileno())
            _run(["sh", "-c", f"echo {MACHINE_ID} > {root}/etc/machine-id"], log.fileno())
            used = subprocess.run(
                [*as_root(PREPARE), "du", "-sm", root], check=True, capture_output=True, text=True
            ).stdout
            mib = int(int(used.split()[0]) * SPARE_RATIO) + SPARE_MIB
            _run(
                ["mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", str(root), str(part), f"{mib}M"],
                log.fileno(),
            )
            _run(["chown", f"{os.getuid()}:{os.getgid()}", str(part)], log.fileno())
        part.rename(image)
    except subprocess.CalledProcessError as error:
        text = (cache / "debootstrap.log").read_text(encoding="utf-8", errors="replace")
        raise LabError(f"no Debian root could be made: {error}\n{text[-2000:]}") from error
    finally:
        subprocess.run([*as_root(PREPARE), "rm", "-rf", scratch], check=False)
    return image


def _run(command: list[str], log: int) -> None:
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    program = shutil.which(command[0], path=path) or command[0]
    subprocess.run([*as_root(PREPARE), program, *command[1:]], stdout=log, stderr=log, check=True)


def _digest(packages: tuple[str, ...]) -> str:
    """A name for what is in the image: another one when another one is to be made."""
    return hashlib.sha256(repr((packages, UNUSED, MACHINE_ID, SPARE_RATIO, SPARE_MIB)).encode()).hexdigest()[:12]
