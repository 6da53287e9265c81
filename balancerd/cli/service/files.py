"""The files of the service: where each belongs, and what is in it once it names the programs of this installation.

The texts are those of systemd/ and config/. It must not know what lies on this machine already.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SHIPPED: Final = Path(__file__).parent / "shipped"
UNIT: Final = "balancerd.service"
USER: Final = "balancerd"
MARK: Final = (
    "# Written by `balancerctl service install`, which writes it anew; changes belong into drop-ins: systemctl edit.\n"
)
"""The first line of what `service remove` may take away."""

LIBRARY: Final = Path("/usr/local/lib")  # all that reads them looks here too: systemd.unit(5), sysusers.d(5) and so on
SHARE: Final = Path("/usr/local/share")
CONFIG_FOLDER: Final = Path("/etc/balancerd")
DROP_INS: Final = Path("/etc/systemd/system") / f"{UNIT}.d"
STATE_FOLDER: Final = Path("/var/lib/balancerd")
SYSUSERS: Final = LIBRARY / "sysusers.d/balancerd.conf"
TMPFILES: Final = LIBRARY / "tmpfiles.d/balancerd.conf"
PLACES: Final = {
    f"systemd/{UNIT}": LIBRARY / "systemd/system" / UNIT,
    "systemd/balancerd.sysusers": SYSUSERS,
    "systemd/balancerd.tmpfiles": TMPFILES,
    "systemd/balancerd.preset": LIBRARY / "systemd/system-preset/50-balancerd.preset",
    **{
        f"systemd/drop-ins/{name}.conf": SHARE / f"balancerd/drop-ins/{name}.conf"
        for name in ("damon", "pagemap", "perf")
    },
}
CONFIG: Final = CONFIG_FOLDER / "balancerd.yaml"
_PROGRAM: Final = re.compile(r"^(Exec\w+=)/usr/bin/(?=balancer(?:d|ctl)\b)", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceFile:
    """One file: its absolute path, its text, and whether it is the operator's once it is there."""

    path: Path
    text: str
    is_operators: bool = False


def list_files(programs: Path) -> tuple[ServiceFile, ...]:
    """Return all files for the programs in a folder. Raises FileNotFoundError where the package is not whole."""
    marked = (
        ServiceFile(path=path, text=MARK + _PROGRAM.sub(rf"\g<1>{programs}/", _read(name)))
        for name, path in PLACES.items()
    )
    return (*marked, ServiceFile(path=CONFIG, text=_read("config/balancerd.yaml"), is_operators=True))


def _read(name: str) -> str:
    return (SHIPPED / name).read_text(encoding="utf-8")
