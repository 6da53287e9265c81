"""What two configurations have different, key by key: pure. Entries of lists that have names are told by these."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

ABSENT: Final = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One key, dotted, with what it is in the first and in the second; `in_first` and `in_second`: whether it is."""

    key: str
    before: object
    after: object
    in_first: bool = True
    in_second: bool = True


def find_differences(first: Mapping[str, object], second: Mapping[str, object]) -> tuple[Difference, ...]:
    """Return every key that differs, in the order of the first one; both as plain data, with all defaults in them."""
    return tuple(_of_mappings("", first, second))


def _of_mappings(prefix: str, first: Mapping[str, object], second: Mapping[str, object]) -> Iterator[Difference]:
    for key in dict.fromkeys((*first, *second)):
        path = f"{prefix}{key}"
        if key not in second:
            yield Difference(key=path, before=first[key], after=ABSENT, in_second=False)
        elif key not in first:
            yield Difference(key=path, before=ABSENT, after=second[key], in_first=False)
        else:
            yield from _of_values(path, first[key], second[key])


def _of_values(path: str, first: object, second: object) -> Iterator[Difference]:
    if first == second:
        return
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        yield from _of_mappings(f"{path}.", first, second)
        return
    first_named, second_named = _by_name(first), _by_name(second)
    if first_named is not None and second_named is not None:
        yield from _of_mappings(f"{path}.", first_named, second_named)
        common = [name for name in first_named if name in second_named]
        if common != [name for name in second_named if name in first_named]:
            yield Difference(key=path, before=[*first_named], after=[*second_named])
        return
    yield Difference(key=path, before=first, after=second)


def _by_name(value: object) -> Mapping[str, object] | None:
    """Return the entries of a list by their names; None when they do not all have one of their own."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        return None
    names = [entry.get("name") if isinstance(entry, Mapping) else None for entry in value]
    if None in names or len(set(map(str, names))) != len(names):
        return None
    return {str(name): entry for name, entry in zip(names, value, strict=True)}
