"""Finds policies by their entry points in the group `balancerd.policies`, our own among them."""

import difflib
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from balancerd.ports import PolicyPlugin

GROUP = "balancerd.policies"


class PluginError(Exception):
    """A policy could not be found or loaded; the message names it and what is there instead."""


def discover() -> dict[str, PolicyPlugin[Any]]:
    """Return every installed policy plugin by kind, sorted.

    Raises PluginError when two packages offer the same kind, or one cannot be imported.
    """
    found: dict[str, EntryPoint] = {}
    for entry in sorted(entry_points(group=GROUP), key=lambda e: (e.name, e.value)):
        twin = found.get(entry.name)
        if twin is not None and twin.value != entry.value:
            raise PluginError(f"policy kind {entry.name!r} is offered twice: by {twin.value} and by {entry.value}")
        found[entry.name] = entry
    return {kind: _load(entry) for kind, entry in found.items()}


def pick(plugins: Mapping[str, PolicyPlugin[Any]], kind: str) -> PolicyPlugin[Any]:
    """Return the plugin of that kind; PluginError with the kinds there are when there is none."""
    try:
        return plugins[kind]
    except KeyError:
        close = difflib.get_close_matches(kind, plugins, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise PluginError(f"no policy of kind {kind!r}{hint}; there are: {', '.join(plugins)}") from None


def _load(entry: EntryPoint) -> PolicyPlugin[Any]:
    try:
        plugin: PolicyPlugin[Any] = entry.load()
    except Exception as error:
        raise PluginError(f"policy {entry.name!r} ({entry.value}) cannot be loaded: {error}") from error
    for needed in ("options", "summary", "build"):
        if not hasattr(plugin, needed):
            raise PluginError(f"policy {entry.name!r} ({entry.value}) has no {needed!r}; see ports.PolicyPlugin")
    return plugin
