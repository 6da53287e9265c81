import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from balancerd import native
from balancerd.kernel.processes.process_files import ProcessFiles
from balancerd.kernel.processes.survey import Surveyor
from balancerd.model.ids import CpuId, NodeId, ProcessId
from balancerd.model.sample import ProcessSample, Survey
from balancerd.native import NodeOfCpu, ProcessSeats, ProcessSurvey, SurveyRules, ThreadSeats, ThreadSurvey
from balancerd.ports import SurveyScope
from tests.unit.fakes import FakeClock, make_memory, make_topology
from tests.unit.kernel.children import child
from tests.unit.kernel.trees import proc_tree, stat_line, write_tree

SCOPE = SurveyScope(min_rss_bytes=40 * 4096, min_cpu_cores=0.5)
BOOTTIME = 1_000_000.0
HZ = 100
STATUS = "Name:\tx\nUid:\t7\t8\t7\t7\nCpus_allowed_list:\t0-1\nMems_allowed_list:\t1\n"
TOPOLOGY = make_topology()


class Machine:
    """A fake /proc below `root`, surveyed by the real native core on a fake clock."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.clock = FakeClock()
        self.files = ProcessFiles(str(root))
        self.core = Core()
        self.annotated: list[ProcessSample] = []
        self.surveyor = Surveyor(
            self.core,
            self.files,
            self.clock,
            lambda: BOOTTIME + self.clock.now(),
            ticks_per_second=HZ,
            annotate=self.annotate,
        )

    def annotate(self, process: ProcessSample, is_busy: bool) -> ProcessSample:
        assert is_busy or process.uid is None
        self.annotated.append(process)
        return replace(process, opt_out="asked")

    def close(self) -> None:
        self.surveyor.close()
        self.files.close()

    def ticks(self, seconds_ago: float = 0.0) -> int:
        return round((BOOTTIME + self.clock.now() - seconds_ago) * HZ)

    def write(
        self,
        pid: int,
        *,
        run: Mapping[int, int],
        start_ticks: int = 5000,
        rss_pages: int = 100,
        flags: int = 0,
        thread_starts: Mapping[int, int] | None = None,
        comm: str = "work er",
    ) -> None:
        """Write a process whose threads have run so many ticks each, thread n on CPU n modulo 4."""
        starts = thread_starts or {}
        total = sum(run.values())
        files = {
            "stat": stat_line(
                pid,
                comm,
                start_ticks=start_ticks,
                cpu_ticks=(total, 0),
                rss_pages=rss_pages,
                n_threads=len(run),
                cpu=pid % 4,
                flags=flags,
            ),
            "status": STATUS,
            "cgroup": "0::/a.slice\n",
        }
        for tid, ticks in run.items():
            start = starts.get(tid, start_ticks)
            files[f"task/{tid}/stat"] = stat_line(tid, "t", start_ticks=start, cpu_ticks=(0, ticks), cpu=tid % 4)
        proc_tree(self.root, {pid: files})

    def survey(self, scope: SurveyScope = SCOPE) -> Survey:
        return self.surveyor.survey(scope, TOPOLOGY, make_memory(TOPOLOGY))


class Core:
    """The native core, with processes that vanish as soon as their threads are asked for."""

    def __init__(self) -> None:
        self.vanishing: set[int] = set()

    def survey(
        self, proc_fd: int, seats: ProcessSeats, rules: SurveyRules, *, now_seconds: float, boot_ticks: int
    ) -> ProcessSurvey:
        return native.survey(proc_fd, seats, rules, now_seconds=now_seconds, boot_ticks=boot_ticks)

    def threads(
        self,
        proc_fd: int,
        pid: int,
        seats: ThreadSeats,
        nodes: NodeOfCpu,
        *,
        expected_ticks: int,
        turn: int = 0,
        shares: int = 1,
    ) -> ThreadSurvey:
        if pid in self.vanishing:
            raise ProcessLookupError
        return native.threads(proc_fd, pid, seats, nodes, expected_ticks=expected_ticks, turn=turn, shares=shares)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path)
    yield made
    made.close()


def ran(process: ProcessSample) -> dict[NodeId, float]:
    """Run time by node; thread n is on CPU, and so on node, n modulo 4."""
    assert process.run_seconds is not None
    return dict(process.run_seconds)


def only(survey: Survey) -> ProcessSample:
    (process,) = survey.processes
    return process


def test_at_first_sight_nothing_is_known_of_cpu_time(machine: Machine) -> None:
    machine.write(7, run={7: 1234}, start_ticks=machine.ticks(seconds_ago=90))
    survey = machine.survey()
    assert survey.interval_seconds is None
    assert survey.taken_at == machine.clock.now()
    process = only(survey)
    assert process.id == ProcessId(7, machine.ticks(seconds_ago=90))
    assert (process.comm, process.rss_bytes, process.age_seconds) == ("work er", 100 * 4096, 90.0)
    assert (process.cpu_cores, process.run_seconds, process.uid) == (None, None, None)


def test_two_surveys_give_busy_cores_and_the_details_of_a_busy_process(machine: Machine) -> None:
    machine.write(7, run={7: 0, 8: 0})
    machine.survey()
    machine.clock.time += 2
    machine.write(7, run={7: 100, 8: 200})
    survey = machine.survey()
    assert survey.interval_seconds == 2
    process = only(survey)
    assert process.cpu_cores == pytest.approx(1.5)
    assert process.uid == 8
    assert process.cgroup == "/a.slice"
    assert process.cpus_allowed == frozenset({CpuId(0), CpuId(1)})
    assert process.mems_allowed == frozenset({NodeId(1)})
    assert process.run_seconds == {}, "the threads are seen for the first time"


def test_of_an_idle_process_only_the_cgroup_is_told(machine: Machine) -> None:
    machine.write(7, run={7: 0})
    machine.survey()
    machine.clock.time += 2
    machine.write(7, run={7: 99})
    process = only(machine.survey())
    assert process.cpu_cores == pytest.approx(0.495)
    assert (process.run_seconds, process.uid, process.cgroup, process.mems_allowed) == (None, None, "/a.slice", None)


def test_of_an_idle_process_cpuset_and_affinity_are_told_on_request_and_anew_within_half_a_minute(
    machine: Machine,
) -> None:
    scope = replace(SCOPE, read_idle=True, read_exe=True)
    machine.write(7, run={7: 0})
    machine.survey(scope)
    seen = []
    for second in range(60):
        machine.clock.time += 1
        if second == 2:
            (machine.root / "7/status").write_text(STATUS.replace("list:\t1", "list:\t2"))
        process = only(machine.survey(scope))
        assert (process.uid, process.opt_out) == (8, "asked")
        assert process.cpus_allowed == frozenset({CpuId(0), CpuId(1)})
        seen.append(process.mems_allowed)
    at = seen.index(frozenset({NodeId(2)}))
    assert seen == [frozenset({NodeId(1)})] * at + [frozenset({NodeId(2)})] * (60 - at)
    assert at <= 36


def test_a_thread_counts_what_it_ran_since_the_survey_before_and_a_new_one_counts_whole(machine: Machine) -> None:
    surveys = []
    for at, run in ((0, {7: 0}), (2, {7: 200}), (4, {7: 390, 8: 30})):
        machine.clock.time = 1000.0 + at
        machine.write(7, run=run, thread_starts={8: machine.ticks(seconds_ago=0.5)})
        surveys.append(machine.survey())
    assert ran(only(surveys[-1])) == {3: pytest.approx(1.9), 0: pytest.approx(0.3)}


def test_a_tid_that_another_thread_had_before_starts_from_nothing(machine: Machine) -> None:
    surveys = []
    for at, run, start in ((0, {7: 0, 8: 0}, 6000), (2, {7: 200, 8: 50}, 6000), (4, {7: 400, 8: 20}, None)):
        machine.clock.time = 1000.0 + at
        machine.write(7, run=run, thread_starts={8: start or machine.ticks(seconds_ago=1)})
        surveys.append(machine.survey())
    assert ran(only(surveys[-1])) == {3: pytest.approx(2.0), 0: pytest.approx(0.2)}


def test_threads_that_were_not_read_a_survey_ago_are_known_only_when_they_are_new(machine: Machine) -> None:
    machine.write(7, run={7: 0, 9: 0})
    machine.survey()
    machine.clock.time += 2
    machine.write(7, run={7: 1, 9: 0})
    assert only(machine.survey()).run_seconds is None
    machine.clock.time += 4
    machine.write(7, run={7: 200, 9: 1, 8: 100}, thread_starts={8: machine.ticks(seconds_ago=3)})
    process = only(machine.survey())
    assert process.cpu_cores == pytest.approx(0.75)
    assert ran(process) == {0: pytest.approx(1.0)}


def test_another_process_with_the_same_pid_is_seen_for_the_first_time(machine: Machine) -> None:
    machine.write(7, run={7: 0}, start_ticks=5000)
    machine.survey()
    machine.clock.time += 2
    machine.write(7, run={7: 200}, start_ticks=6000)
    assert only(machine.survey()).cpu_cores is None


def test_small_processes_and_kernel_threads_are_counted_not_listed(machine: Machine) -> None:
    machine.write(2, run={2: 0}, rss_pages=0, flags=0x200000)
    machine.write(7, run={7: 0}, rss_pages=39)
    machine.write(8, run={8: 0}, rss_pages=40)
    survey = machine.survey()
    assert [process.id.pid for process in survey.processes] == [8]
    assert (survey.small_processes, survey.kernel_threads, survey.vanished_processes) == (1, 1, 0)


def test_a_process_that_vanishes_while_it_is_read_is_counted_and_the_others_are_not_harmed(machine: Machine) -> None:
    for pid in (7, 8):
        machine.write(pid, run={pid: 0, pid + 10: 0})
    machine.survey()
    machine.clock.time += 1
    for pid in (7, 8):
        machine.write(pid, run={pid: 100, pid + 10: 0})
    machine.core.vanishing.add(7)
    survey = machine.survey()
    assert [process.id.pid for process in survey.processes] == [8]
    assert survey.vanished_processes == 1


@pytest.mark.parametrize("content", [None, "nonsense"])
def test_a_status_that_cannot_be_understood_leaves_its_fields_unknown(machine: Machine, content: str | None) -> None:
    machine.write(7, run={7: 0})
    machine.survey()
    machine.clock.time += 1
    machine.write(7, run={7: 100})
    (machine.root / "7/status").unlink()
    if content is not None:
        (machine.root / "7/status").write_text(content)
    process = only(machine.survey())
    assert process.run_seconds is not None
    assert (process.uid, process.cpus_allowed, process.mems_allowed) == (None, None, None)


def test_the_affinity_of_a_process_that_ran_where_it_might_not_is_read_again_at_once(machine: Machine) -> None:
    allowed = []
    for tick, (tid, cpus) in enumerate(((1, "0-1"), (1, "0-1"), (1, "2-3"), (3, "2-3"), (1, "2-3"))):
        machine.write(7, run={n: 200 * tick if n == tid else 0 for n in (1, 3)})
        (machine.root / "7/status").write_text(STATUS.replace("0-1", cpus))
        allowed.append(only(machine.survey()).cpus_allowed)
        machine.clock.time += 2
    first, second = (frozenset(map(CpuId, cpus)) for cpus in ((0, 1), (2, 3)))
    assert allowed == [None, first, first, second, second]


def test_a_cgroup_is_read_again_after_half_a_minute(machine: Machine) -> None:
    machine.write(7, run={7: 0})
    machine.survey()
    cgroups = []
    for second in range(1, 40):
        machine.clock.time += 1
        machine.write(7, run={7: 100 * second})
        (machine.root / "7/cgroup").write_text(f"0::/{'old' if second == 1 else 'new'}\n")
        cgroups.append(only(machine.survey()).cgroup)
    assert cgroups == ["/a.slice"] * 29 + ["/new"] * 10


def test_the_cgroup_of_an_idle_process_is_believed_for_five_minutes(machine: Machine) -> None:
    cgroups = []
    for minute, name in enumerate(("old", *["new"] * 7)):
        machine.clock.time += 60
        machine.write(7, run={7: 0}, rss_pages=100 * (1 + minute))  # so that it is told anew
        (machine.root / "7/cgroup").write_text(f"0::/{name}\n")
        cgroups.append(only(machine.survey()).cgroup)
    assert cgroups == ["/old"] * 5 + ["/new"] * 3


def test_the_dead_are_forgotten(machine: Machine) -> None:
    machine.write(7, run={7: 0})
    machine.survey()
    machine.clock.time += 1
    for name in ("stat", "status", "cgroup", "task/7/stat"):
        (machine.root / "7" / name).unlink()
    survey = machine.survey()
    assert survey.processes == ()
    assert survey.vanished_processes == 1
    machine.clock.time += 4
    machine.write(7, run={7: 100})
    assert only(machine.survey()).cpu_cores is None, "nothing is remembered"


def test_a_look_reads_a_small_process_and_a_kernel_thread_in_full(machine: Machine) -> None:
    machine.write(2, run={2: 5}, rss_pages=0, flags=0x200000)
    kernel_thread = machine.surveyor.look(2)
    assert kernel_thread is not None
    assert kernel_thread.kernel_thread
    assert (kernel_thread.rss_bytes, kernel_thread.cpu_cores, kernel_thread.uid) == (0, None, 8)
    assert kernel_thread.cgroup == "/a.slice"
    assert machine.surveyor.look(3) is None


def test_a_look_between_surveys_disturbs_neither_and_tells_the_last_busy_cores(machine: Machine) -> None:
    process = None
    for second in range(3):
        machine.clock.time += 1
        machine.write(7, run={7: 100 * second})
        process = only(machine.survey())
        looked = machine.surveyor.look(7)
        assert looked is not None
        assert looked.cpu_cores == process.cpu_cores
    assert process is not None
    assert ran(process) == {3: pytest.approx(1.0)}


def test_a_real_child_that_spins_is_seen_with_the_cpu_it_runs_on() -> None:
    clock = FakeClock()
    files = ProcessFiles()
    surveyor = Surveyor(native, files, clock, lambda: 1e9, kept_descriptors=20)
    scope = SurveyScope(min_rss_bytes=1 << 20, min_cpu_cores=0.0)
    survey = Survey(taken_at=0, interval_seconds=None, topology=TOPOLOGY, memory={}, processes=())
    with child(
        "end = __import__('time').process_time() + 0.05\nwhile __import__('time').process_time() < end: pass"
    ) as (
        _,
        id_,
    ):
        for _ in range(3):
            survey = surveyor.survey(scope, TOPOLOGY, {})
            clock.time += 1
    found = {process.id: process for process in survey.processes}[id_]
    assert found.comm.startswith("python")
    assert found.cpu_cores == pytest.approx(0, abs=0.05), "it waits now"
    assert found.uid == os.geteuid()
    assert found.cpus_allowed == frozenset(map(CpuId, os.sched_getaffinity(0)))
    assert found.run_seconds is not None
    assert sum(found.run_seconds.values()) == pytest.approx(0, abs=0.05)
    assert {process.id.pid for process in survey.processes} >= {os.getpid()}
    surveyor.close()
    files.close()


def test_hugetlb_pages_count_for_busy_processes_that_look_small(machine: Machine) -> None:
    scope = SurveyScope(min_rss_bytes=64 << 20, min_cpu_cores=0.05)
    surveys: list[Survey] = []
    for ticks in (0, 200):
        for pid in (7, 8):
            machine.write(pid, run={pid: ticks if pid == 7 else 0}, rss_pages=10)
            (machine.root / str(pid) / "status").write_text(STATUS + "HugetlbPages:\t  131072 kB\n")
        surveys.append(machine.surveyor.survey(scope, TOPOLOGY, make_memory(TOPOLOGY), hugetlb=True))
        machine.clock.time += 2.0
    process = only(surveys[-1])
    assert (process.id.pid, process.rss_bytes) == (7, (128 << 20) + 10 * 4096)
    assert surveys[-1].small_processes == 1


def test_a_thread_that_is_alone_had_all_that_its_process_had(machine: Machine) -> None:
    machine.write(7, run={7: 1000})
    machine.survey()
    machine.clock.time += 2.0
    machine.write(7, run={7: 1000 + 3 * HZ // 2})
    assert ran(only(machine.survey())) == {3: 1.5}


def test_a_process_that_is_as_it_was_is_told_by_the_same_object(machine: Machine) -> None:
    for pid in (7, 8):
        machine.write(pid, run={pid: 0})
    machine.survey()
    machine.clock.time += 2
    before = machine.survey().processes
    for read in (False, True):
        machine.clock.time += 4 if read else 0.001
        survey = machine.survey()
        assert survey.read_processes == (2 if read else 0)
        assert all(a is b for a, b in zip(survey.processes, before, strict=True))
    machine.clock.time += 4
    machine.write(8, run={8: 400})
    first, second = machine.survey().processes
    assert first is before[0]
    assert second.cpu_cores == pytest.approx(1.0)


def test_faults_are_told_by_the_second_and_what_cannot_be_read_is_counted(machine: Machine) -> None:
    machine.write(7, run={7: 0})
    write_tree(machine.root, {"8/stat": "garbage"})
    machine.survey()
    text = (machine.root / "7/stat").read_text()
    (machine.root / "7/stat").write_text(text.replace(" 2009 0 0 ", " 2100 0 9 "))
    machine.clock.time += 2
    survey = machine.survey()
    assert only(survey).faults_per_second == pytest.approx(50)
    assert (survey.unreadable_processes, survey.read_processes) == (1, 1)


def test_processes_are_annotated_when_all_else_is_known_and_again_only_when_they_changed(machine: Machine) -> None:
    surveys = []
    for ticks in (0, 200):
        machine.clock.time += 2
        machine.write(7, run={7: ticks})
        machine.write(8, run={8: 0})
        surveys.append(machine.survey())
    told = [(process.id.pid, process.cgroup, process.run_seconds) for process in machine.annotated]
    assert sorted(told[:2]) == [(7, "/a.slice", None), (8, "/a.slice", None)]
    assert told[-1] == (7, "/a.slice", {3: 2.0})
    assert [process.opt_out for process in surveys[-1].processes] == ["asked", "asked"]


def test_program_and_command_line_are_read_on_request_once_until_the_name_changes(machine: Machine) -> None:
    scope = SurveyScope(min_rss_bytes=40 * 4096, min_cpu_cores=0.5, read_exe=True, read_cmdline=True)
    told = []
    for second, comm in enumerate(("java", "java", "java", "other"), 1):
        machine.clock.time += 1
        machine.write(7, run={7: 100 * second}, comm=comm)
        (machine.root / "7/exe").unlink(missing_ok=True)
        (machine.root / "7/exe").symlink_to(f"/opt/{second} (deleted)")
        (machine.root / "7/cmdline").write_bytes(b"/opt/%d\0-x\0" % second)
        told.append(only(machine.survey(scope)))
    assert [process.exe for process in told] == [None, "/opt/2", "/opt/2", "/opt/4"]
    assert [process.cmdline for process in told] == [None, "/opt/2 -x", "/opt/2 -x", "/opt/4 -x"]
    machine.clock.time += 1
    machine.write(7, run={7: 1000}, comm="other")
    process = only(machine.survey())
    assert (process.exe, process.cmdline) == (None, None)


def test_the_dead_leave_nothing_behind(machine: Machine) -> None:
    for second in range(3):
        machine.clock.time += 1
        machine.write(7, run={7: 100 * second, 8: 0})
        machine.survey()
    assert 7 in machine.surveyor._threads._known
    shutil.rmtree(machine.root / "7")
    machine.clock.time += 4
    survey = machine.survey()
    assert (survey.processes, survey.vanished_processes) == ((), 0)
    assert machine.surveyor._details._status._answers == {}
    machine.clock.time += 60
    machine.survey()
    assert machine.surveyor._threads._known == {}


def test_new_processes_are_found_within_four_seconds(machine: Machine) -> None:
    machine.survey()
    machine.write(7, run={7: 0})
    seen = []
    for _ in range(4):
        machine.clock.time += 1
        seen.append(len(machine.survey().processes))
    assert seen == [0, 0, 0, 1]


@pytest.mark.parametrize(
    ("load", "at_once"),
    [
        pytest.param((0.0, 1.0), True, id="a CPU is busy"),
        pytest.param((2.0, 2.0), False, id="no more than before"),
        pytest.param((None, None), False, id="nobody knows"),
    ],
)
def test_when_more_cpus_are_busy_who_was_idle_is_looked_at_sooner(
    machine: Machine, load: tuple[float | None, float | None], *, at_once: bool
) -> None:
    step, ran_ticks = 0.5, 0

    def look(*, is_busy: bool) -> ProcessSample:
        nonlocal ran_ticks
        machine.clock.time += step
        ran_ticks += 50 * is_busy
        machine.write(7, run={7: ran_ticks})
        memory = make_memory(TOPOLOGY)
        return only(machine.surveyor.survey(SCOPE, TOPOLOGY, memory, busy_cpus=load[is_busy]))

    loud_after = []
    for idle_looks in range(22, 30):  # an idle one has its turn at another time each time
        for _ in range(idle_looks):
            look(is_busy=False)
        seen = [look(is_busy=True).cpus_allowed is not None for _ in range(20)]
        loud_after.append(seen.index(True))
    assert (max(loud_after) <= 1) is at_once, loud_after
    assert max(loud_after) <= 16
