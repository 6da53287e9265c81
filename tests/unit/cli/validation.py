"""A validator for the JSON schemas that `shapes` makes, and stricter: a key that they do not know is a fault."""

from collections.abc import Iterator
from typing import Any

TYPES: dict[str, tuple[type, ...]] = {
    "integer": (int,),
    "number": (int, float),
    "string": (str,),
    "boolean": (bool,),
    "null": (type(None),),
    "object": (dict,),
    "array": (list,),
}
KEYWORDS = {"type", "properties", "required", "additionalProperties", "items", "anyOf", "const", "enum"}


def faults(schema: dict[str, Any], value: Any, at: str = "$") -> Iterator[str]:
    """Yield what is wrong with a value, and where."""
    assert schema.keys() <= KEYWORDS, schema
    if "anyOf" in schema:
        found = [list(faults(each, value, at)) for each in schema["anyOf"]]
        if all(found):
            yield from min(found, key=len)
        return
    if "const" in schema and value != schema["const"]:
        yield f"{at}: {value!r} is not {schema['const']!r}"
    if "enum" in schema and value not in schema["enum"]:
        yield f"{at}: {value!r} is none of {schema['enum']}"
    if "type" in schema and not _is_of(schema["type"], value):
        yield f"{at}: {value!r} is no {schema['type']}"
        return
    if isinstance(value, dict):
        yield from _object_faults(schema, value, at)
    if isinstance(value, list) and "items" in schema:
        for index, each in enumerate(value):
            yield from faults(schema["items"], each, f"{at}[{index}]")


def _is_of(named: str | list[str], value: Any) -> bool:
    names = [named] if isinstance(named, str) else named
    return any(isinstance(value, TYPES[n]) and (n == "boolean" or not isinstance(value, bool)) for n in names)


def _object_faults(schema: dict[str, Any], value: dict[str, Any], at: str) -> Iterator[str]:
    known = schema.get("properties", {})
    for key in schema.get("required", ()):
        if key not in value:
            yield f"{at}: no {key}"
    for key, each in value.items():
        if key in known:
            yield from faults(known[key], each, f"{at}.{key}")
        elif "additionalProperties" in schema:
            yield from faults(schema["additionalProperties"], each, f"{at}.{key}")
        elif schema:
            yield f"{at}: {key} is not in the schema"
