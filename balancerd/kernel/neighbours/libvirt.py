"""Guests that libvirt has pinned: the status files of its QEMU driver, and the cpusets of a guest's virtual CPUs.

No socket of libvirt is used. The files in /run/libvirt/qemu belong to root and nobody else may read them; the cgroups
can be read by everyone, and tell less.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from xml.parsers import expat

from balancerd.kernel.errors import ParseError
from balancerd.kernel.files import list_names, read_bytes

_DOMAIN: Final = ("domstatus", "domain")


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """A running guest; `pins` says how libvirt placed it, and is empty when it did not."""

    name: str
    pid: int
    pins: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Guests:
    """The guests by pid. `unreadable` names a file that could not be read or understood, None when there was none."""

    by_pid: Mapping[int, Guest]
    unreadable: str | None = None


class GuestFiles:
    """Reads DIRECTORY/*.xml, each again when it has changed."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._read: dict[str, tuple[int, Guest]] = {}

    def look(self) -> Guests:
        """Return the guests; none where there is no libvirt."""
        unreadable: str | None = None
        read: dict[str, tuple[int, Guest]] = {}
        try:
            names = sorted(name for name in list_names(self._directory) if name.endswith(".xml"))
        except (FileNotFoundError, NotADirectoryError):
            names = []
        except PermissionError:
            return Guests(by_pid={}, unreadable=self._directory)
        for name in names:
            path = f"{self._directory}/{name}"
            try:
                changed_at = Path(path).stat().st_mtime_ns
                known = self._read.get(name)
                if known is None or known[0] != changed_at:
                    known = changed_at, parse_domain_status(read_bytes(path), path)
                read[name] = known
            except FileNotFoundError:
                continue
            except PermissionError:
                unreadable = path
            except ParseError as error:
                unreadable = f"{error.path}: {error.what}"
        self._read = read
        return Guests(by_pid={guest.pid: guest for _, guest in read.values()}, unreadable=unreadable)


def parse_domain_status(text: bytes, path: str) -> Guest:
    """Parse the status file of one guest, <domstatus pid='…'> around <domain>; libvirt.org/formatdomain.html."""
    found = _Found()
    parser = expat.ParserCreate()
    parser.StartElementHandler = found.start
    parser.EndElementHandler = found.end
    parser.CharacterDataHandler = found.text
    try:
        parser.Parse(text, True)
    except expat.ExpatError as error:
        raise ParseError(path, error.lineno, text, str(error)) from error
    except (LookupError, ValueError) as error:  # an encoding that nobody knows, or of several bytes a character
        raise ParseError(path, 1, text, str(error)) from error
    if found.pid is None or not found.name:
        raise ParseError(path, 0, text, "no pid or no name of a guest")
    return Guest(name=found.name, pid=found.pid, pins=found.explain())


def read_cgroup_pins(cgroup: str) -> str:
    """Tell from the directory of a guest's cgroup how libvirt placed it: its virtual CPUs have cgroups of their own.

    An empty cpuset.cpus or cpuset.mems means that of the parent: nobody set it.
    """
    try:
        vcpus = sorted(name for name in list_names(f"{cgroup}/libvirt") if name.startswith("vcpu"))
    except OSError:
        return ""
    pins = []
    for file, what in (("cpuset.cpus", "pins its virtual CPUs"), ("cpuset.mems", "binds its memory")):
        values = {_text(f"{cgroup}/libvirt/{vcpu}/{file}") for vcpu in vcpus} - {""}
        if values:
            pins.append(f"libvirt {what}: {file} {', '.join(sorted(values))}")
    return "; ".join(pins)


class _Found:
    """What the elements of a status file say, at their own places only: <metadata> may hold anything."""

    def __init__(self) -> None:
        self.pid: int | None = None
        self.name = ""
        self._path: tuple[str, ...] = ()
        self._vcpupins: set[str] = set()
        self._vcpus = ""
        self._memory: set[str] = set()
        self._auto = ""

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self._path = (*self._path, name)
        if self._path == _DOMAIN[:1]:
            pid = attributes.get("pid", "")
            self.pid = int(pid) if pid.isdigit() else None
        elif self._path == ("domstatus", "numad"):
            self._auto = attributes.get("nodeset", "")
        elif self._path[:2] == _DOMAIN:
            self._domain(self._path[2:], attributes)

    def _domain(self, path: tuple[str, ...], attributes: dict[str, str]) -> None:
        if path == ("vcpu",):
            self._vcpus = attributes.get("cpuset", "")
        elif path == ("cputune", "vcpupin"):
            self._vcpupins.add(attributes.get("cpuset", ""))
        elif path in {("numatune", "memory"), ("numatune", "memnode")} and attributes.get("nodeset"):
            self._memory.add(f"{path[1]} {attributes.get('mode', 'strict')} {attributes['nodeset']}")

    def end(self, name: str) -> None:
        del name
        self._path = self._path[:-1]

    def text(self, data: str) -> None:
        if self._path == (*_DOMAIN, "name"):
            self.name += data

    def explain(self) -> str:
        """Return how libvirt placed the guest; empty when it did not."""
        pins = []
        if self._vcpupins:
            pins.append(f"libvirt pins its virtual CPUs: <vcpupin> {', '.join(sorted(self._vcpupins))}")
        elif self._vcpus:
            pins.append(f"libvirt pins its virtual CPUs: <vcpu cpuset='{self._vcpus}'>")
        if self._memory:
            pins.append(f"libvirt binds its memory: <numatune> {', '.join(sorted(self._memory))}")
        elif self._auto:
            pins.append(f"libvirt placed it as numad advised: node {self._auto}")
        return "; ".join(pins)


def _text(path: str) -> str:
    try:
        return read_bytes(path).decode("ascii", "replace").strip()
    except OSError:
        return ""
