"""Everyone else who places memory or processes on this machine, each source looked at on its own time.

Owns when a source is read again, and which process is held by whom. What a source cannot tell is said in its finding
and never stops anything. It must not know what follows from a finding; that is the engine's.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from balancerd.kernel.errors import ParseError
from balancerd.kernel.files import read_bytes
from balancerd.kernel.neighbours.cgroup_names import GuestCgroup, PodCgroup, guest_of, pod_of, units_of
from balancerd.kernel.neighbours.damon import Schemes, read_schemes
from balancerd.kernel.neighbours.kubelet_files import CheckpointFile, KubeletFiles
from balancerd.kernel.neighbours.libvirt import GuestFiles, Guests, read_cgroup_pins
from balancerd.kernel.neighbours.programs import KDAMOND, PROGRAMS, FindPids, Programs
from balancerd.kernel.neighbours.units import UnitFiles
from balancerd.model.ids import CpuId, format_id_list
from balancerd.model.manager import REMEDY, Hold, Manager, ManagerFinding
from balancerd.model.sample import ProcessSample
from balancerd.model.topology import Topology

_KNOWN_CGROUPS = 4096
"""How many cgroups are remembered; then all are forgotten."""

_SHOWN = 5
"""How many names a finding lists."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """What a cgroup tells of those in it."""

    pod: PodCgroup | None
    guest: GuestCgroup | None
    unit: str


@dataclass(slots=True, kw_only=True)
class _Source:
    """Something to read every so often, 0: at each look, and whom it tells of."""

    every_seconds: float
    managers: tuple[Manager, ...]
    read: Callable[[], None]
    due_at: float = float("-inf")


class Neighbours:
    """Looks for other managers below `procfs`, `sysfs` and `root`; `cgroupfs` is where cgroups are mounted.

    `find` tells of processes by name what a survey knows already; without it they are listed here, more rarely.
    """

    def __init__(
        self,
        *,
        procfs: Path = Path("/proc"),
        sysfs: Path = Path("/sys"),
        root: Path = Path("/"),
        cgroupfs: Path = Path("/sys/fs/cgroup"),
        find: FindPids | None = None,
    ) -> None:
        self._procfs, self._sysfs, self._cgroupfs = str(procfs), str(sysfs), str(cgroupfs)
        self._programs = Programs(self._procfs, find)
        self._kubelet = KubeletFiles(root / "var/lib/kubelet")
        self._guest_files = GuestFiles(str(root / "run/libvirt/qemu"))
        self._units = UnitFiles(str(root).rstrip("/"))
        self._running: dict[str, tuple[int, ...]] = {}
        self._schemes = Schemes()
        self._balancing: str | None = None
        self._guests = Guests(by_pid={})
        self._topology: Topology | None = None
        self._online: frozenset[CpuId] = frozenset()
        self._errors: dict[Manager, str] = {}
        self._places: dict[str, _Place | None] = {}
        self._cgroup_pins: dict[str, str] = {}
        self._affinities: dict[frozenset[CpuId], Hold | None] = {}
        self._sources = (
            _Source(
                every_seconds=60.0 if find is None else 20.0,
                managers=(*PROGRAMS.values(), Manager.DAMOS),
                read=self._list_programs,
            ),
            _Source(every_seconds=10.0, managers=(), read=self._verify_programs),
            _Source(every_seconds=0.0, managers=(Manager.KERNEL_BALANCING,), read=self._read_balancing),
            _Source(every_seconds=20.0, managers=(Manager.DAMOS,), read=self._read_schemes),
            _Source(
                every_seconds=20.0, managers=(Manager.KUBELET_CPU, Manager.KUBELET_MEMORY), read=self._kubelet.look
            ),
            _Source(every_seconds=30.0, managers=(Manager.LIBVIRT,), read=self._read_guests),
            _Source(every_seconds=60.0, managers=(Manager.NUMA_POLICY,), read=self._read_units),
        )

    def look(self, topology: Topology, now: float) -> tuple[ManagerFinding, ...]:
        """Return what is known of each manager at second `now`, read again where it is time. Call it before `of`.

        There is a finding of every manager but MEMPOLICY and AFFINITY, which only processes can tell of.
        """
        if topology is not self._topology:
            self._topology, self._online = topology, frozenset(topology.node_of_cpu)
            self._affinities.clear()
        for source in self._sources:
            if now >= source.due_at:
                source.due_at = now + source.every_seconds
                self._read(source)
        return self._tell()

    def of(self, process: ProcessSample) -> Hold | None:
        """Return who has placed a process, and how; None when nobody has, as far as can be told."""
        place = None if process.cgroup is None else self._place(process.cgroup)
        return (
            self._hold_of_guest(process, place)
            or (None if place is None else self._hold_in_place(process, place))
            or (None if process.cpus_allowed is None else self._affinity(process.cpus_allowed))
        )

    def annotate(self, process: ProcessSample) -> ProcessSample:
        """Return the process with its manager; the very same one where nothing is to be added."""
        hold = self.of(process)
        manager, detail = (None, "") if hold is None else (hold.manager, hold.detail)
        if (process.manager, process.manager_detail) == (manager, detail):
            return process
        return replace(process, manager=manager, manager_detail=detail)

    def _read(self, source: _Source) -> None:
        for manager in source.managers:
            self._errors.pop(manager, None)
        try:
            source.read()
        except (OSError, ParseError) as error:
            self._errors |= dict.fromkeys(source.managers, str(error))

    def _list_programs(self) -> None:
        self._running = self._programs.look()

    def _verify_programs(self) -> None:
        self._running = self._programs.verify()

    def _read_balancing(self) -> None:
        self._balancing = None
        with contextlib.suppress(FileNotFoundError):  # it is not built into every kernel
            self._balancing = read_bytes(f"{self._procfs}/sys/kernel/numa_balancing").decode("ascii").strip()

    def _read_schemes(self) -> None:
        self._schemes = read_schemes(self._sysfs)

    def _read_guests(self) -> None:
        self._guests = self._guest_files.look()
        self._cgroup_pins.clear()

    def _read_units(self) -> None:
        if self._units.look():
            self._places.clear()

    def _place(self, cgroup: str) -> _Place | None:
        """Return what a cgroup tells; None for most, of which nothing is to be told."""
        if cgroup in self._places:
            return self._places[cgroup]
        if len(self._places) >= _KNOWN_CGROUPS:
            self._places.clear()
        pod, guest = pod_of(cgroup), guest_of(cgroup)
        unit = next(filter(None, map(self._units.explain, reversed(units_of(cgroup)))), "")
        place = _Place(pod=pod, guest=guest, unit=unit) if pod or guest or unit else None
        self._places[cgroup] = place
        return place

    def _hold_of_guest(self, process: ProcessSample, place: _Place | None) -> Hold | None:
        guest = None if place is None else place.guest
        known = self._guests.by_pid.get(process.id.pid)
        if known is not None and (guest is not None or "qemu" in process.comm):
            return Hold(manager=Manager.LIBVIRT, detail=f"guest {known.name}: {known.pins}") if known.pins else None
        if guest is None or self._guests.unreadable is None:
            return None
        if guest.path not in self._cgroup_pins:
            mounts = (self._cgroupfs, f"{self._cgroupfs}/cpuset")  # of version 2 and of version 1
            found = (read_cgroup_pins(f"{mount}{guest.path}") for mount in mounts)
            self._cgroup_pins[guest.path] = next(filter(None, found), "")
        pins = self._cgroup_pins[guest.path]
        return Hold(manager=Manager.LIBVIRT, detail=f"guest {guest.name}: {pins}") if pins else None

    def _hold_in_place(self, process: ProcessSample, place: _Place) -> Hold | None:
        if place.pod is not None:
            hold = self._kubelet.hold(process, place.pod, self._online)
            if hold is not None:
                return hold
        return Hold(manager=Manager.NUMA_POLICY, detail=place.unit) if place.unit else None

    def _affinity(self, allowed: frozenset[CpuId]) -> Hold | None:
        """Return a hold where a process may not run on every online CPU. A set of CPUs is judged once."""
        if allowed not in self._affinities:
            if len(self._affinities) >= _KNOWN_CGROUPS:
                self._affinities.clear()
            hold = None
            if not self._online <= allowed:
                told = f"it may run on CPUs {format_id_list(allowed & self._online)} of {format_id_list(self._online)}"
                hold = Hold(manager=Manager.AFFINITY, detail=told)
            self._affinities[allowed] = hold
        return self._affinities[allowed]

    def _tell(self) -> tuple[ManagerFinding, ...]:
        return (
            *(self._tell_program(name, manager) for name, manager in PROGRAMS.items()),
            self._tell_schemes(),
            self._finding(
                Manager.KERNEL_BALANCING,
                active=self._balancing not in {None, "0"},
                detail=f"kernel.numa_balancing={self._balancing or 0}",
            ),
            self._tell_kubelet(Manager.KUBELET_CPU, self._kubelet.cpu),
            self._tell_kubelet(Manager.KUBELET_MEMORY, self._kubelet.memory),
            self._tell_guests(),
            self._finding(
                Manager.NUMA_POLICY,
                active=bool(self._units.placed_units),
                detail=f"set for {_list_names(self._units.placed_units)}",
            ),
        )

    def _tell_program(self, name: str, manager: Manager) -> ManagerFinding:
        pids = self._running.get(name, ())
        return self._finding(
            manager, active=bool(pids), detail=f"running with pid {', '.join(map(str, pids))}", pids=pids
        )

    def _tell_schemes(self) -> ManagerFinding:
        schemes, threads = self._schemes, self._running.get(KDAMOND, ())
        suspected = bool(schemes.unreadable and threads and schemes.suspect and not schemes.at_work)
        return self._finding(
            Manager.DAMOS,
            active=bool(schemes.at_work) or suspected,
            detail="a thread of DAMON runs, and what it does cannot be read"
            if suspected
            else ", ".join(schemes.at_work),
            pids=threads,
            unreadable=schemes.unreadable,
        )

    def _tell_kubelet(self, manager: Manager, file: CheckpointFile) -> ManagerFinding:
        active = file.state is not None and file.state.is_static
        return self._finding(manager, active=active, detail=file.explain(), unreadable=file.unreadable)

    def _tell_guests(self) -> ManagerFinding:
        pinned = [guest.name for guest in self._guests.by_pid.values() if guest.pins]
        return self._finding(
            Manager.LIBVIRT,
            active=bool(pinned),
            detail=f"{len(pinned)} of {len(self._guests.by_pid)} guests: {_list_names(pinned)}",
            unreadable=self._guests.unreadable,
        )

    def _finding(
        self,
        manager: Manager,
        *,
        active: bool,
        detail: str,
        pids: tuple[int, ...] = (),
        unreadable: str | None = None,
    ) -> ManagerFinding:
        return ManagerFinding(
            manager=manager,
            active=active,
            detail=detail if active else "",
            pids=pids if active else (),
            fix=REMEDY[manager] if active else None,
            unreadable=self._errors.get(manager, unreadable),
        )


def _list_names(names: tuple[str, ...] | list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
