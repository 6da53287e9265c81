"""What a configuration means to the engine and to the kernel, in their own records: which policies, and all numbers.

Must not know who runs them: the daemon, a replay, or a simulated machine.
"""

import os
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from balancerd import plugins, stack
from balancerd.config.schema import Config, PolicyConfig
from balancerd.engine.budgets import Rates
from balancerd.engine.gate import copy_bytes_per_second
from balancerd.engine.plan import PlanLimits
from balancerd.engine.rules import Rules, ask_for, compile_groups, compile_rules
from balancerd.engine.select import Criteria
from balancerd.engine.tick import Settings
from balancerd.kernel.accesses.watch import AccessSettings
from balancerd.kernel.moving.pacing import Pace
from balancerd.model.access import AccessMethod
from balancerd.model.heat import HeatMethod
from balancerd.model.manager import Manager
from balancerd.ports import Policy, PolicyContext, PolicyPlugin

BUSY_RATIO = 0.9
"""Share of a tick interval that its migrations may fill; the rest is for looking. The targets have the duty cycle."""

FIRST_BATCH_PAGES = 64
"""Where 512 pages take too long, not even the first call is to be felt; where they do not, growing takes four calls."""


def options_by_kind(found: Mapping[str, PolicyPlugin[Any]]) -> dict[str, type[BaseModel]]:
    """Return the options model of each kind of policy, as the configuration room wants them."""
    return {kind: plugin.options for kind, plugin in found.items()}


def build_policies(
    config: Config, found: Mapping[str, PolicyPlugin[Any]], version: tuple[int, int]
) -> tuple[Policy, ...]:
    """Return fresh policies for that kernel in the order of the configuration, whose options are known to be valid."""
    context = PolicyContext(
        migration_bytes_per_second=copy_bytes_per_second(version), watermark_ratio=config.migrate.watermark_ratio
    )
    return tuple(_build_policy(policy, plugins.pick(found, policy.kind), context) for policy in config.policies)


def build_settings(config: Config, found: Mapping[str, PolicyPlugin[Any]] | None = None) -> Settings:
    """Return the numbers that the engine obeys. `found` are the plugins of its policies."""
    interval = config.tick_interval_seconds
    groups = compile_groups(config.workloads)
    rules = Rules(
        include=compile_rules(config.select.include, "select.include"),
        exclude=compile_rules(config.select.exclude, "select.exclude"),
    )
    asking = Rules(include=compile_rules(stack.rules_of(config, found or {}), "policies"))
    yield_to = frozenset(map(Manager, config.yield_to))
    return Settings(
        criteria=Criteria(
            min_rss_bytes=config.select.min_rss_bytes,
            min_cpu_cores=config.select.min_cpu_cores,
            min_age_seconds=config.select.min_age_seconds,
            own_pid=os.getpid(),
            rules=rules,
            read_exe=ask_for("exe", rules, groups) or ask_for("exe", asking),
            read_cmdline=ask_for("cmdline", rules, groups) or ask_for("cmdline", asking),
            yield_to=yield_to,
            placing=bool(stack.placing_plugins(config, found or {})),
            read_workload_pressure=stack.reads_workload_pressure(config, found or {}),
        ),
        scan_budget_ratio=config.select.scan_budget_ratio,
        limits=PlanLimits(
            budget_seconds=BUSY_RATIO * interval,
            watermark_ratio=config.migrate.watermark_ratio,
            max_memory_pressure_ratio=config.migrate.max_memory_pressure_ratio,
            max_cpu_pressure_ratio=config.migrate.max_cpu_pressure_ratio,
            move_all=config.migrate.move_all,
            move_shared=config.migrate.move_shared,
            yield_to=yield_to,
            places=stack.places(config),
        ),
        rates=Rates(
            machine_bytes_per_second=config.migrate.rate_limit_bytes_per_second,
            process_bytes_per_second=config.migrate.process_rate_limit_bytes_per_second,
            node_pair_bytes_per_second=config.migrate.node_pair_rate_limit_bytes_per_second,
            evict_bytes_per_second=config.evict.rate_limit_bytes_per_second,
            interval_seconds=interval,
        ),
        cooldown_seconds=config.migrate.cooldown_seconds,
        observing=frozenset(policy.name for policy in config.policies if policy.mode == "observe"),
        matches=stack.matches(config),
        canary=config.plan.canary,
    )


def build_pace(config: Config) -> Pace:
    """Return how gently the kernel's calls go."""
    migrate = config.migrate
    return Pace(
        stall_target_seconds=migrate.stall_target_seconds,
        stall_limit_seconds=migrate.effective_stall_limit_seconds,
        duty_ratio=migrate.duty_cycle_ratio,
        max_memory_pressure_ratio=migrate.max_memory_pressure_ratio,
        max_cpu_pressure_ratio=migrate.max_cpu_pressure_ratio,
        max_swap_used_ratio=config.evict.max_swap_used_ratio,
        first_batch_pages=FIRST_BATCH_PAGES,
        copying_cpus=None if migrate.copy_on is None else frozenset(migrate.copy_on),
    )


def build_accesses(config: Config) -> AccessSettings:
    """Return how accesses are watched, when a policy asks for it."""
    accesses = config.accesses
    return AccessSettings(
        methods=tuple(map(AccessMethod, accesses.sources)),
        most_processes=accesses.max_processes,
        budget_ratio=accesses.budget_ratio,
        table_bytes=accesses.table_size_bytes,
        log_directory=accesses.log_directory,
        heat=None if accesses.heat is None else HeatMethod(accesses.heat),
    )


def _build_policy(policy: PolicyConfig, plugin: PolicyPlugin[Any], context: PolicyContext) -> Policy:
    return plugin.build(policy.name, stack.options_of(policy, plugin), context)
