"""Where in the files of the configuration a setting, a policy or a rule stands: "select.min_rss" to a file and line.

Owns the names by which verdicts tell of settings. Pure. It must not know what settings mean, nor who asks.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from balancerd.config.findings import Place
from balancerd.config.loader import Loaded
from balancerd.config.nodes import Items, Node, Table

_STEP = re.compile(r"([^.\[\]]+)|\[([0-9]+)\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyPlace:
    """One policy of the stack; `place` is None for one of the defaults."""

    name: str
    kind: str
    observing: bool
    place: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """What can be asked of one configuration: the `files` it is made of, what wins last; `policies` in their order."""

    files: tuple[str, ...] = ()
    policies: tuple[PolicyPlace, ...] = ()
    root: Table | None = None
    by_name: Mapping[str, int] = field(default_factory=dict)

    def of_setting(self, setting: str) -> str | None:
        """Return where "select.min_rss", "select.exclude[2]" or "policies.NAME.match[1]" is written, None: nowhere."""
        path = _path(setting)
        if path[:1] == ["policies"] and len(path) > 1:
            number = self.by_name.get(str(path[1]))
            if number is None:
                return None
            path[1] = number
        return _find(self.root, path)

    def of_policy(self, policy: str, setting: str = "") -> str | None:
        """Return where a policy, or a setting of it such as "rules[0]", is written, None: nowhere."""
        number = self.by_name.get(policy)
        return None if number is None else _find(self.root, ["policies", number, *_path(setting)])


def find_places(loaded: Loaded) -> Places:
    """Return the places of a configuration."""
    policies, by_name = loaded.config.policies, {p.name: index for index, p in enumerate(loaded.config.policies)}
    return Places(
        files=loaded.files,
        policies=tuple(
            PolicyPlace(
                name=policy.name,
                kind=policy.kind,
                observing=policy.mode == "observe",
                place=_find(loaded.root, ["policies", index]),
            )
            for index, policy in enumerate(policies)
        ),
        root=loaded.root,
        by_name=by_name,
    )


def _path(setting: str) -> list[str | int]:
    return [int(number) if number else name for name, number in _STEP.findall(setting)]


def _find(root: Table | None, path: Sequence[str | int]) -> str | None:
    """Return file and line of what is at the very end of the path."""
    node: Node | None = root
    place: Place | None = None
    for step in path:
        if isinstance(node, Table) and (entry := node.entries.get(str(step))) is not None:
            node, place = entry.node, entry.place
        elif isinstance(node, Items) and isinstance(step, int) and step < len(node.nodes):
            node = node.nodes[step]
            place = node.place
        else:
            return None
    return None if place is None else tell_line(place)


def tell_line(place: Place) -> str:
    """Return "FILE:LINE"; of what was said on the command line, that."""
    return place.path if place.line is None else f"{place.path}:{place.line}"
