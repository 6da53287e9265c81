"""The policies of a configuration as a stack: their options, who comes first, whether the nodes they name are there.

It must not know any kind of policy but by name, nor what the daemon does with them.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from balancerd.config.advice import advise_on_rules
from balancerd.config.custody import ExposedError, check_kept
from balancerd.config.fields import Section
from balancerd.config.findings import Finding, error, warning
from balancerd.config.loader import Loaded
from balancerd.config.nodes import find_place
from balancerd.config.schema import Config, PolicyConfig, RuleConfig
from balancerd.engine.matching import Matches
from balancerd.engine.rules import compile_rules
from balancerd.kernel.affinity.journal import explain_unwritable
from balancerd.kernel.errors import ParseError
from balancerd.kernel.machine.topology import read_topology
from balancerd.model.ids import format_id_list
from balancerd.model.topology import Topology
from balancerd.ports import EvictingPlugin, PlacingPlugin, PolicyPlugin, SteeringPlugin

Plugins = Mapping[str, PolicyPlugin[Any]]

FIRST_KINDS = ("rule", "cpuset-follow")
"""Kinds of policy that come before all others, in this order, wherever they stand in the configuration."""


def options_of(policy: PolicyConfig, plugin: PolicyPlugin[Any]) -> BaseModel:
    """Return the options of a policy, which are known to be valid."""
    model = plugin.options
    given = dict(policy.options)
    return model.from_text(given) if issubclass(model, Section) else model.model_validate(given)


def places(config: Config) -> dict[str, int]:
    """Return who comes first when two policies want to move one process: rules, then cpuset-follow, then as written."""
    return {
        policy.name: FIRST_KINDS.index(policy.kind) - len(FIRST_KINDS) if policy.kind in FIRST_KINDS else place
        for place, policy in enumerate(config.policies)
    }


def matches(config: Config) -> Matches:
    """Return which policy is for whom."""
    return Matches(
        rules={p.name: compile_rules(p.match, f"policies.{p.name}.match") for p in config.policies if p.match},
        kinds={policy.name: policy.kind for policy in config.policies},
    )


def placing_plugins(config: Config, found: Plugins) -> list[tuple[int, BaseModel, PlacingPlugin[Any]]]:
    """Return each policy that says where memory belongs: its number, its options and its plugin."""
    return [
        (index, options_of(policy, plugin), plugin)
        for index, policy in enumerate(config.policies)
        if (plugin := found.get(policy.kind)) is not None and isinstance(plugin, PlacingPlugin)
    ]


def reads_workload_pressure(config: Config, found: Plugins) -> bool:
    """Return whether any policy needs the memory pressure of workloads."""
    plugins = (found.get(policy.kind) for policy in config.policies)
    return any(isinstance(plugin, EvictingPlugin) and plugin.reads_workload_pressure for plugin in plugins)


def rules_of(config: Config, found: Plugins) -> Iterator[RuleConfig]:
    """Yield every rule that a policy matches processes by."""
    for policy in config.policies:
        yield from policy.match
    for _, options, plugin in placing_plugins(config, found):
        yield from (rule for _, rule in plugin.rules(options))


def advise_on_options(loaded: Loaded, found: Plugins) -> list[Finding]:
    """Return a warning for each doubtful rule in the options of a policy."""
    return [
        warning(find_place(loaded.root, ("policies", index, *path, at[-1])), message)
        for index, options, plugin in placing_plugins(loaded.config, found)
        for path, rule in plugin.rules(options)
        for at, message in advise_on_rules((), (rule,))
    ]


def machine_topology() -> Topology | None:
    """Read this machine's nodes; None where the kernel does not tell."""
    try:
        return read_topology(Path("/sys"))
    except (OSError, ParseError):
        return None


def find_missing_nodes(
    loaded: Loaded, found: Plugins, read: Callable[[], Topology | None] = machine_topology
) -> list[Finding]:
    """Return an error for each node that a policy names and that is not online or has no memory.

    The nodes are read only when a policy names any, and nothing is said when they cannot be.
    """
    named = [
        (find_place(loaded.root, ("policies", index, *path)), node)
        for index, options, plugin in placing_plugins(loaded.config, found)
        for path, node in plugin.nodes(options)
    ]
    topology = read() if named else None
    if topology is None:
        return []
    have = f"write one of those that have memory, {format_id_list(topology.memory_nodes)}"
    return [
        error(place, f"node {node} of this machine has no memory: {have}")
        if node in topology.node_ids
        else error(place, f"there is no node {node} on this machine, or it is offline: {have}")
        for place, node in named
        if node not in topology.memory_nodes
    ]


def find_exposed(loaded: Loaded, state: Path) -> list[Finding]:
    """Return an error for each directory of the daemon's, or on the way to one, that others may write to."""
    config, root = loaded.config, loaded.root
    kept: dict[tuple[str, ...], Path] = {("state_directory",): state}
    if config.history.enabled and config.history.path is not None:
        kept["history", "path"] = Path(config.history.path).parent
    if config.accesses.log_directory is not None:
        kept["accesses", "log_directory"] = Path(config.accesses.log_directory)
    found = []
    for path, directory in kept.items():
        try:
            check_kept(directory)
        except ExposedError as reason:
            found.append(error(find_place(root, path), f"{'.'.join(path)}: {reason.strerror}"))
        except OSError:
            continue  # whoever needs it says so
    return found


def find_missing_journal(loaded: Loaded, found: Plugins, directory: Path) -> list[Finding]:
    """Return an error for each policy that moves threads, where nothing can be written down about them.

    One that only observes writes nothing.
    """
    config = loaded.config
    steering = [
        index
        for index, policy in enumerate(config.policies)
        if _moves_threads(found.get(policy.kind)) and "observe" not in {config.mode, policy.mode}
    ]
    problem = explain_unwritable(directory) if steering else None
    if problem is None:
        return []
    why = f"it needs a directory for its journal, and nothing can be written there: {problem}"
    fix = "make it, owned by the daemon's user, or name another one in state_directory (systemd: StateDirectory=)"
    return [error(find_place(loaded.root, ("policies", index, "kind")), f"{why}: {fix}") for index in steering]


def _moves_threads(plugin: object) -> bool:
    return isinstance(plugin, SteeringPlugin) and plugin.moves_threads
