"""The object graph of a replay: the daemon's engine and policies under a configuration, over the ports of a trace."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from balancerd.config.schema import Config
from balancerd.engine.tick import Engine
from balancerd.kernel.observe import ObserveKernel
from balancerd.ports import PolicyPlugin
from balancerd.settings import build_policies, build_settings
from balancerd.trace.reader import Header
from balancerd.trace.replay import Build, ReplayPorts


def build_replay(config: Config, found: Mapping[str, PolicyPlugin[Any]]) -> Build:
    """Return what puts an engine together that replays a trace under a configuration, with fresh policies."""

    def build(header: Header, ports: ReplayPorts) -> Engine:
        settings = build_settings(config, found)
        memory = settings.new_memory()
        memory.copying.restore(header.copying)
        return Engine(
            kernel=ports.kernel if config.mode == "enforce" else ObserveKernel(ports.kernel),
            clock=ports.clock,
            policies=build_policies(config, found, header.kernel),
            settings=replace(settings, criteria=replace(settings.criteria, own_pid=header.own_pid)),
            should_stop=ports.should_stop,
            memory=memory,
            claimed=ports.claimed,
            access_watch=ports.access_watch,
            heat_watch=ports.heat_watch,
        )

    return build
