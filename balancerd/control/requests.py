"""What comes in with a POST: JSON bodies, taken apart strictly. Pure; it must not know paths or who asks."""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from balancerd.jobs.record import EvictRequest, JobRequest, MoveRequest, UndoRequest
from balancerd.model.ids import NodeId, parse_id_list

MOST_BODY_BYTES = 4096
"""Far more than the longest list of nodes that makes sense."""

LARGEST_PID = 1 << 22
"""PID_MAX_LIMIT, see proc(5) on pid_max."""

_LARGEST_NODE = 1 << 10
"""MAX_NUMNODES with the largest NODES_SHIFT, 10."""

LONGEST_LIST = 256

_ALLOWED: Mapping[str, frozenset[str]] = {
    "move": frozenset({"kind", "pid", "to", "from", "move_all", "ignore_mempolicy", "whole"}),
    "evict": frozenset({"kind", "pid", "cold_only"}),
    "undo": frozenset({"kind", "move"}),
}

Fields: TypeAlias = Mapping[str, Any]


class BadRequest(Exception):  # noqa: N818 -- named after the HTTP status that it becomes
    """The body is not what it should be; the message is a sentence for whoever sent it."""


def parse_job(body: bytes) -> JobRequest:
    """Return the job that a body asks for; api.py documents it. Raises BadRequest."""
    fields = parse_object(body)
    kind = fields.get("kind")
    if not isinstance(kind, str) or kind not in _ALLOWED:
        raise BadRequest('"kind" must be one of "move", "evict", "undo"')
    unknown = sorted(fields.keys() - _ALLOWED[kind])
    if unknown:
        raise BadRequest(f"unknown key {json.dumps(unknown[0][:64])} for a job of kind {kind}")
    return _PARSERS[kind](fields)


def _parse_move(fields: Fields) -> MoveRequest:
    targets = _nodes(fields, "to")
    if targets is None:
        raise BadRequest('"to" is missing: the nodes to move to, such as "2-3"')
    whole, move_all = _flag(fields, "whole"), _flag(fields, "move_all")
    if whole and move_all:
        raise BadRequest('"whole" moves pages of several processes anyway: leave "move_all" out')
    return MoveRequest(
        pid=_number(fields, "pid", LARGEST_PID),
        targets=targets,
        sources=_nodes(fields, "from"),
        move_all=move_all,
        ignore_mempolicy=_flag(fields, "ignore_mempolicy"),
        whole=whole,
    )


def _parse_evict(fields: Fields) -> EvictRequest:
    return EvictRequest(pid=_number(fields, "pid", LARGEST_PID), cold_only=_flag(fields, "cold_only"))


def _parse_undo(fields: Fields) -> UndoRequest:
    return UndoRequest(move_id=_number(fields, "move", (1 << 53) - 1))


_PARSERS: Mapping[str, Callable[[Fields], JobRequest]] = {
    "move": _parse_move,
    "evict": _parse_evict,
    "undo": _parse_undo,
}


def parse_object(body: bytes) -> Fields:
    """Return the JSON object that a body holds. Raises BadRequest."""
    try:
        parsed = json.loads(body.decode("utf-8"), object_pairs_hook=_without_doubles)
    except (ValueError, RecursionError) as error:
        raise BadRequest("the body is no JSON") from error
    if not isinstance(parsed, dict):
        raise BadRequest("the body must be a JSON object")
    return parsed


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise BadRequest("the body has a key twice")
    return fields


def _number(fields: Fields, key: str, largest: int) -> int:
    if key not in fields:
        raise BadRequest(f'"{key}" is missing')
    value = whole(fields[key])
    if value is None or not 1 <= value <= largest:
        raise BadRequest(f'"{key}" must be a number from 1 to {largest}')
    return value


def whole(value: object) -> int | None:
    """Return a JSON value as a whole number, None when it is none; to JSON 5.0 is the same as 5, and true is none."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if type(value) is int else None


def _flag(fields: Fields, key: str) -> bool:
    value = fields.get(key, False)
    if not isinstance(value, bool):
        raise BadRequest(f'"{key}" must be true or false')
    return value


def _nodes(fields: Fields, key: str) -> frozenset[NodeId] | None:
    """Return a set of nodes, None when the key is missing or null."""
    value = fields.get(key)
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > LONGEST_LIST or not value.isascii():
        raise BadRequest(f'"{key}" must be a list of nodes as a text, such as "2-3" or "0,2"')
    numbers = [int(digits) for digits in re.findall("[0-9]+", value)]  # before a range of them is made a set
    if max(numbers, default=0) >= _LARGEST_NODE:
        raise BadRequest(f'"{key}" names node {max(numbers)}: there are at most {_LARGEST_NODE}')
    try:
        nodes = parse_id_list(value)
    except ValueError as error:
        raise BadRequest(f'"{key}" is no list of nodes such as "2-3" or "0,2": {error}') from None
    if not nodes:
        raise BadRequest(f'"{key}" names no node')
    return frozenset(NodeId(node) for node in nodes)
