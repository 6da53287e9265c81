"""The PMUs of this machine, as sysfs describes them: which events there are, and in which bits they are asked for.

Owns the files of bus/event_source/devices (Documentation/ABI/testing/sysfs-bus-event_source-devices-format and -events)
and what /proc/cpuinfo tells of the maker. Must not know what events are for.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from balancerd.kernel.errors import ParseError
from balancerd.kernel.files import list_names, read_if_there

DEVICES = "sys/bus/event_source/devices"

_FORMAT = re.compile(rb"(config[12]?):(\d{1,3}(?:-\d{1,3})?(?:,\d{1,3}(?:-\d{1,3})?)*)")
_TERM = re.compile(rb"([\w.-]+)(?:=(?:0x([0-9a-fA-F]+)|(\d{1,20})))?")
_CONFIGS = ("config", "config1", "config2")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cpu:
    """The first CPU of /proc/cpuinfo: its maker, None where that is not told, and what it and its kernel offer."""

    vendor: str | None
    flags: frozenset[str]

    @property
    def is_virtual(self) -> bool:
        """Whether it is a virtual machine's."""
        return "hypervisor" in self.flags


def parse_cpuinfo(text: bytes) -> Cpu:
    """Parse /proc/cpuinfo up to the first empty line. Each architecture has its own, so nothing must be there."""
    fields: dict[str, str] = {}
    for line in text.partition(b"\n\n")[0].splitlines():
        name, _, value = line.decode("utf-8", "replace").partition(":")
        fields[name.strip()] = value.strip()
    return Cpu(vendor=fields.get("vendor_id") or None, flags=frozenset(fields.get("flags", "").split()))


def parse_format(text: bytes, path: str) -> tuple[int, tuple[int, ...]]:
    """Parse a file of format/, such as "config1:0-15,32": which config, and which bits of it, lowest first."""
    found = _FORMAT.fullmatch(text.strip())
    if found is None:
        raise ParseError(path, 1, text, "not bits of a config")
    bits: list[int] = []
    for part in found[2].split(b","):
        first, _, last = part.partition(b"-")
        bits += range(int(first), int(last or first) + 1)
    if not bits or max(bits) > 63:
        raise ParseError(path, 1, text, "not bits that a config has")
    return _CONFIGS.index(found[1].decode()), tuple(bits)


def parse_event(text: bytes, path: str) -> dict[str, int]:
    """Parse a file of events/, such as "event=0xcd,umask=0x1": its terms, of which one without a value is 1."""
    terms: dict[str, int] = {}
    for part in text.strip().split(b","):
        found = _TERM.fullmatch(part)
        if found is None:
            raise ParseError(path, 1, text, "not terms of an event")
        terms[found[1].decode()] = int(found[2], 16) if found[2] else int(found[3] or 1)
    return terms


@dataclass(frozen=True, slots=True, kw_only=True)
class Pmu:
    """One PMU: `type` is the one of perf_event_open(2), `formats` are the terms that its events may be made of."""

    path: str
    type: int
    formats: frozenset[str]

    def event(self, name: str) -> dict[str, int] | None:
        """Return the terms of an event; None when the PMU has no such event. Raises ParseError, OSError."""
        path = f"{self.path}/events/{name}"
        text = read_if_there(path)
        return None if text is None else parse_event(text, path)

    def capability(self, name: str) -> int | None:
        """Return a number that caps/ tells; None when it does not. Raises ParseError, OSError."""
        path = f"{self.path}/caps/{name}"
        text = read_if_there(path)
        return None if text is None else _number(text, path)

    def configs(self, terms: Mapping[str, int]) -> tuple[int, int, int]:
        """Return config, config1 and config2 of an event. Raises ParseError for a term without a place, OSError."""
        words = [0, 0, 0]
        for name, value in terms.items():
            if name in _CONFIGS:
                words[_CONFIGS.index(name)] |= value
                continue
            path = f"{self.path}/format/{name}"
            text = read_if_there(path)
            if text is None:
                raise ParseError(path, 0, b"", "a term that the PMU does not know")
            word, bits = parse_format(text, path)
            if value >> len(bits):
                raise ParseError(path, 1, text, f"no room for {value:#x}")
            words[word] |= sum((value >> at & 1) << bit for at, bit in enumerate(bits))
        return words[0], words[1], words[2]


def read_pmu(root: Path, name: str) -> Pmu | None:
    """Read what there is to know of a PMU; None when there is none of that name. Raises ParseError, OSError."""
    path = f"{root / DEVICES}/{name}"
    text = read_if_there(f"{path}/type")
    if text is None:
        return None
    try:
        formats = frozenset(list_names(f"{path}/format"))
    except FileNotFoundError:
        formats = frozenset()
    return Pmu(path=path, type=_number(text, f"{path}/type"), formats=formats)


def read_cpu(root: Path) -> Cpu:
    """Read /proc/cpuinfo; where there is none nothing is known. Raises OSError otherwise."""
    return parse_cpuinfo(read_if_there(f"{root / 'proc/cpuinfo'}") or b"")


def _number(text: bytes, path: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise ParseError(path, 1, text, "not a number") from error
