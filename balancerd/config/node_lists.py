"""Lists of NUMA nodes as settings: `1`, `[0, 2]` or "0-3,8". Pure; whether such nodes exist is seen later."""

from typing import Annotated, Final

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

from balancerd.config.fields import describe
from balancerd.config.units import shorten
from balancerd.model.ids import NodeId, parse_id_list

_LARGEST_NODE: Final = 1023  # CONFIG_NODES_SHIFT is 10 at most


def _read_nodes(value: object) -> object:
    """Return the nodes in the order written; those of a text ascend."""
    if value is None:
        return None
    if isinstance(value, str):
        try:
            nodes = tuple(sorted(parse_id_list(value)))
        except ValueError as error:
            raise ValueError(f"expected nodes such as 0-3,8, got {shorten(value)}: {error}") from error
    else:
        nodes = tuple(_read_node(each) for each in (value if isinstance(value, list | tuple) else (value,)))
    if not nodes:
        raise ValueError("an empty list names no node: write at least one, such as 0 or [0, 1]")
    if len(set(nodes)) < len(nodes):
        raise ValueError("a node stands there twice: name each once")
    if max(nodes) > _LARGEST_NODE:
        raise ValueError(f"there is no node {max(nodes)}: the kernel knows 0 to {_LARGEST_NODE}")
    return nodes


def _read_node(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"expected the number of a node, got {describe(value)}")
    return value


_NODE_SCHEMA: Final = {"type": "integer", "minimum": 0, "maximum": _LARGEST_NODE}
Nodes = Annotated[
    tuple[NodeId, ...],
    BeforeValidator(_read_nodes),
    PlainSerializer(list, return_type=list[int]),
    WithJsonSchema(
        {
            "anyOf": [
                _NODE_SCHEMA,
                {"type": "array", "items": _NODE_SCHEMA, "minItems": 1},
                {"type": "string", "examples": ["0-3,8"]},
            ]
        }
    ),
]
