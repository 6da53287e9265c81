"""Settings that work but that an operator probably does not want: warnings, each with what to write instead.

Pure. It must not know files or places; the key it names leads to them.
"""

import ipaddress
from collections.abc import Iterable, Iterator
from typing import Final, TypeAlias

from balancerd.config.fields import Section, yaml_key
from balancerd.config.patterns import count_wildcards
from balancerd.config.schema import Config, MigrateConfig, RuleConfig
from balancerd.config.units import format_duration, format_rate, format_ratio

Path: TypeAlias = tuple[str | int, ...]
MOST_WILDCARDS: Final = 2
"""With three, a text of 4096 characters that is made for it keeps a core busy for 1.7 s."""


BEFORE_FOLLOWING: Final = {
    "threads": "moves memory first",
    "packing": "brings back what has made room",
    "tiering": "brings all memory up that fits, cold or not",
}
"""Kinds of policy that do little behind follow-cpu, and why."""


def advise(config: Config) -> Iterator[tuple[Path, str]]:
    """Pairs of a key's path and what is doubtful about its value."""
    if config.tick_interval_seconds < 0.5:
        shown = format_duration(config.tick_interval_seconds)
        yield ("tick_interval",), f"looking every {shown} costs CPU and finds little more: 1s to 5s is usual"
    if config.migrate.stall_target_seconds > 0.1:
        shown = format_duration(config.migrate.stall_target_seconds)
        yield ("migrate", "stall_target"), f"one call may hold a process up for {shown}: 5ms to 20ms is usual"
    yield from _advise_on_moving(config.migrate)
    if config.select.scan_budget_ratio > 0.1:
        shown = format_ratio(config.select.scan_budget_ratio)
        yield ("select", "scan_budget"), f"looking may take {shown} of a core: 0.5% to 2% is usual"
    if (listen := config.metrics.listen) is not None and not _is_loopback(listen.host):
        yield (
            ("metrics", "listen"),
            f"{listen} is open to other machines, without a password: write 127.0.0.1:{listen.port} or use a firewall",
        )
    yield from advise_on_rules(("select", "include"), config.select.include)
    yield from advise_on_rules(("select", "exclude"), config.select.exclude)
    for index, workload in enumerate(config.workloads):
        yield from advise_on_rules(("workloads", index, "match"), workload.match)
    for index, policy in enumerate(config.policies):
        yield from advise_on_rules(("policies", index, "match"), policy.match)
    yield from _advise_on_order(config)
    if not config.policies:
        yield ("policies",), "no policy is at work, so nothing will ever move: remove this key to get the default"


def _advise_on_order(config: Config) -> Iterator[tuple[Path, str]]:
    first = next((index for index, policy in enumerate(config.policies) if policy.kind == "follow-cpu"), None)
    for index, policy in enumerate(config.policies):
        if first is not None and index > first and policy.kind in BEFORE_FOLLOWING:
            other = config.policies[first].name
            yield (
                ("policies", index, "kind"),
                f"it stands behind {other}, which {BEFORE_FOLLOWING[policy.kind]}: write it before {other}",
            )


def advise_on_rules(at: Path, rules: Iterable[RuleConfig]) -> Iterator[tuple[Path, str]]:
    """Pairs of a pattern's path and what is doubtful about it; the list of rules stands at `at`."""
    for index, rule in enumerate(rules):
        for key in ("workload", "cgroup", "exe", "cmdline"):  # a comm is short
            pattern = getattr(rule, key)
            if pattern is not None and count_wildcards(pattern) > MOST_WILDCARDS:
                many = f"more than {MOST_WILDCARDS} of .* before the end may take a second for a text made for it"
                yield (*at, index, key), f"{many}: write [^ ]* or the like"


def _advise_on_moving(migrate: MigrateConfig) -> Iterator[tuple[Path, str]]:
    for key, limit in (
        ("process_rate_limit", migrate.process_rate_limit_bytes_per_second),
        ("node_pair_rate_limit", migrate.node_pair_rate_limit_bytes_per_second),
    ):
        if key in _written(migrate) and limit > migrate.rate_limit_bytes_per_second:
            machine = format_rate(migrate.rate_limit_bytes_per_second)
            yield (
                ("migrate", key),
                f"{format_rate(limit)} is never reached: rate_limit is {machine} for the whole machine",
            )
    if migrate.duty_cycle_ratio > 0.8:
        shown = format_ratio(migrate.duty_cycle_ratio)
        yield ("migrate", "duty_cycle"), f"a process being moved may wait for {shown} of the time: 25% to 50% is usual"
    if migrate.max_memory_pressure_ratio is None:
        yield (
            ("migrate", "max_memory_pressure"),
            "memory moves even while the machine runs out of it, which makes that worse: 10% is usual",
        )
    if migrate.move_all:
        yield (
            ("migrate", "move_all"),
            "shared pages follow one of their processes and become remote for the others: false leaves them",
        )


def _written(section: Section) -> set[str]:
    """The keys of a section that someone set."""
    return {yaml_key(name) for name in section.model_fields_set}


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")  # RFC 6761 keeps these names for loopback
