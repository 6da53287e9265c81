"""How much the machine waits for CPU and memory: /proc/pressure. Knows nothing of what is done about it.

Source: the kernel's Documentation/accounting/psi.rst. A kernel may be built without it or have it turned off at boot
(`psi=0`); then the files are absent, or reading them gives EOPNOTSUPP.
"""

from math import isfinite

from balancerd.kernel.errors import ParseError
from balancerd.kernel.files import read_bytes
from balancerd.model.sample import Pressure


def read_pressure(procfs: str = "/proc") -> Pressure:
    """Read both files; None stands for one that the kernel does not have. Raises ParseError."""
    return Pressure(
        cpu_ratio=_read_ratio(f"{procfs}/pressure/cpu"),
        memory_ratio=_read_ratio(f"{procfs}/pressure/memory"),
    )


def parse_pressure(text: bytes, path: str) -> float:
    """Parse /proc/pressure/NAME into the share, 0 to 1, of the last ten seconds in which some task waited."""
    line = text.partition(b"\n")[0]  # "some avg10=1.53 avg60=0.87 avg300=0.42 total=59291"
    some, _, value = line.partition(b" avg10=")
    if some != b"some":
        raise ParseError(path, 1, line, "not a pressure")
    try:
        ratio = float(value.split()[0]) / 100
    except (IndexError, ValueError) as error:
        raise ParseError(path, 1, line, "not a pressure") from error
    if not isfinite(ratio):
        raise ParseError(path, 1, line, "not a pressure")
    return ratio


def _read_ratio(path: str) -> float | None:
    try:
        return parse_pressure(read_bytes(path), path)
    except OSError:
        return None
