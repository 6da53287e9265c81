"""One scenario from beginning to end: under the engine, or under nothing; and what it cost.

Owns the loop of ticks in simulated time and the course of a run. It must not know where configuration comes from.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from balancerd.engine.tick import Engine, Settings
from balancerd.model.ids import NodeId
from balancerd.model.report import TickReport
from balancerd.model.sample import PAGE_BYTES
from balancerd.ports import Kernel, Policy
from balancerd.simulation.clock import SimClock
from balancerd.simulation.kernel import SimKernel
from balancerd.simulation.machine import Accounts, Machine
from balancerd.simulation.population import chance_of, populate
from balancerd.simulation.process import SimProcess
from balancerd.simulation.scenario import Scenario
from balancerd.simulation.schedulers import build as build_scheduler

MOMENTS = 200
"""So many times the state of the machine is noted."""

NO_PID = -1

JUST_BEFORE_SECONDS = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """The engine's own settings, and how its moves go. `build_policies` returns fresh ones for each run.

    `wrap` puts another Kernel before the simulated one, as the mode "observe" does.
    """

    settings: Settings
    build_policies: Callable[[], Sequence[Policy]]
    interval_seconds: float
    duty_ratio: float
    call_seconds: float
    exact: bool = False
    wrap: Callable[[Kernel], Kernel] = lambda kernel: kernel


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """The machine at one time; `local_ratio` is the share of accesses that are local, None when nobody runs."""

    at_seconds: float
    local_ratio: float | None
    moved_bytes: int
    lost_seconds: float
    free_bytes: Mapping[NodeId, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What came of it: the accounts at the end, and in the middle, and the course. `resident_bytes` are at the end."""

    seconds: float
    accounts: Accounts
    half: Accounts
    moments: tuple[Moment, ...]
    resident_bytes: int
    processes: int
    load_ratio: float
    """Cores wanted over cores there are, on average over the moments."""
    ticks: int = 0
    policy_errors: Mapping[str, str] = field(default_factory=dict)

    @property
    def work_seconds(self) -> float:
        """What all threads wanted to run, and on top of it what was lost."""
        return self.accounts.run_seconds + self.accounts.overload_seconds + self.accounts.lost_seconds

    @property
    def moved_bytes_per_hour(self) -> float:
        """What was moved, over the whole run."""
        return self.accounts.moved_bytes * 3600.0 / self.seconds

    @property
    def steady_ratio_per_hour(self) -> float | None:
        """What was moved in the second half, as a share of all resident memory and by hour; None without any."""
        moved = self.accounts.moved_bytes - self.half.moved_bytes
        return moved * 7200.0 / self.seconds / self.resident_bytes if self.resident_bytes else None


def build_machine(scenario: Scenario, seed: int) -> Machine:
    """Return the machine of a scenario at its beginning."""
    machine = Machine(scenario.machine)
    scheduler = build_scheduler(scenario.scheduler, chance_of(seed, "scheduler"))
    populate(machine, scenario, scheduler, seed)
    return machine


def run_without(scenario: Scenario, seed: int, watch: Callable[[Machine], object] = lambda _machine: None) -> Run:
    """Let a scenario live with nobody who moves memory. `watch` is shown the machine at its beginning."""
    machine = build_machine(scenario, seed)
    watch(machine)
    course = _Course(machine, scenario.duration_seconds)
    course.note_until(scenario.duration_seconds)
    return course.end(ticks=0, errors={})


def run_engine(
    scenario: Scenario,
    seed: int,
    means: Means,
    listen: Callable[[TickReport], None] | None = None,
) -> Run:
    """Let a scenario live under the engine. `listen` hears of every tick."""
    machine, clock = build_machine(scenario, seed), SimClock()
    sim = SimKernel(
        machine,
        clock,
        chance_of(seed, "samples"),
        duty_ratio=means.duty_ratio,
        call_seconds=means.call_seconds,
        exact=means.exact,
    )
    settings = replace(means.settings, criteria=replace(means.settings.criteria, own_pid=NO_PID))
    engine = Engine(
        kernel=means.wrap(sim),
        clock=clock,
        policies=means.build_policies(),
        settings=settings,
        should_stop=lambda: False,
        memory=settings.new_memory(),
    )
    course = _Course(machine, scenario.duration_seconds)
    rest = _Rest(machine, means.interval_seconds, scenario.quiet_tick_seconds)
    errors: dict[str, str] = {}
    ticks = 0
    while clock.now() < scenario.duration_seconds:
        began = clock.now()
        report = engine.tick()
        ticks += 1
        errors |= report.policy_errors
        if listen is not None:
            listen(report)
        course.note_until(clock.now())
        due_at = rest.due_at(began)
        clock.wait_until(due_at)
        clock.wait_until(engine.next_tick_at(due_at))
    course.note_until(scenario.duration_seconds)
    return course.end(ticks=ticks, errors=errors)


class _Rest:
    """When the next tick is due: at its interval, or where nothing changes as late as a scenario allows; never sooner.

    Whoever reacts to a change then does so at most twice as late as at every interval. A tick comes just before
    anything happens, too: what ran until then did not run as it does afterwards.
    """

    def __init__(self, machine: Machine, interval_seconds: float, longest_seconds: float | None) -> None:
        self._machine, self._interval, self._longest = machine, interval_seconds, longest_seconds
        self._changed_at = machine.now
        if longest_seconds is not None:
            machine.on_change = self._note

    def due_at(self, began: float) -> float:
        """Return when the tick after the one that began then is due."""
        due_at = began + self._interval
        if self._longest is None:
            return due_at
        quiet = min(began - self._changed_at, self._longest)
        return max(due_at, min(began + quiet, self._machine.next_cause_at() - JUST_BEFORE_SECONDS))

    def _note(self, _process: SimProcess, /, *, is_alive: bool) -> None:
        del is_alive
        self._changed_at = self._machine.now


class _Course:
    """Notes the state of a machine at moments evenly spread over its life."""

    def __init__(self, machine: Machine, seconds: float) -> None:
        self._machine, self._seconds = machine, seconds
        self._moments: list[Moment] = []
        self._half: Accounts | None = None
        self._load_ratio = 0.0

    def note_until(self, now: float) -> None:
        """Let time pass until `now`, and note each moment on the way."""
        now = min(now, self._seconds)
        while (at := len(self._moments) * self._seconds / MOMENTS) <= now and len(self._moments) <= MOMENTS:
            self._machine.advance(at)
            self._note(at)
        self._machine.advance(now)

    def end(self, *, ticks: int, errors: Mapping[str, str]) -> Run:
        """Return what came of it."""
        machine = self._machine
        accounts = replace(machine.settled())
        return Run(
            seconds=self._seconds,
            accounts=accounts,
            half=self._half or accounts,
            moments=tuple(self._moments),
            resident_bytes=sum(process.n_pages for process in machine.list) * PAGE_BYTES,
            processes=len(machine.list),
            load_ratio=self._load_ratio / len(self._moments),
            ticks=ticks,
            policy_errors=errors,
        )

    def _note(self, at: float) -> None:
        machine = self._machine
        accounts = machine.settled()
        if self._half is None and at >= self._seconds / 2:
            self._half = replace(accounts)
        self._load_ratio += sum(n.demand_cores for n in machine.nodes) / sum(len(n.cpus) for n in machine.nodes)
        self._moments.append(
            Moment(
                at_seconds=at,
                local_ratio=machine.local_ratio(),
                moved_bytes=accounts.moved_bytes,
                lost_seconds=accounts.lost_seconds,
                free_bytes={node.id: node.free_pages * PAGE_BYTES for node in machine.nodes},
            )
        )
