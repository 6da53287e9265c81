"""The checkpoints of the kubelet's CPU and memory managers: which containers have CPUs or nodes of their own.

The files are those of pkg/kubelet/cm/{cpumanager,memorymanager}/state in Kubernetes 1.18 and later. Remembers nothing.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from balancerd.kernel.errors import ParseError
from balancerd.model.ids import parse_id_list


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What one of the two managers has done: its policy, and by pod UID what each container has for itself.

    These are numbers of CPUs for the CPU manager, of nodes for the memory manager.
    """

    policy: str
    own_by_pod: Mapping[str, tuple[frozenset[int], ...]] = field(default_factory=dict)

    @property
    def is_static(self) -> bool:
        """Whether it places containers at all: the CPU manager writes "static", the memory manager "Static"."""
        return self.policy.lower() == "static"


def parse_cpu_manager_state(text: bytes, path: str) -> Checkpoint:
    """Parse cpu_manager_state: {"policyName", "defaultCpuSet", "entries": {pod UID: {container: "2-3"}}}."""
    return _parse(text, path, parse_id_list)


def parse_memory_manager_state(text: bytes, path: str) -> Checkpoint:
    """Parse memory_manager_state: its "entries" are {pod UID: {container: [{"numaAffinity": [0], "type", "size"}]}}."""
    return _parse(text, path, lambda blocks: frozenset(int(node) for block in blocks for node in block["numaAffinity"]))


def _parse(text: bytes, path: str, parse_own: Callable[[Any], frozenset[int]]) -> Checkpoint:
    """Parse a checkpoint; "entries" is left out when there are none."""
    try:
        state = json.loads(text)
        return Checkpoint(
            policy=state["policyName"].strip(),
            own_by_pod={
                pod: tuple(parse_own(own) for own in containers.values())
                for pod, containers in (state.get("entries") or {}).items()
            },
        )
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ParseError(path, 0, text, f"not a checkpoint of the kubelet: {error!r}") from error
