"""Records of the model as JSON, and back. What is written is cloaked: which texts, addresses and users, is said here.

Works from the records' own types. A text that nobody has judged is hashed, so that a new field can give nothing away;
PLAIN lists those that are kept. Fields with their default are left out, a mapping is a list of its pairs, a set of
numbers is written as the kernel does. It must not know in which order records come, nor when.
"""

import dataclasses
import enum
import types
import typing
from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from typing import Any, Final, TypeVar

from balancerd.model.access import AccessRegion, AccessRun
from balancerd.model.decision import Skip
from balancerd.model.extent import Extent
from balancerd.model.heat import HeatRegion
from balancerd.model.ids import ProcessId, format_id_list, parse_id_list
from balancerd.model.machine import Device, Machine
from balancerd.model.manager import ManagerFinding
from balancerd.model.migration import (
    EvictionOutcome,
    EvictionStep,
    FailedRun,
    MigrationOutcome,
    MigrationStep,
    MovedRun,
    Range,
)
from balancerd.model.sample import Mempolicy, ProcessSample, Vma
from balancerd.model.steering import SteerOutcome, SteerStep
from balancerd.model.workload import Workload
from balancerd.trace.cloak import Cloak

Json = Any
Encode = Callable[[Any, Cloak], Json]
Decode = Callable[[Json], Any]
T = TypeVar("T")

PLAIN: Final[frozenset[tuple[type, str]]] = frozenset(
    {
        (Device, "kind"),
        (EvictionStep, "policy"),
        (Machine, "transparent_huge_defrag"),
        (Machine, "transparent_huge_pages"),
        (Mempolicy, "mode"),
        (MigrationStep, "policy"),
        (SteerStep, "policy"),
        (Skip, "by"),
    }
)
"""Texts that say nothing of what runs: words of the kernel's and our own, and names of policies."""

ADDRESSES: Final[frozenset[tuple[type, str]]] = frozenset(
    {
        *((kind, "start") for kind in (AccessRegion, AccessRun, FailedRun, HeatRegion, MovedRun, Range, Vma)),
        *((kind, "end") for kind in (AccessRun, FailedRun, HeatRegion, MovedRun, Range, Vma)),
        *((kind, "resume_at") for kind in (EvictionOutcome, EvictionStep, MigrationOutcome, MigrationStep)),
    }
)
"""Where 0 stands for none, it stays."""

OMITTED: Final[frozenset[tuple[type, str]]] = frozenset(
    {
        (EvictionOutcome, "step"),  # whoever asked has it
        (ManagerFinding, "pids"),
        (MigrationOutcome, "step"),
        (MigrationStep, "move_id"),
        *((Skip, "wanted"), (Skip, "needs")),  # of policies, which judge anew
        (SteerOutcome, "step"),
    }
)

_RULE_KEYS: Final = {"comm": "comm", "cgroup": "cgroup", "exe": "exe", "cmdline": "cmdline"}
"""Texts of a process that rules match, by field."""

_VALUES: Final = (bool, int, float)


@dataclasses.dataclass(frozen=True, slots=True)
class Coder:
    """How one type is written and read."""

    encode: Encode
    decode: Decode


def encode(record: object, cloak: Cloak) -> Json:
    """Return a record as JSON."""
    kind: Any = type(record)
    return coder_of(kind).encode(record, cloak)


def decode(kind: type[T], value: Json) -> T:
    """Return the record of that type. Raises LookupError, TypeError or ValueError for what is none."""
    asked: Any = kind
    record: T = coder_of(asked).decode(value)
    return record


def decode_fields(kind: type, value: Json) -> dict[str, Any]:
    """Return the fields of a record of that type which are written, without those that whoever asks must add."""
    coders = _coders_of_fields(kind)
    return {name: coders[name].decode(each) for name, each in value.items()}


@cache
def coder_of(kind: Any) -> Coder:
    """Return the coder of a type that stands in a record. Raises TypeError when there is none."""
    kind = getattr(kind, "__supertype__", kind)  # NewType
    if kind in _VALUES or kind is type(None):
        return Coder(lambda value, _: value, lambda value: value)
    if kind is str:
        return Coder(lambda text, cloak: cloak.name(text), lambda text: text)
    if kind is ProcessId:
        return Coder(lambda process, cloak: cloak.number(process), lambda number: ProcessId(number, 1))
    if kind is Extent:
        return Coder(
            lambda extent, cloak: [cloak.address(extent.start), cloak.address(extent.end)], lambda pair: Extent(*pair)
        )
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return Coder(lambda member, _: member.value, kind)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return Coder(_encoder_of(kind), lambda value: kind(**decode_fields(kind, value)))
    return _coder_of_generic(typing.get_origin(kind), typing.get_args(kind), kind)


def _coder_of_generic(origin: Any, arguments: tuple[Any, ...], kind: Any) -> Coder:
    if origin in {types.UnionType, typing.Union} and len(arguments) == 2 and type(None) in arguments:
        (inner,) = (coder_of(each) for each in arguments if each is not type(None))
        return Coder(
            lambda value, cloak: None if value is None else inner.encode(value, cloak),
            lambda value: None if value is None else inner.decode(value),
        )
    if origin is tuple and arguments[1:] == (...,):
        item = coder_of(arguments[0])
        return Coder(
            lambda items, cloak: [item.encode(each, cloak) for each in items],
            lambda items: tuple(map(item.decode, items)),
        )
    if origin is frozenset and getattr(arguments[0], "__supertype__", None) is int:
        return Coder(lambda numbers, _: _written(numbers), _read)
    if origin is Mapping or origin is dict:
        key, item = map(coder_of, arguments)
        return Coder(
            lambda pairs, cloak: [[key.encode(k, cloak), item.encode(v, cloak)] for k, v in pairs.items()],
            lambda pairs: {key.decode(k): item.decode(v) for k, v in pairs},
        )
    raise TypeError(f"no trace can hold {kind}")


@cache
def _coders_of_fields(kind: type) -> Mapping[str, Coder]:
    hints = typing.get_type_hints(kind)
    return {
        field.name: _coder_of_field(kind, field.name, hints[field.name])
        for field in dataclasses.fields(kind)
        if (kind, field.name) not in OMITTED
    }


def _coder_of_field(kind: type, name: str, hint: Any) -> Coder:
    if (kind, name) in PLAIN:
        return Coder(lambda text, _: text, lambda text: text)
    if (kind, name) in ADDRESSES:
        return Coder(lambda address, cloak: cloak.address(address) if address else address, lambda address: address)
    if (kind, name) == (ProcessSample, "uid"):
        return Coder(lambda uid, cloak: None if uid is None else cloak.user(uid), lambda uid: uid)
    return coder_of(hint)


def _encoder_of(kind: type) -> Encode:
    """Return how records of a dataclass are written; those of one process begin with entering it."""
    fields = tuple(
        (field.name, _default_of(field), _coders_of_fields(kind)[field.name].encode)
        for field in dataclasses.fields(kind)
        if (kind, field.name) not in OMITTED
    )
    names = {field.name for field in dataclasses.fields(kind)}
    is_of_process = "process" in names

    def encode_plainly(record: Any, cloak: Cloak) -> Json:
        if is_of_process:
            cloak.enter(record.process)
        return {
            name: write(value, cloak)
            for name, default, write in fields
            if (value := getattr(record, name)) is not default and value != default
        }

    if kind is ProcessSample:
        return lambda process, cloak: _with_matches(process, encode_plainly(process, cloak), cloak)
    if "step" in names:

        def encode_outcome(outcome: Any, cloak: Cloak) -> Json:
            cloak.enter(outcome.step.process)
            return encode_plainly(outcome, cloak)

        return encode_outcome
    return encode_plainly


def _default_of(field: "dataclasses.Field[Any]") -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _with_matches(process: ProcessSample, written: dict[str, Json], cloak: Cloak) -> Json:
    """Add to the hashes of a process which patterns of the configuration match it."""
    for key, numbers in cloak.matched(process).items():
        if key == "workload":
            workload: Workload | None = process.workload
            if workload is not None:
                written["workload"]["name"] += numbers
        else:
            written[_RULE_KEYS[key]] += numbers
    return written


@lru_cache(maxsize=1024)
def _written(numbers: frozenset[int]) -> str:
    return format_id_list(numbers)


@lru_cache(maxsize=1024)
def _read(text: str) -> frozenset[int]:
    return parse_id_list(text)
