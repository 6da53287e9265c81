"""JSON schemas of what the control API takes: bodies, query strings, and numbers within paths.

The modules that take it apart own the bounds; tests hold them to these schemas. It must not know paths.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from balancerd.control import heat_api
from balancerd.control.history_api import LONGEST_NAME
from balancerd.control.import_pieces import LONGEST_NAME as LONGEST_LOG_NAME
from balancerd.control.import_pieces import MOST_PIDS, SAMPLE
from balancerd.control.operator_api import LONGEST_LEASE_SECONDS, MOST_CPUS, MOST_MEMORY_BYTES
from balancerd.control.requests import LARGEST_PID, LONGEST_LIST
from balancerd.control.shapes import Schema
from balancerd.control.workload_api import LONGEST_MATCH, PROCESS_SORTS
from balancerd.history.reader import EVENTS, LARGEST_ID, MOST_EVENTS
from balancerd.jobs.switches import LONGEST_SECONDS
from balancerd.trace.form import LONGEST_SECONDS as LONGEST_RECORDING_SECONDS

_LARGEST_EXACT = (1 << 53) - 1
"""JSON numbers above it are not whole in every language."""


def _object(required: tuple[str, ...] = (), **properties: Schema) -> Schema:
    """Return the schema of a body: keys that are not known are refused."""
    required_keys: Schema = {"required": list(required)} if required else {}
    return {"type": "object", "properties": properties, **required_keys, "additionalProperties": False}


def _integer(least: int, most: int) -> Schema:
    return {"type": "integer", "minimum": least, "maximum": most}


def _amount(most: float, *, nullable: bool = False) -> Schema:
    return {"type": ["number", "null"] if nullable else "number", "minimum": 0, "maximum": most}


def _duration(most: float, *, nullable: bool = False) -> Schema:
    return {"type": ["number", "null"] if nullable else "number", "exclusiveMinimum": 0, "maximum": most}


def _text(most: int, *, nullable: bool = False) -> Schema:
    return {"type": ["string", "null"] if nullable else "string", "maxLength": most}


_PID: Final = _integer(1, LARGEST_PID)
_ID: Final = _integer(1, 999_999_999_999_999)
_NODES: Final[Schema] = {
    "type": "string",
    "maxLength": LONGEST_LIST,
    "pattern": "^[0-9]",
    "description": 'a list of nodes, such as "2-3" or "0,2"',
}
_FLAG: Final[Schema] = {"type": "boolean", "default": False}

PATH_PARAMETERS: Final[Mapping[str, Schema]] = MappingProxyType(
    {"pid": _integer(1, 9_999_999_999), "job": _ID, "lease": _ID, "import": _ID, "recording": _ID}
)

VIEW: Final[Mapping[str, Schema]] = {
    "sort": {"type": "string", "enum": list(PROCESS_SORTS), "default": "remote"},
    "match": {
        **_text(LONGEST_MATCH),
        "default": "",
        "description": "looked for in command, pid and workload's name, upper or lower case",
    },
}

_SECONDS_TEXT: Final[Schema] = {
    "type": "string",
    "pattern": r"^(-?[0-9]{1,12}(\.[0-9]{1,9})?)?$",
    "description": "unix seconds, or with a minus seconds before now, such as -7200",
}

HISTORY: Final[Mapping[str, Schema]] = {
    "since": {**_SECONDS_TEXT, "description": f"{_SECONDS_TEXT['description']}; included"},
    "until": {**_SECONDS_TEXT, "description": f"{_SECONDS_TEXT['description']}; not included"},
    "workload": _text(LONGEST_NAME),
    "pid": _PID,
    "policy": _text(LONGEST_NAME),
    "before": {**_integer(1, LARGEST_ID), "description": "the id below which the page begins"},
    "limit": {**_integer(1, MOST_EVENTS), "default": EVENTS},
}

JOB: Final[Schema] = {
    "oneOf": [
        {
            **_object(
                ("kind", "pid", "to"),
                kind={"const": "move"},
                pid=_PID,
                to=_NODES,
                **{"from": {**_NODES, "type": ["string", "null"]}},
                move_all=_FLAG,
                ignore_mempolicy=_FLAG,
                whole={**_FLAG, "description": "one migrate_pages(2); not together with move_all"},
            ),
            "title": "move",
        },
        {**_object(("kind", "pid"), kind={"const": "evict"}, pid=_PID, cold_only=_FLAG), "title": "evict"},
        {**_object(("kind", "move"), kind={"const": "undo"}, move=_integer(1, _LARGEST_EXACT)), "title": "undo"},
    ],
}

_LOG_SECONDS: Final[Schema] = _amount(1e11, nullable=True)
LOG: Final = _object(
    ("name", "samples"),
    name=_text(LONGEST_LOG_NAME),
    samples={
        "type": "object",
        "propertyNames": {"pattern": "^[1-9][0-9]{0,5}$", "description": "a pid"},
        "additionalProperties": _integer(1, _LARGEST_EXACT),
        "minProperties": 1,
        "maxProperties": MOST_PIDS,
    },
    first_seconds=_LOG_SECONDS,
    last_seconds={**_LOG_SECONDS, "description": "not before first_seconds; null, as that is, without times"},
    clock=_text(LONGEST_LOG_NAME, nullable=True),
    lost_samples=_integer(0, _LARGEST_EXACT),
)
SAMPLES: Final[Schema] = {
    "type": "string",
    "format": "binary",
    "description": f"samples of {SAMPLE.size} bytes, little-endian: pid, tid, CPU (32 bits each), nanoseconds on the "
    "log's clock, address (64 bits each)",
}

ADVICE: Final = _object(
    ("cpus", "memory_bytes"),
    cpus=_amount(MOST_CPUS),
    memory_bytes=_amount(MOST_MEMORY_BYTES),
    lease_seconds={**_amount(LONGEST_LEASE_SECONDS, nullable=True), "description": "null: no lease"},
)
PAUSE: Final = _object(seconds={**_duration(LONGEST_SECONDS, nullable=True), "description": "null: until resumed"})
RESUME: Final = _object()
CHANGED_MODE: Final = _object(("mode",), mode={"enum": ["enforce", "observe"]})
RECORDING: Final = _object(("seconds",), seconds=_duration(LONGEST_RECORDING_SECONDS))

CELLS: Final[Mapping[str, Schema]] = {
    "cells": {**_integer(heat_api.LEAST_CELLS, heat_api.MOST_CELLS), "default": heat_api.CELLS}
}
