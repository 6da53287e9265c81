"""Brings in what the lab needs from Debian: installs the emulator, only unpacks what would start services.

Owns every call of apt and dpkg.  Must not know what the packages are for.
"""

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.lab.state import LabError

# numactl brings numactl and numastat, which the tests run inside, as they do tmux; kmod brings depmod.
INSTALLED = ("qemu-system-x86", "busybox-static", "kmod", "numactl", "tmux")
# Installing these would start daemons on the developer's machine; numad would even move its memory about.
UNPACKED_TOOLS = {
    "apparmor": "sbin/apparmor_parser",
    "kubernetes-client": "usr/bin/kubectl",
    "mandoc": "usr/bin/mandoc",
    "numad": "usr/bin/numad",
    "prometheus": "usr/bin/prometheus",
}
"""Packages with the program that is wanted of each."""


def ensure_installed() -> None:
    """Install the missing ones of INSTALLED with apt-get, as root or through sudo; says so.  Raises LabError."""
    if platform.machine() != "x86_64":
        raise LabError(f"the lab runs x86-64 programs of this machine inside; it is {platform.machine()}")
    if shutil.which("dpkg-query") is None:
        raise LabError(f"the lab needs a Debian or Ubuntu system, or by hand: {' '.join(INSTALLED)}")
    missing = [name for name in INSTALLED if not _is_installed(name)]
    if not missing:
        return
    print(f"lab: installing {' '.join(missing)} with apt-get", file=sys.stderr)
    install = [*_root(missing), "apt-get", "-q", "-y", "install", "--no-install-recommends", *missing]
    if _apt(install) and (_apt([*_root(missing), "apt-get", "-q", "update"]) or _apt(install)):
        raise LabError(f"apt-get could not install {' '.join(missing)}; its own message is above")


def ensure_tools(cache: Path) -> tuple[Path, ...]:
    """Unpack the UNPACKED_TOOLS that are not on PATH under `cache`; returns the folders to add to a PATH."""
    wanted = {package: path for package, path in UNPACKED_TOOLS.items() if shutil.which(Path(path).name) is None}
    return tuple((unpack(package, cache) / path).parent for package, path in wanted.items())


def unpack(package: str, cache: Path) -> Path:
    """Download `package` unless it is in `cache`, and unpack it there without running any of its scripts.

    Returns the folder that holds its tree.  Raises LabError when apt knows no such package or the download fails.
    """
    target = cache / package
    if target.exists():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    print(f"lab: fetching {package} (unpacked under {cache}, not installed)", file=sys.stderr)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        if _apt(["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", package], cwd=scratch):
            raise LabError(f"apt-get could not download {package}; its own message is above")
        (archive,) = Path(scratch).glob("*.deb")
        tree = Path(scratch) / "tree"
        subprocess.run(["dpkg-deb", "-x", archive, tree], check=True)
        tree.rename(target)
    return target


def dependency(package: str, prefix: str) -> str | None:
    """The first package named `prefix…` that `package` depends on; None if apt does not know `package`."""
    answer = subprocess.run(["apt-cache", "depends", package], capture_output=True, text=True, check=False)
    words = (word for word in answer.stdout.split() if word.startswith(prefix) and word != package)
    return next(words, None)


def dependencies(package: str) -> tuple[str, ...]:
    """All that `package` depends on, directly or not, with every alternative; nothing if apt does not know it."""
    command = ["apt-cache", "depends", "--recurse", "--important", package]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    return tuple(name for name in parse_depends(answer.stdout) if name != package)


def parse_depends(text: str) -> tuple[str, ...]:
    """Return the packages that apt-cache(8) depends --recurse tells of, without those that no file is of (<name>)."""
    return tuple(line for line in text.splitlines() if line[:1].isalnum())


def refresh() -> None:
    """apt-get update, for a machine whose package lists are empty, as a fresh container's are."""
    if _apt([*_root(["(apt-get update)"]), "apt-get", "-q", "update"]):
        raise LabError("apt-get update failed; its own message is above")


def as_root(what: str) -> list[str]:
    """What stands before a command of root's. Raises LabError, which tells to do `what`, when there is no way."""
    if os.geteuid() == 0:
        return []
    if shutil.which("sudo") is None:
        raise LabError(f"not root, and no sudo; as root: {what}")
    return ["sudo"]


def _is_installed(package: str) -> bool:
    query = ["dpkg-query", "-W", "-f", "${db:Status-Status}", package]
    return subprocess.run(query, capture_output=True, text=True, check=False).stdout == "installed"


def _root(packages: list[str]) -> list[str]:
    return as_root(f"apt-get install --no-install-recommends {' '.join(packages)}")


def _apt(command: list[str], cwd: str | None = None) -> int:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    return subprocess.run(command, cwd=cwd, env=environment, stdout=sys.stderr, check=False).returncode
