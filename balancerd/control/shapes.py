"""A short way to write JSON schemas: shapes of plain Python, made into schemas. It must not know any document.

A shape is "int", "num", "str", "bool" or "any", each with "?" where it may be null; a mapping of keys to shapes, whose
keys end in "?" where they may be missing; or what one_of(), each(), by(), maybe() and either() return.
"""

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

Schema: TypeAlias = dict[str, Any]
Shape: TypeAlias = "str | Mapping[str, Any] | _Made"

_TYPES: Final = {"int": "integer", "num": "number", "str": "string", "bool": "boolean"}


class _Made(dict[str, Any]):
    """A schema that was made already."""


def schema_of(shape: Shape) -> Schema:
    """Return the JSON schema of a shape. Documents may have more keys than are known: new ones may be added."""
    if isinstance(shape, _Made):
        return dict(shape)
    if isinstance(shape, str):
        name, nullable = shape.removesuffix("?"), shape.endswith("?")
        if name == "any":
            return {}
        return {"type": [_TYPES[name], "null"] if nullable else _TYPES[name]}
    return {
        "type": "object",
        "properties": {key.removesuffix("?"): schema_of(each) for key, each in shape.items()},
        "required": [key for key in shape if not key.endswith("?")],
    }


def of(fields: str) -> dict[str, Any]:
    """Return simple fields as a mapping: "pid:int uid:int?"."""
    return dict(field.split(":") for field in fields.split())


def one_of(*values: str | int | None) -> _Made:
    """Return the schema of one of these values."""
    return _Made({"const": values[0]} if len(values) == 1 else {"enum": list(values)})


def each(shape: Shape) -> _Made:
    """Return the schema of a list of so shaped entries."""
    return _Made({"type": "array", "items": schema_of(shape)})


def by(shape: Shape) -> _Made:
    """Return the schema of an object whose keys are data, such as nodes: {"0": shape}."""
    return _Made({"type": "object", "additionalProperties": schema_of(shape)})


def maybe(shape: Shape) -> _Made:
    """Return the schema of something that may be null."""
    return _Made({"anyOf": [schema_of(shape), {"type": "null"}]})


def either(*shapes: Shape) -> _Made:
    """Return the schema of one of several forms."""
    return _Made({"anyOf": [schema_of(shape) for shape in shapes]})
