"""What the golden traces tell of: one scene for each policy."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from balancerd.config.schema import Config, MigrateConfig, PolicyConfig, RuleConfig, SelectConfig, WorkloadConfig
from balancerd.model.decision import Reason
from balancerd.model.ids import CpuId, NodeId, ProcessId, parse_id_list
from balancerd.model.sample import Mempolicy, Pressure, Survey
from balancerd.ports import SurveyScope
from tests.traces.recording import OWN_PID, Recording
from tests.unit.engine import test_tick_accesses, test_tick_interleave
from tests.unit.engine.test_tick_accesses import PART_PAGES, PID, Machine
from tests.unit.engine.test_tick_eviction import AgesHeat, PressedMachine
from tests.unit.engine.test_tick_packing import Crowded
from tests.unit.engine.test_tick_tiering import PartsHeat, TieredMachine
from tests.unit.fakes import MIB, N0, N1, N2, FakeAccessWatch, FakeClock, FakeHeatWatch, FakeKernel, make_process
from tests.unit.jobs.machine import Memory, a_vma

SELECT = SelectConfig(
    min_age_seconds=30.0,
    scan_budget_ratio=0.01,
    exclude=(RuleConfig(comm="backup.*"), RuleConfig(uid=(1000,), exe="/usr/bin/firefox")),
)
WORKLOADS = (
    WorkloadConfig(
        name="shop",
        match=(RuleConfig(cgroup="/shop/.*"), RuleConfig(cmdline=".* --shop")),
    ),
)
HOME = PolicyConfig(name="home", kind="follow-cpu")


class Failing(FakeKernel):
    """Its survey fails when a test says so; a process that changes nothing is told by the same object."""

    fails = False

    def survey(self, scope: SurveyScope) -> Survey:
        if self.fails:
            raise OSError("no /proc today")
        return super().survey(scope)


def follow_cpu(path: Path) -> None:
    """A crowd: misplaced, at home, wandering, excluded, claimed, bound, stuck, small, one that comes and one that goes.

    One tick fails, in some there is pressure, and the daemon itself is among the processes.
    """
    clock = FakeClock()
    kernel = Failing(clock)
    config = Config(
        select=SELECT,
        workloads=WORKLOADS,
        policies=(HOME,),
        migrate=MigrateConfig(process_rate_limit_bytes_per_second=64 * MIB),
    )
    recording = Recording(config, kernel, clock, access_watch=FakeAccessWatch(), heat_watch=FakeHeatWatch(PID))

    def add(pid: int, run: Mapping[int, float], mib: Mapping[int, float], **changes: object) -> ProcessId:
        process = make_process(pid, run=run, rss_bytes=round(sum(mib.values()) * MIB), **changes)
        kernel.add(process, mib)
        return process.id

    add(300, {0: 2.0}, {2: 256}, comm="misplaced")
    add(310, {1: 2.0}, {1: 512}, comm="at home", cgroup="/shop/front")
    wanderer = add(200, {0: 2.0}, {0: 384}, comm="wanderer", uid=1000)
    add(120, {3: 2.0}, {0: 256}, comm="backup-nightly")
    add(130, {3: 2.0}, {0: 256}, comm="firefox", uid=1000, exe="/usr/bin/firefox")
    busy = add(400, {2: 2.0}, {0: 128}, comm="claimed", cmdline="server --shop")
    stuck = add(500, {1: 2.0}, {3: 200}, comm="stuck")
    add(510, {0: 1.0, 1: 1.0}, {0: 100, 1: 100}, comm="spread")
    add(OWN_PID, {0: 2.0}, {1: 80}, comm="balancerd")
    kernel.stuck_mib[stuck] = 190.0
    kernel.returned_ratio[ProcessId(300, 1)] = 0.02

    def before(tick: int) -> None:
        recording.claimed = frozenset({busy}) if tick < 8 else frozenset()
        kernel.pressure = Pressure(cpu_ratio=0.01, memory_ratio=0.2 if 30 <= tick < 34 else 0.0)
        kernel.fails = tick == 20
        if tick % 7 == 3:
            node = tick // 7 % 4
            kernel.processes[wanderer] = replace(
                kernel.processes[wanderer], run_seconds=make_process(run={node: 2.0}).run_seconds
            )
        if tick == 12:
            add(90, {3: 2.0}, {1: 300}, comm="late")
            kernel.mempolicy = Mempolicy(mode="bind")
        if tick == 25:
            del kernel.processes[ProcessId(310, 1)]

    recording.start()
    recording.ticks(60, before)
    recording.write(path)


def access(path: Path) -> None:
    """A process with a part for each of its threads, all filled by the first; heat tells of one region."""
    clock = FakeClock()
    kernel = Machine(clock)
    owners = [0, 1, 2, 3, 2, 1]
    first: list[int | None] = [0]
    pages = first * (len(owners) * PART_PAGES)
    kernel.memories[PID] = Memory(vmas={a_vma(0, len(pages)): pages})
    watch = test_tick_accesses.Watch(kernel, owners)
    config = Config(
        select=SELECT,
        policies=(HOME, PolicyConfig(name="parts", kind="access")),
        migrate=MigrateConfig(process_rate_limit_bytes_per_second=4 * MIB),
    )
    recording = Recording(config, kernel, clock, access_watch=watch, heat_watch=FakeHeatWatch(PID))

    def before(tick: int) -> None:
        if tick == 20:
            watch.owners[4], watch.owners[5] = 3, 0

    recording.start()
    recording.ticks(40, before)
    recording.write(path)


def interleave(path: Path) -> None:
    """A process whose threads share most of its memory, which the first of them filled."""
    clock = FakeClock()
    kernel = Machine(clock)
    regions = test_tick_interleave.SHARED + 4
    pages = regions * test_tick_interleave.PAGES
    kernel.memories[test_tick_interleave.PID] = Memory(vmas={a_vma(0, pages): [0] * pages})
    policies = (
        HOME,
        PolicyConfig(name="parts", kind="access"),
        PolicyConfig.model_validate({"name": "shared", "kind": "interleave", "min_shared": "16MiB"}),
    )
    config = Config(
        select=SELECT, policies=policies, migrate=MigrateConfig(process_rate_limit_bytes_per_second=6 * MIB)
    )
    watch = test_tick_interleave.Watch(kernel)
    recording = Recording(config, kernel, clock, access_watch=watch, heat_watch=FakeHeatWatch(PID))
    recording.start()
    recording.ticks(30)
    recording.write(path)


def rule(path: Path) -> None:
    """Rules before follow-cpu: one gathers an idle process, one holds another where it is, one names full nodes."""
    clock = FakeClock()
    kernel = FakeKernel(clock)
    places = {
        "name": "places",
        "kind": "rule",
        "rules": (
            {"match": ({"comm": "cache.*"},), "nodes": "1,3"},
            {"match": ({"uid": 33}, {"cgroup": "/legacy/.*"}), "never": True},
        ),
    }
    config = Config(
        select=SELECT,
        policies=(PolicyConfig.model_validate(places), HOME),
        migrate=MigrateConfig(process_rate_limit_bytes_per_second=64 * MIB),
    )
    recording = Recording(config, kernel, clock, access_watch=FakeAccessWatch(), heat_watch=FakeHeatWatch(PID))
    for pid, comm, node, changes in (
        (300, "cache-1", 2, {"cpu_cores": 0.0, "run_seconds": None}),
        (310, "cache-2", 0, {}),
        (320, "old", 3, {"cgroup": "/legacy/x"}),
        (330, "www", 1, {"uid": 33}),
        (340, "free", 2, {}),
    ):
        process = make_process(pid, run={0: 2.0}, comm=comm)
        kernel.add(replace(process, **changes), {node: 256})

    def before(tick: int) -> None:
        kernel.free_bytes = {1: 0} if 10 <= tick < 20 else {}
        if tick == 12:
            kernel.add(make_process(350, run={2: 2.0}, comm="cache-3"), {2: 128})

    recording.start()
    recording.ticks(40, before)
    recording.write(path)


def cpuset_follow(path: Path) -> None:
    """Cpusets and affinities narrow and widen: of the busy, the idle, the stuck and the unreadable, on full nodes."""
    clock = FakeClock()
    kernel = FakeKernel(clock)
    config = Config(
        select=SELECT,
        policies=(HOME, PolicyConfig(name="cpusets", kind="cpuset-follow")),
        migrate=MigrateConfig(process_rate_limit_bytes_per_second=48 * MIB),
    )
    recording = Recording(config, kernel, clock, access_watch=FakeAccessWatch(), heat_watch=FakeHeatWatch(PID))

    def narrow(pid: int, *, cpus: str | None = None, mems: str | None = None) -> None:
        process = kernel.processes[ProcessId(pid, 1)]
        if cpus is not None:
            process = replace(process, cpus_allowed=frozenset(map(CpuId, parse_id_list(cpus))))
        if mems is not None:
            process = replace(process, mems_allowed=frozenset(map(NodeId, parse_id_list(mems))))
        kernel.processes[process.id] = process

    for pid, comm, node, changes in (
        (300, "pod", 0, {}),
        (310, "pinned", 1, {}),
        (320, "asleep", 2, {"cpu_cores": 0.0, "run_seconds": None}),
        (330, "outside", 3, {"mems_allowed": frozenset(map(NodeId, (0, 2)))}),
        (340, "unreadable", 2, {"cpus_allowed": None, "mems_allowed": None}),
        (350, "free", 3, {}),
    ):
        process = make_process(pid, run={node: 2.0}, comm=comm)
        kernel.add(replace(process, **changes), {node: 320})

    def before(tick: int) -> None:
        kernel.free_bytes = {1: 0, 2: 0} if 18 <= tick < 26 else {}
        match tick:
            case 6:
                narrow(300, cpus="2-3", mems="2-3")
            case 9:
                narrow(310, cpus="0")
            case 12:
                narrow(320, mems="0-1")
            case 18:  # where it may go there is no room yet
                narrow(350, cpus="1-2", mems="1-2")
            case 34:  # all of it comes back, and what has followed stays
                narrow(300, cpus="0-3", mems="0-3")
                narrow(310, cpus="0-3")
            case 36:
                kernel.stuck_mib[ProcessId(350, 1)] = 100.0
                narrow(350, cpus="0", mems="0")

    recording.start()
    recording.ticks(50, before)
    recording.write(path)


def drain(path: Path) -> None:
    """A node is emptied of the busy, the idle and a latecomer; one may not leave, one is stuck, one lives there."""
    clock = FakeClock()
    kernel = FakeKernel(clock)
    config = Config(
        select=SELECT,
        policies=(PolicyConfig.model_validate({"name": "empty", "kind": "drain", "nodes": "3"}), HOME),
        migrate=MigrateConfig(process_rate_limit_bytes_per_second=64 * MIB),
    )
    recording = Recording(config, kernel, clock, access_watch=FakeAccessWatch(), heat_watch=FakeHeatWatch(PID))

    def add(pid: int, comm: str, node: int, mib: Mapping[int, float], **changes: Any) -> ProcessId:
        process = make_process(pid, run={node: 2.0}, comm=comm)
        kernel.add(replace(process, **changes), mib)
        return process.id

    add(300, "large", 0, {0: 64, 3: 512})
    add(310, "small", 1, {3: 128})
    add(320, "asleep", 2, {2: 64, 3: 192}, cpu_cores=0.0, run_seconds=None)
    add(330, "lives there", 3, {3: 256})
    add(340, "held", 3, {3: 96}, mems_allowed=frozenset({NodeId(3)}))
    add(350, "elsewhere", 1, {2: 160})
    stuck = add(360, "stuck", 0, {3: 160})
    kernel.stuck_mib[stuck] = 40.0

    def before(tick: int) -> None:
        kernel.free_bytes = dict.fromkeys((0, 1, 2), 0) if 2 <= tick < 8 else {}
        match tick:
            case 20:
                add(370, "late", 3, {3: 128})
            case 24:
                kernel.stuck_mib[stuck] = 0.0
            case 28:
                del kernel.processes[ProcessId(340, 1)]

    recording.start()
    recording.ticks(50, before)
    recording.write(path)


def threads(path: Path) -> None:
    """Threads go to memory: one comes back, one sleeps, one is held until it idles, one is refused, one has little.

    For some time the node is busy, and for some time a rule has one of them.
    """
    clock = FakeClock()
    kernel = FakeKernel(clock)
    kernel.loads = {0: 0.8, 1: 0.1, 2: 0.4, 3: 0.0}
    pinned = {"name": "databases", "kind": "threads", "method": "pin", "match": ({"comm": "db.*"},)}
    config = Config(
        select=SELECT,
        policies=(
            PolicyConfig.model_validate(pinned),
            PolicyConfig(name="kicked", kind="threads"),
            PolicyConfig.model_validate(
                {"name": "never", "kind": "rule", "rules": ({"match": ({"comm": "left"},), "never": True},)}
            ),
            HOME,
        ),
        migrate=MigrateConfig(process_rate_limit_bytes_per_second=64 * MIB),
    )
    recording = Recording(config, kernel, clock, access_watch=FakeAccessWatch(), heat_watch=FakeHeatWatch(PID))

    def add(pid: int, comm: str, run: Mapping[int, float], mib: Mapping[int, float], **changes: Any) -> ProcessId:
        process = make_process(
            pid, run=run, comm=comm, cpu_cores=0.2, rss_bytes=round(sum(mib.values()) * MIB), n_threads=4
        )
        kernel.add(replace(process, **changes), mib)
        return process.id

    add(300, "stays", {0: 0.4}, {1: 2048})
    comes_back = add(310, "comes back", {2: 0.4}, {1: 1024})
    kernel.asleep.add(add(320, "sleeps", {0: 0.4}, {3: 1536, 0: 200}))
    database = add(330, "db-1", {2: 0.3, 0: 0.1}, {3: 4096})
    add(340, "many threads", {0: 0.4}, {3: 80}, n_threads=200)
    add(350, "left", {0: 0.4}, {3: 2048})
    add(360, "shared out", {0: 0.4}, {1: 300, 2: 300, 3: 300})
    add(370, "narrow", {0: 0.4}, {3: 1024}, cpus_allowed=frozenset({CpuId(0), CpuId(1)}))

    def before(tick: int) -> None:
        kernel.loads[1] = 1.0 if tick < 6 else 0.1
        kernel.steering_refused = Reason.OWN_AFFINITY if tick == 14 else None
        match tick:
            case 12 | 45:
                process = kernel.processes[comes_back]
                kernel.processes[comes_back] = replace(process, run_seconds=make_process(run={2: 0.4}).run_seconds)
            case 13:
                add(380, "refused", {0: 0.4}, {3: 512}, age_seconds=100.0)
            case 50:
                kernel.processes[database] = replace(kernel.processes[database], cpu_cores=0.0, run_seconds=None)

    recording.start()
    recording.ticks(60, before)
    recording.write(path)


def tiering(path: Path) -> None:
    """A process whose hot parts come up while cold ones leave a node that is short; later another part is hot."""
    clock = FakeClock()
    kernel = TieredMachine(clock, [1, 1, 2, 2, 2, 2])
    heat = PartsHeat(kernel, [0.9, 0.0, 0.0, 0.9, 0.0, 0.1])
    policies = (PolicyConfig.model_validate({"name": "tiers", "kind": "tiering", "headroom": "0%"}), HOME)
    config = Config(
        select=SELECT, policies=policies, migrate=MigrateConfig(process_rate_limit_bytes_per_second=2 * MIB)
    )
    recording = Recording(config, kernel, clock, access_watch=FakeAccessWatch(), heat_watch=heat)

    def before(tick: int) -> None:
        if tick == 10:
            kernel.room_bytes = 8 * MIB
        if tick == 25:
            heat.ratios = [0.0, 0.0, 0.0, 0.9, 0.0, 0.9]
            heat.is_lost = True

    recording.start()
    recording.ticks(80, before)
    recording.write(path)


def cold_eviction(path: Path) -> None:
    """A process whose cold parts go to swap, idle in the end; in some ticks there is pressure."""
    clock = FakeClock()
    kernel = PressedMachine(clock, 4)
    policies = (PolicyConfig(name="cold", kind="cold-eviction"), HOME)
    config = Config(select=SELECT, policies=policies)
    recording = Recording(config, kernel, clock, access_watch=FakeAccessWatch(), heat_watch=AgesHeat(kernel))

    def before(tick: int) -> None:
        kernel.pressure_ratio = 0.002 if 8 <= tick < 12 else 0.0
        kernel.is_idle = tick >= 15

    recording.start()
    recording.ticks(40, before)
    recording.write(path)


def packing(path: Path) -> None:
    """A node that becomes short of memory, with busy and idle processes, one stuck, one bound, and roomy again.

    Behind packing there is follow-cpu, which would like to bring back what has made room. One process gathers.
    """
    clock = FakeClock()
    kernel = Crowded(clock)
    pack = {"name": "pack", "kind": "packing", "keep_free": "1GiB", "consolidate": "threads-stay", "max_pressure": "2%"}
    config = Config(
        select=SELECT,
        policies=(PolicyConfig.model_validate(pack), HOME),
        migrate=MigrateConfig(process_rate_limit_bytes_per_second=128 * MIB),
    )
    recording = Recording(config, kernel, clock, access_watch=FakeAccessWatch(), heat_watch=FakeHeatWatch(PID))
    for pid, mib, changes in (
        (300, {0: 900}, {}),
        (310, {0: 700}, {"cpu_cores": 0.0, "run_seconds": None}),
        (320, {0: 500}, {"cpu_cores": 0.0, "run_seconds": None}),
        (330, {0: 600, 3: 100}, {"cpu_cores": 0.1}),
        (340, {0: 800}, {"mems_allowed": frozenset({N0})}),
        (350, {1: 400, 2: 300}, {"cpu_cores": 0.8, "run_seconds": {N1: 1.2, N2: 0.8}}),
    ):
        process = make_process(pid, run={0: 2.0}, rss_bytes=sum(mib.values()) * MIB)
        kernel.add(replace(process, **changes), mib)
    kernel.stuck_mib[ProcessId(320, 1)] = 500.0

    def before(tick: int) -> None:
        kernel.used_mib = {0: 3400.0 if tick < 5 else 4600.0 if tick < 60 else 1000.0, 1: 4000.0}
        kernel.pressure = Pressure(cpu_ratio=0.0, memory_ratio=0.05 if 30 <= tick < 40 else 0.0)

    recording.start()
    recording.ticks(90, before)
    recording.write(path)


SCENES: Mapping[str, Callable[[Path], None]] = {
    "follow-cpu": follow_cpu,
    "access": access,
    "interleave": interleave,
    "rule": rule,
    "cpuset-follow": cpuset_follow,
    "drain": drain,
    "threads": threads,
    "tiering": tiering,
    "cold-eviction": cold_eviction,
    "packing": packing,
}
