"""What policies have in common that judge by watched accesses: whom they want watched, and when a window can be used.

Owns the options for that, and how much of a process's CPU time its samples tell of. Must not know what is concluded.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from balancerd.config.fields import Bytes, Cores, Ratio, Section, between
from balancerd.config.units import format_ratio
from balancerd.engine.spread import Spread
from balancerd.model.access import AccessWindow
from balancerd.model.decision import Reason, Skip
from balancerd.model.ids import ProcessId
from balancerd.model.sample import ProcessSample, Snapshot

KEEP_HITS = 0.8
"""How much the samples of earlier windows count in the share that told an address."""

MIB = 1 << 20


class WatchingOptions(Section):
    """Options of every policy that judges by accesses."""

    home_share: Annotated[Ratio, between(0.51, 1.0, format_ratio)] = Field(
        default=0.9, description="Share of its run time on one node from which a process is not watched."
    )
    min_cpu_cores: Cores = Field(
        default=0.5, description="Watch no process that keeps fewer cores busy: watching it would not pay."
    )
    min_rss_bytes: Bytes = Field(
        default=128 * MIB, description="Watch no process that holds less memory: watching it would not pay."
    )
    max_lost_ratio: Ratio = Field(
        default=0.1,
        description="Share of samples that may be lost in one tick; with more of them lost, nothing is decided in it.",
    )


@dataclass(frozen=True, slots=True)
class Watched:
    """A window that can be used, and how much of the process's CPU time goes to the accesses that its samples tell."""

    window: AccessWindow
    cores: float


@dataclass(slots=True)
class _Samples:
    """How many were taken of one process and how many told an address, older ones less."""

    taken: float = 0.0
    hits: float = 0.0


class Watching:
    """Whom the policy `name` wants watched: those that run on several nodes, unless `only_spread` is False."""

    def __init__(self, name: str, options: WatchingOptions, *, only_spread: bool = True) -> None:
        self._name = name
        self._options = options
        self._only_spread = only_spread
        self._spread = Spread(options.home_share)
        self._samples: dict[ProcessId, _Samples] = {}
        self._observed_at: float | None = None

    def observe(self, now: Snapshot) -> bool:
        """Take note of a snapshot; False when it was shown before."""
        if self._observed_at == now.taken_at:
            return False
        self._observed_at = now.taken_at
        self._spread.observe(now)
        eligible = {process.id for process in now.eligible}
        self._samples = {process: samples for process, samples in self._samples.items() if process in eligible}
        return True

    def is_spread(self, process: ProcessId) -> bool:
        """Return whether an eligible process runs on several nodes at the same time."""
        return self._spread.is_spread(process)

    def wanted(self, snapshot: Snapshot) -> Iterable[ProcessId]:
        """Return the processes to watch, the busiest first."""
        wanted = [process for process in snapshot.eligible if self.objection(process) is None]
        return tuple(p.id for p in sorted(wanted, key=lambda p: (-(p.cpu_cores or 0.0), p.id)))

    def objection(self, process: ProcessSample) -> Skip | None:
        """Return why a process is not to be watched, or None."""
        options, largest = self._options, self._spread.largest_share(process.id)
        if largest is None:
            return self._skip(process, Reason.NO_HOME)
        if self._only_spread and not self._spread.is_spread(process.id):
            return self._skip(process, Reason.ONE_HOME, f"{largest:.0%} on one node at a time")
        if (process.cpu_cores or 0.0) < options.min_cpu_cores:
            told = f"{process.cpu_cores or 0.0:.2f} of {options.min_cpu_cores:.2f} cores"
            return self._skip(process, Reason.NOT_WATCHED, told)
        if process.rss_bytes < options.min_rss_bytes:
            told = f"{process.rss_bytes // MIB} of {options.min_rss_bytes // MIB} MiB"
            return self._skip(process, Reason.NOT_WATCHED, told)
        return None

    def look(self, process: ProcessSample, now: Snapshot) -> Watched | Skip:
        """Return what was seen of a process since the last tick, or why nothing can be concluded from it."""
        objection = self.objection(process)
        if objection is not None:
            return objection
        gathered = self._spread.gathered_share(process.id) if self._only_spread else None
        if gathered is not None:  # it is watched on for a while, but what was seen is of other nodes than it uses now
            return self._skip(process, Reason.ONE_HOME, f"{gathered:.0%} on one node now")
        window = now.accesses.get(process.id)
        if window is None:
            missed = now.unwatched.get(process.id)
            told = "no source of accesses is at work" if missed is None else missed.detail or missed.reason.value
            return self._skip(process, Reason.NOT_WATCHED, told)
        samples = self._samples.setdefault(process.id, _Samples())
        samples.taken = KEEP_HITS * samples.taken + window.samples
        samples.hits = KEEP_HITS * samples.hits + window.hits
        if window.throttled or window.lost_ratio > self._options.max_lost_ratio:
            told = f"{window.lost_samples} lost, {window.samples} taken, throttled {window.throttled} times"
            return self._skip(process, Reason.SAMPLES_LOST, told)
        reach = min(1.0, samples.hits / samples.taken) if samples.taken else 0.0
        return Watched(window, (process.cpu_cores or 0.0) * reach)

    def _skip(self, process: ProcessSample, reason: Reason, detail: str = "") -> Skip:
        return Skip(by=self._name, process=process.id, reason=reason, detail=detail)


def format_mib(n_bytes: int) -> str:
    """Return bytes as MiB, with one digit behind the point where it matters."""
    return f"{n_bytes / MIB:.0f} MiB" if n_bytes >= 10 * MIB else f"{n_bytes / MIB:.1f} MiB"
