"""Rules of the configuration, compiled once: which processes they mean, and which rule decided.

Owns how a rule is matched. A text matches as a whole or not at all, as in Prometheus; what is unknown of a process is
matched by nothing. It must not know where a process's texts come from.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from balancerd.config.schema import RuleConfig, WorkloadConfig
from balancerd.config.units import shorten
from balancerd.model.decision import Reason
from balancerd.model.sample import ProcessSample

LONGEST_TEXT: Final = 4096
"""So many characters of a text are matched: users choose how long their command lines are, and backtracking costs."""
_DELETED: Final = " (deleted)"  # behind the path of a program whose file was replaced, proc_pid_exe(5)


def _exe(process: ProcessSample) -> str | None:
    return None if process.exe is None else process.exe.removesuffix(_DELETED)


_TEXTS: Final[Mapping[str, Callable[[ProcessSample], str | None]]] = {
    "workload": lambda process: None if process.workload is None else process.workload.name,
    "cgroup": lambda process: process.cgroup,
    "comm": lambda process: process.comm,
    "exe": _exe,
    "cmdline": lambda process: process.cmdline,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule. `where` is its place in the configuration, such as "select.exclude[2]"."""

    where: str
    patterns: tuple[tuple[str, re.Pattern[str]], ...] = ()
    uids: frozenset[int] | None = None

    def matches(self, process: ProcessSample) -> bool:
        """Whether every key of the rule matches the process."""
        if self.uids is not None and process.uid not in self.uids:
            return False
        for key, pattern in self.patterns:
            text = _TEXTS[key](process)
            if text is None or pattern.fullmatch(text[:LONGEST_TEXT]) is None:
                return False
        return True

    def asks_for(self, key: str) -> bool:
        """Whether the rule cannot be judged without `key`."""
        return self.uids is not None if key == "uid" else any(each == key for each, _ in self.patterns)

    def __str__(self) -> str:
        said = [f"{key} '{pattern.pattern}'" for key, pattern in self.patterns]
        if self.uids is not None:
            said.append(f"uid {', '.join(map(str, sorted(self.uids)))}")
        return f"{self.where}: {', '.join(said)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Who is selected: those that a rule of `include` matches, or all without one, but for those of `exclude`."""

    include: tuple[Rule, ...] = ()
    exclude: tuple[Rule, ...] = ()

    def objection(self, process: ProcessSample) -> tuple[Reason, str] | None:
        """Return why the rules leave a process alone, and which one or on account of what; None when they do not."""
        for rule in self.exclude:
            if rule.matches(process):
                return Reason.EXCLUDED, str(rule)
        if self.include and not any(rule.matches(process) for rule in self.include):
            return Reason.NOT_INCLUDED, _describe(process, self.include)
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A workload of the configuration: the processes that at least one of its rules matches."""

    name: str
    match: tuple[Rule, ...]


def compile_rules(configs: Iterable[RuleConfig], where: str) -> tuple[Rule, ...]:
    """Compile a list of rules that stands at `where`; its patterns are known to be valid.

    A dot matches every character: a newline in its command line hides no process from a rule.
    """
    return tuple(_compile(config, f"{where}[{index}]") for index, config in enumerate(configs))


def compile_groups(configs: Iterable[WorkloadConfig]) -> tuple[Group, ...]:
    """Compile the workloads of the configuration, in their order."""
    return tuple(
        Group(name=config.name, match=compile_rules(config.match, f"workloads.{config.name}.match"))
        for config in configs
    )


def find_group(groups: Iterable[Group], process: ProcessSample) -> Group | None:
    """Return the first group that the process belongs to; its `workload` is still that of its cgroup."""
    return next((group for group in groups if any(rule.matches(process) for rule in group.match)), None)


def ask_for(key: str, rules: Rules, groups: Sequence[Group] = ()) -> bool:
    """Whether any rule needs `key` of the processes: what is dear to read is read only then."""
    everywhere = (*rules.include, *rules.exclude, *(rule for group in groups for rule in group.match))
    return any(rule.asks_for(key) for rule in everywhere)


def do_rules_see_the_same(a: ProcessSample, b: ProcessSample) -> bool:
    """Whether all that rules ask of a process is the same in two samples of it: no rule need be tried again."""
    return (
        a.comm == b.comm
        and a.uid == b.uid
        and a.cgroup == b.cgroup
        and a.exe == b.exe
        and a.cmdline == b.cmdline
        and a.workload == b.workload
    )


def _compile(config: RuleConfig, where: str) -> Rule:
    written = {key: getattr(config, key) for key in _TEXTS}
    patterns = {key: re.compile(text, re.DOTALL) for key, text in written.items() if text is not None}
    uids = None if config.uid is None else frozenset(config.uid)
    return Rule(where=where, patterns=tuple(patterns.items()), uids=uids)


def _describe(process: ProcessSample, rules: Sequence[Rule]) -> str:
    """Say what a process is in the words that the rules ask for."""
    said = []
    for key, text_of in _TEXTS.items():
        if any(rule.asks_for(key) for rule in rules):
            text = text_of(process)
            said.append(f"{key} unknown" if text is None else f"{key} {shorten(text)}")
    if any(rule.asks_for("uid") for rule in rules):
        said.append("uid unknown" if process.uid is None else f"uid {process.uid}")
    return ", ".join(said)
