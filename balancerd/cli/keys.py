"""Every key of the configuration, and every option of each kind of policy, in words.

Owns how their schemas are read for that. It must not know where it is printed.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from balancerd import plugins
from balancerd.config.json_schema import build_json_schema


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One key, dotted, "[]" for each entry of a list. `default` is None of sections, and where there is none."""

    path: str
    meaning: str
    default: str | None
    required: bool


def list_settings() -> Iterator[Key]:
    """Yield the keys of balancerd.yaml, those of a section after it."""
    schema: Any = build_json_schema()
    yield from _keys(schema, "", schema.get("$defs", {}))


def list_options() -> Iterator[tuple[str, str, tuple[Key, ...]]]:
    """Yield each kind of policy of this package with what it does, and its options."""
    for kind, plugin in sorted(plugins.discover().items()):
        if plugin.options.__module__.startswith("balancerd."):
            schema = plugin.options.model_json_schema(by_alias=True, mode="serialization")
            yield kind, plugin.summary, tuple(_keys(schema, "", {}))


def _keys(schema: Mapping[str, Any], prefix: str, shared: Mapping[str, Any]) -> Iterator[Key]:
    known = shared or schema.get("$defs", {})
    for key, facts in schema.get("properties", {}).items():
        path = f"{prefix}{key}"
        section = known.get(str(facts.get("$ref", "")).rpartition("/")[2])
        entries = facts.get("items", {}) if isinstance(facts.get("items"), dict) else {}
        listed = known.get(str(entries.get("$ref", "")).rpartition("/")[2])
        meaning = facts.get("description") or ("" if section is None else section.get("description", ""))
        yield Key(
            path=path,
            meaning=f"{meaning}{_choices(facts)}",
            default=None if section is not None or "default" not in facts else _plain(facts["default"]),
            required=key in schema.get("required", ()),
        )
        if section is not None:
            yield from _keys(section, f"{path}.", known)
        elif listed is not None and not prefix.endswith("[]."):
            yield from _keys(listed, f"{path}[].", known)


def _plain(value: object) -> str:
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


def _choices(facts: Mapping[str, Any]) -> str:
    found = facts.get("enum") or next((each["enum"] for each in facts.get("anyOf", ()) if "enum" in each), None)
    return "" if not found else f" One of {', '.join(map(_plain, found))}."
