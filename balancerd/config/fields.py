"""The typed units as pydantic fields, and the Section from which settings and the options of plugins derive.

Owns the rule that a text is parsed, a typed value from Python is taken as it is, and a bare number that came out of a
file is refused where a unit belongs. The file's key is the attribute without its unit: `min_age_seconds` is written
`min_age`. It must not know which settings exist. Pure: no I/O is reachable from here.
"""

from collections.abc import Callable
from decimal import Decimal
from typing import Annotated, Final, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    PlainValidator,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)

from balancerd.config import units

FROM_TEXT: Final = "the values were written by a person"  # validation context under which bare numbers are refused
Number = TypeVar("Number", int, float)
_UNIT_SUFFIXES: Final = ("_bytes_per_second", "_bytes", "_seconds", "_cores", "_ratio")


def yaml_key(attribute: str) -> str:
    """The key that stands in the file for an attribute: its name without the unit."""
    for suffix in _UNIT_SUFFIXES:
        if attribute.endswith(suffix):
            return attribute.removesuffix(suffix)
    return attribute


class Section(BaseModel):
    """A frozen group of settings that refuses unknown keys and silent conversions; null means all defaults.

    In Python it is built by attribute name from typed values, `SelectConfig(min_age_seconds=0.0)`; from a file by key
    and text, `{"min_age": "0s"}`.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        alias_generator=yaml_key,
        validate_by_name=True,
        validate_by_alias=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _nothing_means_defaults(cls, value: object) -> object:
        return {} if value is None else value

    @classmethod
    def from_text(cls, data: object) -> Self:
        """Validate plain data that was read from a file: keys as written there, units obligatory.

        Raises pydantic.ValidationError.
        """
        return cls.model_validate(data, by_alias=True, by_name=False, context=FROM_TEXT)


def describe(value: object) -> str:
    """A value as an error shows it: one short word or quotation."""
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case str():
            return units.shorten(value)
        case int() | float():
            return repr(value)[:40]
        case dict():
            return "a mapping"
        case list() | tuple():
            return "a list"
    return f"a {type(value).__name__}"


def _reads(parse: Callable[[str], object], expected: str) -> BeforeValidator:
    """Hand texts to `parse`, and from a file bare numbers too: it knows whether they may go without a unit."""

    def read(value: object, info: ValidationInfo) -> object:
        if isinstance(value, str):
            return parse(value)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"expected {expected}, got {describe(value)}")  # noqa: TRY004 -- pydantic collects ValueError only
        return parse(f"{Decimal(repr(value)):f}") if info.context == FROM_TEXT else value

    return BeforeValidator(read)


def between(low: Number, high: Number, show: Callable[[Number], str]) -> AfterValidator:
    """Bounds, both included, that an error states in the unit of the setting."""

    def check(value: Number) -> Number:
        if not low <= value <= high:
            raise ValueError(f"must lie between {show(low)} and {show(high)}, got {show(value)}")
        return value

    return AfterValidator(check)


def or_null(show: Callable[[Number], str]) -> PlainSerializer:
    """Write a setting that may be null as `show` does; on the outside of `X | None`, where its default is told, too."""

    def write(value: Number | None) -> str | None:
        return None if value is None else show(value)

    return PlainSerializer(write, return_type=str | None)


def _read_listen(value: object) -> units.ListenAddress | None:
    if value is None or isinstance(value, units.ListenAddress):
        return value
    if not isinstance(value, str):
        raise ValueError(f'expected host:port in quotes, such as "127.0.0.1:9923", got {describe(value)}')  # noqa: TRY004 -- as above
    if value in {"off", "no", "none", "disabled", ""}:
        raise ValueError(
            f"expected host:port such as 127.0.0.1:9923, got {describe(value)}: write null to switch it off"
        )
    return units.parse_listen(value)


def _show_listen(address: units.ListenAddress | None) -> str | None:
    return None if address is None else str(address)


Duration = Annotated[
    float,
    _reads(units.parse_duration, "a duration such as 2s"),
    PlainSerializer(units.format_duration, return_type=str),
    WithJsonSchema({"type": "string", "pattern": units.DURATION_PATTERN, "examples": ["2s", "500ms", "1h30m"]}),
]
Bytes = Annotated[
    int,
    _reads(units.parse_bytes, "a byte size such as 64MiB"),
    PlainSerializer(units.spell_bytes, return_type=str),
    WithJsonSchema(
        {"anyOf": [{"type": "string", "pattern": units.BYTES_PATTERN}, {"const": 0}], "examples": ["64MiB", "1GiB"]}
    ),
]
Rate = Annotated[
    int,
    _reads(units.parse_rate, "a byte rate such as 1GiB/s"),
    PlainSerializer(units.spell_rate, return_type=str),
    WithJsonSchema({"type": "string", "pattern": units.RATE_PATTERN, "examples": ["1GiB/s", "200MiB/s"]}),
]
Ratio = Annotated[
    float,
    _reads(units.parse_ratio, "a share such as 5% or 0.05"),
    between(0.0, 1.0, units.format_ratio),
    PlainSerializer(units.format_ratio, return_type=str),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": units.RATIO_PATTERN},
                {"type": "number", "minimum": 0, "maximum": 1},
            ],
            "examples": ["5%", 0.05],
        }
    ),
]
Cores = Annotated[
    float,
    _reads(units.parse_cores, "a number of cores such as 0.05"),
    WithJsonSchema({"type": "number", "minimum": 0, "examples": [0.05]}),
]
Listen = Annotated[
    units.ListenAddress | None,
    PlainValidator(_read_listen),
    PlainSerializer(_show_listen),
    WithJsonSchema(
        {
            "anyOf": [{"type": "string", "pattern": units.LISTEN_PATTERN}, {"type": "null"}],
            "examples": ["127.0.0.1:9923", "[::1]:9923"],
        }
    ),
]
