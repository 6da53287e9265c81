"""From what pydantic refuses to findings in plain words, at the place where the refused key or value was written.

Owns the wording of type errors and the "did you mean" of unknown keys. Works for the settings and for the options of
any policy's plugin. It must not know YAML syntax, files, or any particular setting.
"""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from balancerd.config.fields import describe
from balancerd.config.findings import Finding, error
from balancerd.config.nodes import Node, find_place
from balancerd.config.units import shorten

MOST_FINDINGS: Final = 100  # nobody reads more, and each costs a search for what was meant
Path = tuple[str | int, ...]
_EXPECTED: Final[Mapping[str, str]] = {
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "string_type": "a text",
    "model_type": "a mapping (key: value)",
    "model_attributes_type": "a mapping (key: value)",
    "dict_type": "a mapping (key: value)",
    "mapping_type": "a mapping (key: value)",
    "tuple_type": "a list (- item)",
    "list_type": "a list (- item)",
    "set_type": "a list (- item)",
    "frozen_set_type": "a list (- item)",
}
_LIMITS: Final[Mapping[str, tuple[str, str]]] = {
    "greater_than": ("more than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
    "multiple_of": ("a multiple of", "multiple_of"),
}


def explain(
    reason: ValidationError, root: Node, model: type[BaseModel], *, besides: Sequence[str] = ()
) -> Iterator[Finding]:
    """One finding for each error, in pydantic's order. `root` is what `model` refused.

    `besides` are keys that are also known at its top, though not to the model.
    """
    details = reason.errors(include_url=False)
    for detail in details[:MOST_FINDINGS]:
        path = (*detail["loc"], *_at(detail))
        if detail["type"] == "extra_forbidden":
            place = find_place(root, path, key=True)
            yield error(place, _explain_unknown(str(path[-1]), model, path[:-1], besides))
        elif detail["type"] == "missing":
            yield error(find_place(root, path[:-1]), f"missing key {shorten(str(path[-1]))}: add it")
        else:
            yield error(find_place(root, path), _word(detail))
    if len(details) > MOST_FINDINGS:
        place = find_place(root, details[MOST_FINDINGS]["loc"], key=True)
        yield error(place, f"this and {len(details) - MOST_FINDINGS - 1} more errors: fix the others first")


def _explain_unknown(key: str, model: type[BaseModel], section: Path, besides: Sequence[str]) -> str:
    """The key that was meant, or where it belongs, or all there are."""
    here = _model_at(model, section)
    known = [*(() if section else besides), *(list_keys(here) if here is not None else ())]
    if close := difflib.get_close_matches(key, known, n=1):
        return f"unknown key {shorten(key)} (did you mean {shorten(close[0])}?)"
    for name in list_keys(model):
        inner = _model_at(model, (name,))
        if inner is not None and key in list_keys(inner):
            return f"unknown key {shorten(key)} (did you mean '{name}.{key}'?)"
    if here is not None and section and key in list_keys(model):
        return f"unknown key {shorten(key)} (it belongs at the top level)"
    return f"unknown key {shorten(key)} (known: {', '.join(known) or 'none'})"


def list_keys(model: type[BaseModel]) -> list[str]:
    """The keys of a model as they are written in a file."""
    return [_key(name, field.alias, field.validation_alias) for name, field in model.model_fields.items()]


def _key(name: str, alias: str | None, validation_alias: object) -> str:
    return validation_alias if isinstance(validation_alias, str) else alias or name


def _model_at(model: type[BaseModel], section: Path) -> type[BaseModel] | None:
    """The model that validates the mapping at `section`, None where there is no model."""
    current: type[BaseModel] | None = model
    for step in section:
        if isinstance(step, int):
            continue
        if current is None:
            return None
        fields = dict(zip(list_keys(current), current.model_fields.values(), strict=True))
        current = _first_model(fields[step].annotation) if step in fields else None
    return current


def _first_model(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for each in get_args(annotation) if (found := _first_model(each)) is not None), None)


def _at(detail: ErrorDetails) -> Path:
    """Where inside the value a validator of ours found the fault."""
    at = detail.get("ctx", {}).get("at", ())
    return tuple(at)


def _word(detail: ErrorDetails) -> str:
    kind, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    got = describe(value)
    if kind == "value_error":
        return str(context["error"])
    if kind == "literal_error":
        return f"expected {context['expected']}, got {got}{_boolean_hint(value)}"
    if kind in _LIMITS:
        words, name = _LIMITS[kind]
        return f"must be {words} {context[name]}, got {got}"
    if kind == "string_type" and isinstance(value, int | float):
        return f"expected a text, got {got}: put it in quotes"
    if kind in _EXPECTED:
        return f"expected {_EXPECTED[kind]}, got {got}{_boolean_hint(value) if kind.startswith('bool') else ''}"
    message = detail["msg"]
    return message.replace("Input should be", "expected", 1) if "Input" in message else message


def _boolean_hint(value: object) -> str:
    """YAML 1.1 took these words for booleans; whoever writes them may still think so."""
    if isinstance(value, str) and value.lower() in {"on", "off", "yes", "no", "y", "n"}:
        return ": YAML 1.2 reads it as a text, only true and false are booleans"
    return ""
