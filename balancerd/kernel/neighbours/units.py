"""Units of systemd whose files say on which nodes their memory belongs. Owns where unit files lie and which one wins.

Sources: systemd.unit(5) for the directories, drop-ins and their order; systemd.exec(5) for NUMAPolicy= and NUMAMask=;
systemd.resource-control(5) for AllowedMemoryNodes=. The service manager is not asked: its files can be read by anyone,
and reading them costs less. What a running unit got before its file changed is not seen.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from balancerd.kernel.files import list_names, read_bytes

DIRECTORIES: Final = (
    "etc/systemd/system.control",
    "run/systemd/system.control",
    "run/systemd/transient",
    "run/systemd/generator.early",
    "etc/systemd/system",
    "etc/systemd/system.attached",
    "run/systemd/system",
    "run/systemd/system.attached",
    "run/systemd/generator",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
    "run/systemd/generator.late",
)
"""Where the system's manager looks, best first: the first file of a name wins, and so does the first drop-in."""

_KEYS: Final = ("NUMAPolicy", "NUMAMask", "AllowedMemoryNodes")
_TYPES: Final = (".service", ".slice", ".scope", ".socket", ".mount", ".swap")
_SETTING: Final = re.compile(
    rb"^[ \t]*(NUMAPolicy|NUMAMask|AllowedMemoryNodes)[ \t]*=[ \t]*(.*?)[ \t\r]*$", re.MULTILINE
)
_HINT: Final = re.compile(rb"NUMAPolicy|NUMAMask|AllowedMemoryNodes")
_HARMLESS: Final = frozenset({"", "default", "local"})
"""Policies that ask for what balancerd does anyway."""

_REREAD_LOOKS: Final = 30
"""A file written in place leaves its directory's time as it was, so everything is read again after so many looks."""

Settings = tuple[tuple[str, str], ...]
"""Assignments of _KEYS in one file, in their order."""


def parse_unit(text: bytes) -> Settings:
    """Parse the assignments that matter from a unit file or a drop-in; total, as the service manager is."""
    if _HINT.search(text) is None:
        return ()
    return tuple(
        (match[1].decode("ascii"), match[2].decode("utf-8", "replace").strip('"')) for match in _SETTING.finditer(text)
    )


@dataclass(slots=True)
class _Directory:
    """One directory as it was at `changed_at`: the settings of its files, and the names of its drop-in directories."""

    changed_at: int
    settings: Mapping[str, Settings]
    drop_ins: tuple[str, ...]


_EMPTY: Final = _Directory(changed_at=0, settings={}, drop_ins=())


class UnitFiles:
    """Remembers every directory of units below `root` until it changes."""

    def __init__(self, root: str) -> None:
        usr_merged = Path(f"{root}/lib").is_symlink()
        self._tops = [f"{root}/{name}" for name in DIRECTORIES if not (usr_merged and name.startswith("lib/"))]
        self._directories: dict[str, _Directory] = {}
        self._looks = 0
        self._placed: set[str] = set()

    def look(self) -> bool:
        """Read what has changed; return whether anything had."""
        self._looks += 1
        if self._looks % _REREAD_LOOKS == 0:
            self._directories.clear()
        changed = False
        seen: set[str] = set()
        for path in self._tops:
            changed |= self._refresh(path, seen)
            for name in self._directories.get(path, _EMPTY).drop_ins:
                changed |= self._refresh(f"{path}/{name}", seen)
        for gone in self._directories.keys() - seen:
            del self._directories[gone]
            changed = True
        if changed:
            self._placed = {name.removesuffix(".d") for path in self._tops for name in self._names_with_settings(path)}
        return changed

    @property
    def placed_units(self) -> tuple[str, ...]:
        """The names of unit files, or of drop-in directories without ".d", that set where memory belongs."""
        return tuple(sorted(name for name in self._placed if self.explain(name)))

    def explain(self, unit: str) -> str:
        """Return what the files of a unit say about its memory; empty when they say nothing."""
        names = list(_names(unit))
        if self._placed.isdisjoint(names):
            return ""
        effective: dict[str, tuple[str, str]] = {}
        for path, settings in self._files_of(names):
            for key, value in settings:
                effective[key] = (value, path)
        told = []
        policy, source = effective.get("NUMAPolicy", ("", ""))
        if policy not in _HARMLESS:
            mask = effective.get("NUMAMask", ("", ""))[0]
            told.append(f"NUMAPolicy={policy}{f' NUMAMask={mask}' if mask else ''} in {source}")
        nodes, source = effective.get("AllowedMemoryNodes", ("", ""))
        if nodes:
            told.append(f"AllowedMemoryNodes={nodes} in {source}")
        return f"unit {unit}: {', '.join(told)}" if told else ""

    def _files_of(self, names: Iterable[str]) -> Iterable[tuple[str, Settings]]:
        """Yield the files of a unit in the order in which they are applied: itself, then drop-ins by their names."""
        listed = tuple(names)
        for name in listed[:2]:
            path = self._first_directory_with(name)
            if path is not None:
                yield f"{path}/{name}", self._directories[path].settings[name]
                break
        drop_ins: dict[str, tuple[str, Settings]] = {}
        for name in listed:
            for path in (f"{top}/{name}.d" for top in self._tops):
                for file, settings in self._directories.get(path, _EMPTY).settings.items():
                    drop_ins.setdefault(file, (f"{path}/{file}", settings))
        yield from (drop_ins[file] for file in sorted(drop_ins))

    def _first_directory_with(self, name: str) -> str | None:
        return next((path for path in self._tops if name in self._directories.get(path, _EMPTY).settings), None)

    def _names_with_settings(self, path: str) -> Iterable[str]:
        here = self._directories.get(path, _EMPTY)
        yield from (name for name, settings in here.settings.items() if settings)
        for name in here.drop_ins:
            if any(self._directories.get(f"{path}/{name}", _EMPTY).settings.values()):
                yield name

    def _refresh(self, path: str, seen: set[str]) -> bool:
        """Read a directory if it has changed, and note that it is there."""
        try:
            changed_at = Path(path).stat().st_mtime_ns
            known = self._directories.get(path)
            if known is None or known.changed_at != changed_at:
                self._directories[path] = _read_directory(path, changed_at)
        except OSError:
            return False
        seen.add(path)
        return known is None or known.changed_at != changed_at


def _names(unit: str) -> Iterable[str]:
    """Yield the names under which a unit's settings may be: its own, its template's, then for drop-ins its prefixes'.

    a-b@c.service: a-b@c.service, a-b@.service, a-.service, service; see systemd.unit(5).
    """
    stem, _, kind = unit.rpartition(".")
    prefix, at, _ = stem.partition("@")
    yield unit
    yield f"{prefix}@.{kind}" if at else unit
    parts = prefix.split("-")
    for n in range(len(parts) - 1, 0, -1):
        yield f"{'-'.join(parts[:n])}-.{kind}"
    yield kind


def _read_directory(path: str, changed_at: int) -> _Directory:
    """Read every unit file, or every drop-in; what cannot be read says nothing."""
    settings: dict[str, Settings] = {}
    drop_ins: list[str] = []
    wanted = (".conf",) if path.endswith(".d") else _TYPES
    for name in sorted(list_names(path)):
        if name.endswith(".d"):
            drop_ins.append(name)
        elif name.endswith(wanted):
            try:
                settings[name] = parse_unit(read_bytes(f"{path}/{name}"))
            except OSError:  # a link to nowhere
                settings[name] = ()
    return _Directory(changed_at=changed_at, settings=settings, drop_ins=tuple(drop_ins))
