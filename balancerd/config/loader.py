"""From files and command-line settings to one Config and everything that is wrong with it.

Owns reading the files, asking the machine for its users, and the order in which layers win: defaults, then the file,
then its fragments, then each --set. Layers are put together as trees before validation. Only this module of the room
does I/O. It must not know what the settings do.
"""

import difflib
import os
import pwd
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from pydantic import BaseModel, ValidationError

from balancerd.config import custody, yaml_source
from balancerd.config.advice import advise
from balancerd.config.explain import explain, list_keys
from balancerd.config.fields import FROM_TEXT, describe
from balancerd.config.findings import ConfigError, Finding, Place, error, in_reading_order, warning
from balancerd.config.layers import lay_over
from balancerd.config.nodes import Entry, Items, Node, Scalar, Table, find_place, from_plain, list_origins, to_plain
from balancerd.config.overrides import override
from balancerd.config.schema import Config, PolicyConfig
from balancerd.config.units import shorten
from balancerd.config.users import resolve_users

DEFAULT_PATH: Final = Path("/etc/balancerd/balancerd.yaml")
FRAGMENTS: Final = (
    Path("/usr/lib/balancerd/conf.d"),
    Path("/run/balancerd/conf.d"),
    Path("/etc/balancerd/conf.d"),
)
"""Where fragments lie; one in a later directory takes the place of one of the same name in an earlier one."""

SUFFIX: Final = ".yaml"
_DEFAULTS_PLACE: Final = Place(path="(defaults)")

Plugins = Mapping[str, type[BaseModel]]
_Open = Callable[[Path, int], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A usable configuration.

    `files` are those that were read, what wins last. `findings` are warnings only. `origins` maps the dotted key of
    every value that was set ("select.min_rss") to its place; what is missing there is a default. `root` is the merged
    tree, for checks that need places.
    """

    config: Config
    files: tuple[str, ...]
    findings: tuple[Finding, ...]
    origins: Mapping[str, Place]
    root: Table


def load(
    path: Path | None = None, *, overrides: Sequence[str] = (), plugins: Plugins | None = None, obeyed: bool = False
) -> Loaded:
    """Read the file at `path`; without one, the file at DEFAULT_PATH if there is any, and all fragments.

    With `plugins` (the options model of each kind of policy) the policies are checked as well. `obeyed` tells that a
    daemon is to do as they say: files that others can write to are errors then, see custody. Raises ConfigError with
    all findings, warnings included, when there is an error among them.
    """
    return _usable(_assemble(_read(path, custody.open_kept if obeyed else os.open), overrides, plugins))


def load_text(
    text: str, path: str = "balancerd.yaml", *, overrides: Sequence[str] = (), plugins: Plugins | None = None
) -> Loaded:
    """Like load, from a text that findings call `path`."""
    return _usable(_assemble({path: yaml_source.read_text(text, path)}, overrides, plugins))


def check(path: Path | None = None, *, overrides: Sequence[str] = (), plugins: Plugins | None = None) -> list[Finding]:
    """Everything wrong with what load() would read, errors and warnings in reading order; never raises.

    Without a path that is what the daemon obeys.
    """
    return list(_assemble(_read(path, custody.open_kept if path is None else os.open), overrides, plugins).findings)


def validate_policies(loaded: Loaded, plugins: Plugins) -> list[Finding]:
    """What is wrong with kinds and options of the policies, given each kind's options model."""
    root = resolve_users(loaded.root, _find_uid)
    return list(in_reading_order(_check_policies(_with_policies(root), plugins)))


def _read(path: Path | None, open_path: _Open) -> dict[str, yaml_source.Document | None]:
    """Return what each file holds, by its path; what wins stands last. First comes the main one, None if missing."""
    if path is not None:
        return {str(path): _read_file(path, open_path)}
    main = _read_file(DEFAULT_PATH, open_path) if _is_there(DEFAULT_PATH) else None
    return {str(DEFAULT_PATH): main} | _read_fragments(open_path)


def _read_file(path: Path, open_path: _Open) -> yaml_source.Document:
    try:
        with os.fdopen(open_path(path, os.O_RDONLY), "rb") as stream:
            data = stream.read(yaml_source.LARGEST_FILE_BYTES + 1)
    except FileNotFoundError:
        return _unreadable(path, "there is no such file")
    except (OSError, ValueError) as reason:
        return _unreadable(path, getattr(reason, "strerror", None) or str(reason))
    return yaml_source.read_bytes(data, str(path))


def _is_there(path: Path) -> bool:
    """Whether there is a file, or something that keeps it from being seen."""
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return True


def _read_fragments(open_path: _Open) -> dict[str, yaml_source.Document]:
    """Return the fragments in the order of their names, of each name the one that counts."""
    found: dict[str, Path] = {}
    unreadable: dict[str, yaml_source.Document] = {}
    for directory in FRAGMENTS:
        try:
            found |= {name: directory / name for name in _names(directory, open_path) if name.endswith(SUFFIX)}
        except FileNotFoundError:
            continue
        except OSError as reason:
            unreadable[str(directory)] = _unreadable(directory, reason.strerror or str(reason))
    return unreadable | {str(found[name]): _read_file(found[name], open_path) for name in sorted(found)}


def _names(directory: Path, open_path: _Open) -> list[str]:
    opened = open_path(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with os.scandir(opened) as entries:
            return [entry.name for entry in entries]
    finally:
        os.close(opened)


def _unreadable(path: Path, why: str) -> yaml_source.Document:
    found = error(Place(path=str(path)), f"cannot read it: {why}")
    return yaml_source.Document(root=None, findings=(found,))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Assembled:
    """What became of some files; `config` is None when it is invalid."""

    config: Config | None
    root: Table
    files: tuple[str, ...]
    findings: tuple[Finding, ...]


def _assemble(
    documents: Mapping[str, yaml_source.Document | None], overrides: Iterable[str], plugins: Plugins | None
) -> _Assembled:
    """Merge, validate and advise."""
    findings = [finding for document in documents.values() if document is not None for finding in document.findings]
    root = _merge([None if document is None else document.root for document in documents.values()])
    defaults = Config().model_dump(mode="json", by_alias=True)
    for argument in overrides:
        root, found = override(root, argument, defaults)
        findings += [found] if found is not None else []
    refused = {finding.place for finding in findings}
    config: Config | None = None
    resolved = resolve_users(root, _find_uid)
    try:
        config = Config.from_text(to_plain(resolved))
    except ValidationError as reason:
        findings += [each for each in explain(reason, root, Config) if each.place not in refused]
    else:
        findings += [warning(find_place(root, path), message) for path, message in advise(config)]
    if plugins is not None:
        findings += [each for each in _check_policies(_with_policies(resolved), plugins) if each.place not in refused]
    files = tuple(path for path, document in documents.items() if document is not None)
    return _Assembled(config=config, root=root, files=files, findings=in_reading_order(findings, files))


def _merge(layers: Sequence[Table | None]) -> Table:
    """Return the layers as one: the main file, then fragments, whose policies are laid over those of the default."""
    main, *fragments = layers
    root = main or Table(place=_DEFAULTS_PLACE, entries={})
    for layer in fragments:
        if layer is not None and "policies" in layer.entries and "policies" not in root.entries:
            policies = Entry(place=_DEFAULTS_PLACE, node=_with_policies(root))
            root = Table(place=root.place, entries={**root.entries, "policies": policies})
        root = root if layer is None else lay_over(root, layer)
    return root


def _find_uid(name: str) -> int | None:
    try:
        return pwd.getpwnam(name).pw_uid
    except (KeyError, ValueError):  # ValueError: a text that cannot be a name, such as one with a NUL
        return None


def _usable(found: _Assembled) -> Loaded:
    if found.config is None or any(finding.severity == "error" for finding in found.findings):
        raise ConfigError(found.findings)
    return Loaded(
        config=found.config,
        files=found.files,
        findings=found.findings,
        origins=MappingProxyType(dict(list_origins(found.root))),
        root=found.root,
    )


def _with_policies(root: Table) -> Node:
    """The list of policies as it was set, or as it is by default."""
    if "policies" in root.entries:
        return root.entries["policies"].node
    return from_plain(Config().model_dump(mode="json", by_alias=True)["policies"], _DEFAULTS_PLACE)


def _check_policies(policies: Node, plugins: Plugins) -> Iterator[Finding]:
    """Only what the settings' own models cannot see; entries that they refuse are passed over."""
    for node in policies.nodes if isinstance(policies, Items) else ():
        kind = node.entries.get("kind") if isinstance(node, Table) else None
        if not isinstance(node, Table) or kind is None or not isinstance(kind.node, Scalar):
            continue
        options = plugins.get(str(kind.node.value))
        if options is None:
            yield error(kind.node.place, _explain_kind(kind.node, plugins))
        else:
            yield from _check_options(node, options)


def _check_options(policy: Table, options: type[BaseModel]) -> Iterator[Finding]:
    own = list_keys(PolicyConfig)
    entries = {key: entry for key, entry in policy.entries.items() if key not in own}
    given = Table(place=policy.place, entries=entries)
    try:
        options.model_validate(to_plain(given), by_alias=True, by_name=False, context=FROM_TEXT)
    except ValidationError as reason:
        yield from explain(reason, given, options, besides=own)


def _explain_kind(kind: Scalar, plugins: Plugins) -> str:
    known = sorted(plugins)
    shown = describe(kind.value)
    if close := difflib.get_close_matches(str(kind.value), known, n=1):
        return f"unknown kind of policy {shown} (did you mean {shorten(close[0])}?)"
    return f"unknown kind of policy {shown} (installed: {', '.join(known) or 'none'})"
