"""Lists of NUMA nodes and of CPUs as settings: `1`, `[0, 2]` or "0-3,8". Pure; whether there are such is seen later."""

from typing import Annotated, Any, Final

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

from balancerd.config.fields import describe
from balancerd.config.units import shorten
from balancerd.model.ids import CpuId, NodeId, parse_id_list

_LARGEST_NODE: Final = 1023  # CONFIG_NODES_SHIFT is 10 at most
_LARGEST_CPU: Final = 8191  # NR_CPUS is 8192 at most


def _reads(name: str, largest: int) -> BeforeValidator:
    """Return the numbers in the order written; those of a text ascend."""

    def read(value: object) -> object:
        if value is None:
            return None
        if isinstance(value, str):
            try:
                numbers = tuple(sorted(parse_id_list(value)))
            except ValueError as error:
                raise ValueError(f"expected {name}s such as 0-3,8, got {shorten(value)}: {error}") from error
        else:
            numbers = tuple(read_one(each) for each in (value if isinstance(value, list | tuple) else (value,)))
        if not numbers:
            raise ValueError(f"an empty list names no {name}: write at least one, such as 0 or [0, 1]")
        if len(set(numbers)) < len(numbers):
            raise ValueError(f"a {name} stands there twice: name each once")
        if max(numbers) > largest:
            raise ValueError(f"there is no {name} {max(numbers)}: the kernel knows 0 to {largest}")
        return numbers

    def read_one(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise ValueError(f"expected the number of a {name}, got {describe(value)}")
        return value

    return BeforeValidator(read)


def _schema(largest: int) -> WithJsonSchema:
    number: dict[str, Any] = {"type": "integer", "minimum": 0, "maximum": largest}
    several = {"type": "array", "items": number, "minItems": 1}
    return WithJsonSchema({"anyOf": [number, several, {"type": "string", "examples": ["0-3,8"]}]})


Nodes = Annotated[
    tuple[NodeId, ...],
    _reads("node", _LARGEST_NODE),
    PlainSerializer(list, return_type=list[int]),
    _schema(_LARGEST_NODE),
]
Cpus = Annotated[
    tuple[CpuId, ...],
    _reads("CPU", _LARGEST_CPU),
    PlainSerializer(list, return_type=list[int]),
    _schema(_LARGEST_CPU),
]
