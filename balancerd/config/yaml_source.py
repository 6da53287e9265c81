"""From the text of one YAML file to a tree of nodes with places, and everything wrong with it as YAML.

Owns the YAML dialect: one document, a mapping at the top, the scalars of `scalars`, unique plain keys, no tags, no
merge keys, aliases within bounds. It reads libyaml's events rather than its nodes, so depth and expansion are bounded
while parsing and no recursion happens in C. It must not know any setting, nor open a file.
"""

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Protocol

import yaml

from balancerd.config import scalars
from balancerd.config.findings import Finding, Place, error
from balancerd.config.nodes import Entry, Items, Node, Scalar, Table
from balancerd.config.units import shorten

LARGEST_FILE_BYTES: Final = 1024 * 1024
MOST_FINDINGS: Final = 100
MOST_NODES: Final = 50_000
DEEPEST: Final = 32
_UNPRINTABLE: Final = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_CORE_TAGS: Final = frozenset({f"tag:yaml.org,2002:{name}" for name in ("str", "seq", "map")})
_FIXES: Final = {
    "mapping values are not allowed in this context": "put the value in quotes, or check the indentation",
    "found character that cannot start any token": "put the value in quotes",
    "did not find expected key": "check the indentation and the brackets and quotes before this place",
    "did not find expected '-' indicator": "begin each item with '- ' in the same column, or indent this key more",
    "could not find expected ':'": "write 'key: value', with a space after the colon",
    "found unexpected end of stream": "close the quote that opens here",
    "did not find expected ',' or ']'": "close the list with ']', or separate its items with ','",
    "did not find expected ',' or '}'": "close the mapping with '}', or separate its keys with ','",
    "did not find expected node content": "put the value in quotes",
    "did not find expected alphabetic or numeric character": "put the value in quotes: '*' and '&' are special",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """What a file holds: None when nothing, or when it cannot be read at all; then `findings` say why."""

    root: Table | None
    findings: tuple[Finding, ...]


class _Mark(Protocol):
    """What the marks of PyYAML and of libyaml have in common, both counted from 0."""

    line: int
    column: int


class _RefusedError(Exception):
    """The document cannot be read any further."""

    def __init__(self, finding: Finding) -> None:
        self.finding = finding
        super().__init__(str(finding))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Built:
    """A finished node with its size and height, aliases expanded."""

    node: Node
    size: int
    height: int


def read_bytes(data: bytes, path: str) -> Document:
    """The document in the bytes of the file that a person calls `path`. Never raises."""
    if len(data) > LARGEST_FILE_BYTES:
        found = error(
            Place(path=path), "the file is larger than 1MiB, which no configuration needs: is it the right file?"
        )
        return Document(root=None, findings=(found,))
    marked = data.removeprefix(codecs.BOM_UTF8)
    try:
        text = marked.decode("utf-8")
    except UnicodeDecodeError as reason:
        place = _place_after(marked[: reason.start].decode("utf-8"), path)
        found = error(place, f"byte 0x{marked[reason.start]:02x} is not UTF-8: save the file in UTF-8")
        return Document(root=None, findings=(found,))
    return read_text(text, path)


def read_text(text: str, path: str) -> Document:
    """The document in a text. Never raises."""
    if match := _UNPRINTABLE.search(text):
        place = _place_after(text[: match.start()], path)
        found = error(place, f"control character U+{ord(match[0]):04X}: remove it")
        return Document(root=None, findings=(found,))
    reader = _Reader(text, path)
    try:
        root = reader.read()
    except _RefusedError as reason:
        return Document(root=None, findings=(*reader.findings, reason.finding))
    except yaml.MarkedYAMLError as reason:
        return Document(root=None, findings=(*reader.findings, _explain_syntax(reason, text, path)))
    return Document(root=root, findings=tuple(reader.findings))


class _Reader:
    """Builds the tree from the events of one text; collects findings that do not stop it."""

    def __init__(self, text: str, path: str) -> None:
        self.findings: list[Finding] = []
        self._path = path
        self._events: Iterator[yaml.Event] = yaml.parse(text, Loader=yaml.CSafeLoader)
        self._anchors: dict[str, _Built] = {}
        self._size = 0

    def read(self) -> Table | None:
        """The top-level mapping, or None for an empty document."""
        root: Node | None = None
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                if root is not None:
                    raise _RefusedError(error(self._place(event), "a second document: keep one, and remove this '---'"))
                root = self._build(next(self._events), depth=0).node
        if root is None or (isinstance(root, Scalar) and root.value is None):
            return None
        if not isinstance(root, Table):
            what = "a list" if isinstance(root, Items) else "a single value"
            raise _RefusedError(
                error(root.place, f"the file holds {what}: write keys and values such as 'mode: enforce'")
            )
        return root

    def _build(self, event: yaml.Event, *, depth: int) -> _Built:
        """The node that begins with this event; takes its events up to the end from the stream."""
        place = self._place(event)
        if isinstance(event, yaml.AliasEvent):
            known = self._anchors.get(event.anchor or "")
            if known is None:
                raise _RefusedError(
                    error(place, f"alias *{event.anchor} has no complete anchor &{event.anchor} before it")
                )
            self._count(known.size, place)
            if depth + known.height > DEEPEST:
                raise _RefusedError(error(place, f"this alias nests more than {DEEPEST} levels deep: flatten it"))
            return known
        self._count(1, place)
        self._refuse_tag(event, place)
        if isinstance(event, yaml.ScalarEvent):
            built = _Built(node=self._scalar(event, place), size=1, height=0)
        elif depth >= DEEPEST:
            raise _RefusedError(error(place, f"nested more than {DEEPEST} levels deep: flatten it"))
        elif isinstance(event, yaml.SequenceStartEvent):
            built = self._items(place, depth)
        else:
            built = self._table(place, depth)
        if isinstance(event, yaml.NodeEvent) and event.anchor is not None:
            self._anchors[event.anchor] = built
        return built

    def _items(self, place: Place, depth: int) -> _Built:
        parts = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            parts.append(self._build(event, depth=depth + 1))
        return _enclose(Items(place=place, nodes=tuple(part.node for part in parts)), parts)

    def _table(self, place: Place, depth: int) -> _Built:
        parts = []
        entries: dict[str, Entry] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key_place = self._place(event)
            key = self._key(event, key_place)
            parts.append(self._build(next(self._events), depth=depth + 1))
            if (first := entries.get(key)) is not None:
                where = f"line {first.place.line}, column {first.place.column}"
                self._complain(key_place, f"duplicate key {shorten(key)}: it is set at {where}, keep one")
            else:
                entries[key] = Entry(place=key_place, node=parts[-1].node)
        return _enclose(Table(place=place, entries=entries), parts)

    def _key(self, event: yaml.Event, place: Place) -> str:
        """The key as written: `on` is the key "on", `1` the key "1"."""
        if isinstance(event, yaml.AliasEvent):
            known = self._anchors.get(event.anchor or "")
            if known is not None and isinstance(known.node, Scalar) and isinstance(known.node.value, str):
                self._count(1, place)
                return known.node.value
        if not isinstance(event, yaml.ScalarEvent):
            raise _RefusedError(error(place, "a key must be a plain name: put the value in quotes if this is a value"))
        self._count(1, place)
        self._refuse_tag(event, place)
        if event.value == "<<" and event.implicit[0]:
            raise _RefusedError(
                error(place, "merge keys ('<<') are not supported: repeat the keys, or alias a whole mapping")
            )
        if event.anchor is not None:
            self._anchors[event.anchor] = _Built(node=Scalar(place=place, value=event.value), size=1, height=0)
        return str(event.value)

    def _scalar(self, event: yaml.ScalarEvent, place: Place) -> Scalar:
        if not event.implicit[0]:
            return Scalar(place=place, value=str(event.value))
        try:
            return Scalar(place=place, value=scalars.resolve(event.value))
        except ValueError as reason:
            self._complain(place, str(reason))
            return Scalar(place=place, value=str(event.value))

    def _refuse_tag(self, event: yaml.Event, place: Place) -> None:
        tag = getattr(event, "tag", None)
        if tag is not None and tag not in _CORE_TAGS:
            shown = tag.replace("tag:yaml.org,2002:", "!!")
            raise _RefusedError(error(place, f"tag {shorten(shown)} is not supported: remove it"))

    def _complain(self, place: Place, message: str) -> None:
        """Note what is wrong and read on, unless so much is wrong that nobody would read it all."""
        self.findings.append(error(place, message))
        if len(self.findings) >= MOST_FINDINGS:
            raise _RefusedError(error(place, f"{MOST_FINDINGS} errors up to here, not reading on: fix these first"))

    def _count(self, nodes: int, place: Place) -> None:
        self._size += nodes
        if self._size > MOST_NODES:
            raise _RefusedError(error(place, f"more than {MOST_NODES} values, aliases expanded: is it the right file?"))

    def _place(self, event: yaml.Event) -> Place:
        return _place_of(event.start_mark, self._path)


def _enclose(node: Node, parts: list[_Built]) -> _Built:
    size = 1 + sum(part.size for part in parts)
    return _Built(node=node, size=size, height=1 + max((part.height for part in parts), default=0))


def _place_of(mark: _Mark | None, path: str) -> Place:
    """The place of a mark; the whole file where PyYAML gives none."""
    if mark is None:
        return Place(path=path)
    return Place(path=path, line=mark.line + 1, column=mark.column + 1)


def _place_after(before: str, path: str) -> Place:
    return Place(path=path, line=before.count("\n") + 1, column=len(before) - (before.rfind("\n") + 1) + 1)


def _explain_syntax(reason: yaml.MarkedYAMLError, text: str, path: str) -> Finding:
    """The words of libyaml, and the fix that helps most often."""
    problem = str(reason.problem)
    mark = reason.context_mark if problem == "found unexpected end of stream" else reason.problem_mark
    place = _place_of(mark or reason.problem_mark, path)
    if mark is not None and text[mark.index : mark.index + 1] == "\t":
        return error(place, "a tab where YAML wants spaces: indent with spaces")
    fix = _FIXES.get(problem, "check the indentation, brackets and quotes around this place")
    return error(place, f"this is not YAML: {problem} ({fix})")
