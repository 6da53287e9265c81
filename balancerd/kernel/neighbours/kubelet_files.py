"""Which process the kubelet has given CPUs or nodes of its own. Owns reading the checkpoints again when they changed.

Only root may read them. Where this user may not, a process of a Guaranteed pod whose CPUs are narrowed is taken for one
that the CPU manager has placed; what its memory is bound to its cpuset says anyway.
"""

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from pathlib import Path

from balancerd.kernel.errors import ParseError
from balancerd.kernel.files import read_bytes
from balancerd.kernel.neighbours.cgroup_names import PodCgroup
from balancerd.kernel.neighbours.kubelet import Checkpoint, parse_cpu_manager_state, parse_memory_manager_state
from balancerd.model.ids import CpuId, format_id_list
from balancerd.model.manager import Hold, Manager
from balancerd.model.sample import ProcessSample


class CheckpointFile:
    """One checkpoint. `state` is None where there is none, or none that can be read: then `unreadable` says what."""

    def __init__(self, path: Path, parse: Callable[[bytes, str], Checkpoint]) -> None:
        self._path = path
        self._parse = parse
        self._known: tuple[int, int] | None = None
        self.state: Checkpoint | None = None
        self.unreadable: str | None = None

    def look(self) -> None:
        """Read it when its time or size has changed."""
        try:
            found = self._path.stat()
            stamp = (found.st_mtime_ns, found.st_size)
            if stamp == self._known and self.unreadable is None:
                return
            self.state, self.unreadable = None, None
            self.state = self._parse(read_bytes(str(self._path)), str(self._path))
            self._known = stamp
        except (FileNotFoundError, NotADirectoryError):
            self.state, self.unreadable = None, None
        except PermissionError:
            self.state, self.unreadable = None, str(self._path)
        except ParseError as error:
            self.unreadable = f"{error.path}: {error.what}"

    def explain(self) -> str:
        """Return what it says in a few words."""
        if self.state is None:
            return ""
        pods = self.state.own_by_pod
        return f"policy {self.state.policy}; placed: containers {sum(map(len, pods.values()))}, pods {len(pods)}"

    def own(self, pod: PodCgroup, allowed: AbstractSet[int] | None) -> AbstractSet[int] | None:
        """Return what a process of the pod has for itself, if it may use nothing else; None when it has nothing.

        A container beside it in the pod may use what all share.
        """
        if self.state is None:
            return None
        return next((own for own in self.state.own_by_pod.get(pod.uid, ()) if allowed is None or allowed <= own), None)


class KubeletFiles:
    """The two checkpoints in `directory`."""

    def __init__(self, directory: Path) -> None:
        self.cpu = CheckpointFile(directory / "cpu_manager_state", parse_cpu_manager_state)
        self.memory = CheckpointFile(directory / "memory_manager_state", parse_memory_manager_state)

    def look(self) -> None:
        """Read what has changed."""
        self.cpu.look()
        self.memory.look()

    def hold(self, process: ProcessSample, pod: PodCgroup, online: AbstractSet[CpuId]) -> Hold | None:
        """Return the hold on a process of a pod, on its memory or else its CPUs; None when it has none of its own."""
        nodes = self.memory.own(pod, process.mems_allowed)
        if nodes is not None:
            told = f"pod {pod.uid}: the kubelet's memory manager binds it to nodes {format_id_list(nodes)}"
            return Hold(manager=Manager.KUBELET_MEMORY, detail=told)
        allowed = process.cpus_allowed
        cpus = self.cpu.own(pod, allowed)
        if cpus is None and self.cpu.unreadable is not None and pod.guaranteed and allowed is not None:
            cpus = None if online <= allowed else allowed
        if cpus is not None:
            told = f"pod {pod.uid}: the kubelet's CPU manager gave it CPUs {format_id_list(cpus)}"
            return Hold(manager=Manager.KUBELET_CPU, detail=told)
        return None
