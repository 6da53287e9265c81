"""The configuration as a trace tells it, and what of another one cannot be replayed.

Owns how patterns and users are written where names are hashes; `cloak` says how they match. What says nothing of
decisions, such as paths and addresses, is left out.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from balancerd.config.schema import Config, RuleConfig
from balancerd.engine.rules import Rule, compile_rules
from balancerd.trace.cloak import Cloak

KEYS: Final = ("workload", "cgroup", "comm", "exe", "cmdline")
_WITH_RULES: Final = ("select", "workloads", "policies")
_LEFT_OUT: Final = ("metrics", "control", "log", "history")
_WRITTEN: Final = re.compile(r"\.\*,([0-9]+),\.\*")
_WITHOUT_EFFECT: Final = (
    ("select", "read_timeout_seconds"),
    ("migrate", "stall_target_seconds"),
    ("migrate", "stall_limit_seconds"),
    ("migrate", "duty_cycle_ratio"),
    ("evict", "max_swap_used_ratio"),
    ("accesses", "sources"),
    ("accesses", "max_processes"),
    ("accesses", "budget_ratio"),
    ("accesses", "table_size_bytes"),
    ("accesses", "heat"),
)
"""Settings of how the machine is looked at and memory moved, which has happened."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patterns:
    """The patterns of a configuration, each once, by key, in their order."""

    texts: Mapping[str, tuple[str, ...]]

    def rules(self) -> dict[str, tuple[Rule, ...]]:
        """Return each pattern as a rule of its own, as `Cloak` wants them."""
        return {
            key: compile_rules((RuleConfig.model_validate({key: text}) for text in texts), key)
            for key, texts in self.texts.items()
        }


def find_patterns(config: Config) -> Patterns:
    """Return the patterns of all rules of a configuration."""
    found: dict[str, dict[str, None]] = {}
    for _, key, value in _names(_plain(config)):
        if isinstance(value, str):
            found.setdefault(key, {})[value] = None
    return Patterns(texts={key: tuple(texts) for key, texts in found.items()})


def cloaked(config: Config, cloak: Cloak) -> dict[str, Any]:
    """Return a configuration as a trace tells it: plain data that the loader understands."""
    patterns = find_patterns(config).texts
    told = _plain(config)
    for key in _LEFT_OUT:
        del told[key]
    told["accesses"]["log_directory"] = None
    for section in _WITH_RULES:
        told[section] = _rewritten(told[section], patterns, cloak)
    for workload in told["workloads"]:
        workload["name"] = cloak.name(workload["name"])
    return told


def _plain(config: Config) -> dict[str, Any]:
    plain: dict[str, Any] = config.model_dump(mode="json", by_alias=True)
    return plain


def _rewritten(node: Any, patterns: Mapping[str, tuple[str, ...]], cloak: Cloak) -> Any:
    """Return a part of a configuration with patterns by their numbers and users by theirs, wherever they stand in it.

    A policy may have rules in its options, of which nothing is known but their keys.
    """
    if isinstance(node, list):
        return [_rewritten(each, patterns, cloak) for each in node]
    if not isinstance(node, dict):
        return node
    written: dict[str, Any] = {}
    for key, value in node.items():
        if value is None and (key in KEYS or key == "uid"):
            continue
        if key in KEYS and isinstance(value, str):
            written[key] = f".*,{patterns[key].index(value)},.*"
        elif key == "uid" and value is not None:
            written[key] = [cloak.user(uid) for uid in _users(value)]
        else:
            written[key] = _rewritten(value, patterns, cloak)
    return written


def _names(node: Any, where: str = "") -> Iterator[tuple[str, str, Any]]:
    """Yield where a pattern or users stand in rules, the key, and what is written there."""
    if isinstance(node, list):
        for index, each in enumerate(node):
            yield from _names(each, f"{where}[{index}]")
    elif isinstance(node, dict):
        for key, value in node.items():
            if where or key in _WITH_RULES:
                if value is not None and (key == "uid" or (key in KEYS and isinstance(value, str))):
                    yield where, key, value
                else:
                    yield from _names(value, f"{where}.{key}" if where else key)


def _users(value: Any) -> tuple[int, ...]:
    """Return users as numbers: names were replaced when the file was read."""
    return tuple(each for each in (value if isinstance(value, list) else [value]) if isinstance(each, int))


def not_replayed(config: Config, recorded: Config) -> Iterator[str]:
    """Yield what of a configuration has no effect in the replay of a trace that was recorded under another one."""
    known = find_patterns(recorded).texts
    users = {uid for _, key, value in _names(_plain(recorded)) if key == "uid" for uid in _users(value)}
    for where, key, value in _names(_plain(config)):
        if key == "uid" and not users.issuperset(_users(value)):
            yield f"{where}: uid is a user, and the trace has numbers of its own for them"
        elif key != "uid" and (_WRITTEN.fullmatch(value) is None or value not in known.get(key, ())):
            yield f"{where}: {key} is a name, and the trace has hashes of names only: it matches nothing"
    if config.workloads != recorded.workloads:
        yield "workloads: processes stay in the workloads in which they were when they were recorded"
    for section, name in _WITHOUT_EFFECT:
        if getattr(getattr(config, section), name) != getattr(getattr(recorded, section), name):
            field = type(getattr(config, section)).model_fields[name]
            yield f"{section}.{field.alias or name}: what was looked at, and how memory moved, is as it was recorded"
    if config.select.min_rss_bytes < recorded.select.min_rss_bytes:
        yield "select.min_rss: smaller processes are not in the trace"
