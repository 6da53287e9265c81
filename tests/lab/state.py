"""Where the lab keeps things on disk, and the lock that lets one machine run at a time from such a place.

Must not know what a machine is.
"""

import fcntl
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
LOCK_WAIT_SECONDS = 600.0


class LabError(RuntimeError):
    """The lab cannot do what was asked; the message says why and, where there is one, the way out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabDirectory:
    """The lab's files: fetched packages, and for each machine its console log, initrd and `out`.

    `shared` is the lab directory whose packages are used, None for its own.
    """

    root: Path
    shared: Path | None = None

    @property
    def packages(self) -> Path:
        """Debian packages that are unpacked here and never installed."""
        return (self.shared or self.root) / "packages"

    def beside(self, name: str) -> "LabDirectory":
        """A place of its own for a machine that runs beside others, with the same packages; made if need be."""
        root = self.root / "beside" / name
        root.mkdir(parents=True, exist_ok=True)
        return LabDirectory(root=root, shared=self.root)

    @property
    def lock(self) -> Path:
        """The flock(2) file that a running QEMU holds open."""
        return self.root / "lock"

    @property
    def up(self) -> Path:
        """JSON record of the machine that `up` left running; absent when there is none."""
        return self.root / "up.json"

    def machine(self, name: str) -> Path:
        """The directory of one machine, made if need be."""
        path = self.root / name
        (path / "out").mkdir(parents=True, exist_ok=True)
        return path


def lab_directory() -> LabDirectory:
    """BALANCERD_LAB_DIR, or .lab in the checkout."""
    root = Path(os.environ.get("BALANCERD_LAB_DIR", REPOSITORY / ".lab")).resolve()
    root.mkdir(parents=True, exist_ok=True)
    return LabDirectory(root=root)


def acquire_lock(lab: LabDirectory, *, wait_seconds: float = LOCK_WAIT_SECONDS) -> int:
    """Open and flock the lock file; returns the descriptor, which the caller closes or hands to QEMU.

    Raises LabError at once if the holder is a machine left by `up`, or after `wait_seconds` if it is another run.
    """
    descriptor = os.open(lab.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    deadline = time.monotonic() + wait_seconds
    announced = False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pass
        else:
            lab.up.unlink(missing_ok=True)  # it outlives a machine that ended by itself
            return descriptor
        if lab.up.exists():
            os.close(descriptor)
            raise LabError("a machine is up in this checkout; end it with: python -m tests.lab down")
        if time.monotonic() >= deadline:
            os.close(descriptor)
            raise LabError(f"another lab machine has held {lab.lock} for {wait_seconds:.0f} s")
        if not announced:
            print("lab: waiting for the machine of another run", file=sys.stderr)
            announced = True
        time.sleep(0.2)


def is_locked(lab: LabDirectory) -> bool:
    """Whether a machine of this checkout runs now."""
    with lab.lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
