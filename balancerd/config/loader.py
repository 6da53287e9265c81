"""From files and command-line settings to one Config and everything that is wrong with it.

Owns reading the file, asking the machine for its users, and the order in which layers win: defaults, then the file,
then each --set. Layers are put together as trees before validation, so that another layer fits in between. Only this
module of the room does I/O. It must not know what the settings do.
"""

import difflib
import pwd
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from pydantic import BaseModel, ValidationError

from balancerd.config import yaml_source
from balancerd.config.advice import advise
from balancerd.config.explain import explain, list_keys
from balancerd.config.fields import FROM_TEXT, describe
from balancerd.config.findings import ConfigError, Finding, Place, error, in_reading_order, warning
from balancerd.config.nodes import Items, Node, Scalar, Table, find_place, from_plain, list_origins, to_plain
from balancerd.config.overrides import override
from balancerd.config.schema import Config, PolicyConfig
from balancerd.config.units import shorten
from balancerd.config.users import resolve_users

DEFAULT_PATH: Final = Path("/etc/balancerd/balancerd.yaml")
_DEFAULTS_PLACE: Final = Place(path="(defaults)")

Plugins = Mapping[str, type[BaseModel]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A usable configuration.

    `findings` are warnings only. `origins` maps the dotted key of every value that was set ("select.min_rss") to its
    place; what is missing there is a default. `root` is the merged tree, for checks that need places.
    """

    config: Config
    findings: tuple[Finding, ...]
    origins: Mapping[str, Place]
    root: Table


def load(path: Path | None = None, *, overrides: Sequence[str] = (), plugins: Plugins | None = None) -> Loaded:
    """Read the file at `path`; without one, the file at DEFAULT_PATH if there is any.

    With `plugins` (the options model of each kind of policy) the policies are checked as well. Raises ConfigError
    with all findings, warnings included, when there is an error among them.
    """
    return _usable(*_assemble(_read(path), overrides, plugins))


def load_text(
    text: str, path: str = "balancerd.yaml", *, overrides: Sequence[str] = (), plugins: Plugins | None = None
) -> Loaded:
    """Like load, from a text that findings call `path`."""
    return _usable(*_assemble(yaml_source.read_text(text, path), overrides, plugins))


def check(path: Path | None = None, *, overrides: Sequence[str] = (), plugins: Plugins | None = None) -> list[Finding]:
    """Everything wrong with the file, errors and warnings in reading order; never raises."""
    return list(_assemble(_read(path), overrides, plugins)[2])


def validate_policies(loaded: Loaded, plugins: Plugins) -> list[Finding]:
    """What is wrong with kinds and options of the policies, given each kind's options model."""
    root = resolve_users(loaded.root, _find_uid)
    return list(in_reading_order(_check_policies(_with_policies(root), plugins)))


def _read(path: Path | None) -> yaml_source.Document:
    chosen = DEFAULT_PATH if path is None else path
    try:
        with chosen.open("rb") as stream:
            data = stream.read(yaml_source.LARGEST_FILE_BYTES + 1)
    except FileNotFoundError:
        if path is None:
            return yaml_source.Document(root=None, findings=())
        return _unreadable(chosen, "there is no such file")
    except (OSError, ValueError) as reason:
        return _unreadable(chosen, getattr(reason, "strerror", None) or str(reason))
    return yaml_source.read_bytes(data, str(chosen))


def _unreadable(path: Path, why: str) -> yaml_source.Document:
    found = error(Place(path=str(path)), f"cannot read it: {why}")
    return yaml_source.Document(root=None, findings=(found,))


def _assemble(
    document: yaml_source.Document, overrides: Iterable[str], plugins: Plugins | None
) -> tuple[Config | None, Table, tuple[Finding, ...]]:
    """Merge, validate and advise. The configuration is None when it is invalid."""
    findings = list(document.findings)
    root = document.root or Table(place=_DEFAULTS_PLACE, entries={})
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
    return config, root, in_reading_order(findings)


def _find_uid(name: str) -> int | None:
    try:
        return pwd.getpwnam(name).pw_uid
    except (KeyError, ValueError):  # ValueError: a text that cannot be a name, such as one with a NUL
        return None


def _usable(config: Config | None, root: Table, findings: tuple[Finding, ...]) -> Loaded:
    if config is None or any(finding.severity == "error" for finding in findings):
        raise ConfigError(findings)
    return Loaded(config=config, findings=findings, origins=MappingProxyType(dict(list_origins(root))), root=root)


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
