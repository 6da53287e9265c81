"""Which boots are made, in which order, and what becomes of lost machines; no machine is started here."""

import json
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from tests.bench import __main__ as all_benchmarks
from tests.bench.locality import __main__ as command
from tests.bench.locality import boots, compare, record, report, rivals
from tests.bench.locality.boots import RunError, TimedOutError, Wanted
from tests.lab.link import Completed, MachineLostError
from tests.lab.machine import BootError, Options
from tests.lab.state import LabDirectory, LabError
from tests.lab.topology import Topology
from tests.unit.bench.counted import boot

SINGLE, STORM = command.WORKLOADS["single"], command.WORKLOADS["storm"]


def wanted(number: int = 1, *, rival: str = "kernel", seconds: float = 10.0, mib: int = 400) -> Wanted:
    return Wanted(workload=SINGLE, rival=rival, boot=number, seconds=seconds, mib=mib)


def kept(one: Wanted) -> record.Boot:
    return boot(one.rival, one.boot, workload=one.workload.name, work=one.work, mib=one.mib)


@pytest.fixture
def lab(tmp_path: Path) -> LabDirectory:
    return LabDirectory(root=tmp_path)


def test_the_machine_has_a_cpu_on_each_node_and_a_second_one_on_the_last() -> None:
    machine = boots.topology()
    assert [(node.id, node.cpus, node.memory_mib) for node in machine.nodes] == [
        (0, 1, 1024),
        (1, 1, 1024),
        (2, 1, 1024),
        (3, 2, 1024),
    ]
    assert machine.distances[0] == (10, 12, 21, 31)


def test_one_boot_of_everything_comes_before_the_second_of_anything() -> None:
    chosen = list(command.choose([SINGLE, STORM], ["nothing", "bound"], n_boots=2, seconds=10, mib=None))
    assert [(one.workload.name, one.rival, one.boot) for one in chosen] == [
        ("single", "nothing", 1),
        ("single", "bound", 1),
        ("storm", "nothing", 1),
        ("storm", "bound", 1),
        ("single", "nothing", 2),
        ("single", "bound", 2),
        ("storm", "nothing", 2),
        ("storm", "bound", 2),
    ]
    assert {one.mib for one in chosen} == {SINGLE.mib, STORM.mib}
    assert chosen[0].work == 10 * SINGLE.units_per_second


def test_who_is_moved_seldom_works_longer_unless_told_otherwise() -> None:
    some = [command.WORKLOADS["phases"], command.WORKLOADS["shifted-300"]]
    usual = command.choose(some, ["bound"], n_boots=1, seconds=None, mib=None)
    assert [one.seconds for one in usual] == [240, 660]
    told = command.choose(some, ["bound"], n_boots=1, seconds=30, mib=64)
    assert [(one.seconds, one.mib) for one in told] == [(30, 64), (30, 64)]


def test_names_of_workloads_that_are_spoken_of_are_there() -> None:
    assert set(command.OTHER_SECONDS) | set(report.HEADLINE_WORKLOADS) <= set(command.WORKLOADS)
    assert list(compare.RIVALS) == list(rivals.RIVALS)


def test_the_kept_boots_did_the_usual_work_so_that_only_what_is_missing_is_made() -> None:
    usual = {
        one.workload.name: one
        for one in command.choose(list(command.WORKLOADS.values()), ["bound"], n_boots=1, seconds=None, mib=None)
    }
    for it in record.read_boots(record.FOLDER):
        assert (it.work, it.mib) == (usual[it.workload].work, usual[it.workload].mib), it.workload


def test_the_work_is_never_nothing() -> None:
    assert wanted(seconds=0.0001).work == 1


@pytest.mark.parametrize(
    ("other", "is_kept"),
    [
        pytest.param(wanted(), True, id="the same"),
        pytest.param(wanted(2), False, id="another boot"),
        pytest.param(wanted(rival="numad"), False, id="another rival"),
        pytest.param(wanted(seconds=20.0), False, id="more work"),
        pytest.param(wanted(mib=64), False, id="less memory"),
    ],
)
def test_a_boot_is_kept_when_the_same_work_was_done(tmp_path: Path, other: Wanted, is_kept: bool) -> None:
    record.write_boot(tmp_path, kept(wanted()))
    assert boots.is_kept(tmp_path, other) is is_kept


Attempt = Callable[[Wanted, LabDirectory, int], record.Boot]


def failing(n_times: int, error: LabError, seen: list[int]) -> Attempt:
    def attempt(one: Wanted, _: LabDirectory, number: int) -> record.Boot:
        seen.append(number)
        if number <= n_times:
            raise error
        return boot(one.rival, attempts=number)

    return attempt


@pytest.mark.parametrize("error", [MachineLostError("panic"), TimedOutError("late"), BootError("silent")])
def test_a_lost_machine_is_booted_again_twice_at_most_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], lab: LabDirectory, error: LabError
) -> None:
    seen: list[int] = []
    monkeypatch.setattr(boots, "_one_boot", failing(2, error, seen))
    assert boots.run(wanted(), lab).attempts == 3
    assert capsys.readouterr().err.count("once more") == 2
    monkeypatch.setattr(boots, "_one_boot", failing(3, error, seen))
    with pytest.raises(type(error)):
        boots.run(wanted(), lab)
    assert seen == [1, 2, 3, 1, 2, 3]


def test_a_run_that_failed_by_itself_is_not_repeated(monkeypatch: pytest.MonkeyPatch, lab: LabDirectory) -> None:
    seen: list[int] = []
    monkeypatch.setattr(boots, "_one_boot", failing(1, RunError("wrong page"), seen))
    with pytest.raises(RunError):
        boots.run(wanted(), lab)
    assert seen == [1]


COUNTERS = """\
oracle 1
cpus 0 1 2 3 3
distances 10 12 21 31 12 10 31 21 21 31 10 12 31 21 12 10
caches 32 1024
"""
TOLD = {
    "kernel": "6.12.1",
    "gaps": {},
    "pages": {"moved_bytes": 4096, "moved_once_bytes": 4096, "moved_twice_bytes": 0},
    "daemon": None,
}


def counters_text(*lines_of_node_2: int) -> str:
    """The plugin's file: CPU 0 has read so many lines of node 2 at markers 1, 2 and 3, and nobody else anything."""
    text = COUNTERS
    for number, lines in enumerate(lines_of_node_2, 1):
        text += f"mark {number} {100 * number}.000000 0 0\n"
        for cpu in range(5):
            text += f"cpu {cpu} user 0 0 0 0 0 0 {lines if cpu == 0 else 0} 0 0 0 0 0\n"
            text += f"cpu {cpu} kernel 0 0 0 0 0 0 0 0 0 0 0 0\n"
        text += ".\n"
    return text


class FakeMachine:
    """A machine in which a run ends as `ended` says, after it has written `told`."""

    ended = Completed(exit_status=0, stdout=b"", stderr=b"")
    told: Mapping[str, object] = TOLD

    def __init__(self, topology: Topology, *, options: Options, lab: LabDirectory) -> None:
        assert topology.name == "locality"
        assert options.threads == "multi"
        assert options.oracle is not None
        assert options.oracle.has_kernel
        self.out, self.counters = lab.root, lab.root / "counters"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.counters.write_text(counters_text(100, 700, 900), encoding="ascii")

    def prefer_cpu(self, cpu: int) -> bool:
        return cpu == 4

    def run(self, argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], timeout_seconds: float) -> Completed:
        assert (cwd / "tests").is_dir()
        assert env == {"BALANCERD_LAB_DIR": str(self.out)}
        assert timeout_seconds > 10
        work = str(wanted().work)
        assert argv[1:] == ["-m", "tests.bench.locality.inside", "single", "kernel", "--work", work, "--mib", "400"]
        (self.out / "result.json").write_text(json.dumps(self.told), encoding="utf-8")
        return self.ended


def test_a_boot_is_kept_with_what_the_oracle_counted_and_what_the_guest_told(
    monkeypatch: pytest.MonkeyPatch, lab: LabDirectory
) -> None:
    monkeypatch.setattr(boots, "Machine", FakeMachine)
    monkeypatch.setattr(boots, "versions", lambda *_: {"QEMU": "7.2"})
    made = boots.run(wanted(), lab)
    assert made.figures.workload_cost == pytest.approx(800 * 2.1)
    assert made.figures.remote_ratio == 1
    assert made.figures.seconds == 200
    assert [point.accesses for point in made.series] == [800]
    assert (made.workload, made.rival, made.boot, made.attempts) == ("single", "kernel", 1, 1)
    assert made.result.kernel == "6.12.1"
    assert made.is_house_first
    assert made.commit == boots.commit()


def test_a_run_that_failed_inside_says_what_it_wrote_or_else_its_last_words(
    monkeypatch: pytest.MonkeyPatch, lab: LabDirectory
) -> None:
    monkeypatch.setattr(boots, "Machine", FakeMachine)
    monkeypatch.setattr(FakeMachine, "ended", Completed(exit_status=1, stdout=b"", stderr=b"Traceback"))
    monkeypatch.setattr(FakeMachine, "told", {"error": "a page is wrong"})
    with pytest.raises(RunError, match="single under kernel, boot 1: exit status 1\na page is wrong"):
        boots.run(wanted(), lab)
    monkeypatch.setattr(FakeMachine, "told", {})
    with pytest.raises(RunError, match="Traceback"):
        boots.run(wanted(), lab)


def test_settings_are_handed_on_to_the_inside(monkeypatch: pytest.MonkeyPatch, lab: LabDirectory) -> None:
    given: list[Sequence[str]] = []

    def run(_: FakeMachine, argv: Sequence[str], **_options: object) -> Completed:
        given.append(argv)
        return Completed(exit_status=1, stdout=b"", stderr=b"")

    monkeypatch.setattr(FakeMachine, "run", run)
    monkeypatch.setattr(boots, "Machine", FakeMachine)
    one = replace(wanted(), settings={"tick_interval": "500ms", "mode": "observe"})
    with pytest.raises(RunError):
        boots.run(one, lab)
    assert given[0][-4:] == ["--set", "tick_interval=500ms", "--set", "mode=observe"]


def test_a_run_that_does_not_end_is_given_up(monkeypatch: pytest.MonkeyPatch, lab: LabDirectory) -> None:
    monkeypatch.setattr(boots, "Machine", FakeMachine)
    monkeypatch.setattr(FakeMachine, "ended", Completed(exit_status=124, stdout=b"", stderr=b""))
    with pytest.raises(TimedOutError):
        boots.run(wanted(), lab)


@pytest.fixture
def machines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What would have been booted; numad's boots fail."""
    made: list[str] = []

    def run(one: Wanted, _: LabDirectory) -> record.Boot:
        made.append(f"{one.workload.name}.{one.rival}.{one.boot}")
        if one.rival == "numad":
            raise RunError(f"{one}: exit status 1")
        return kept(one)

    monkeypatch.setattr(boots, "run", run)
    monkeypatch.setattr(boots, "prepare", lambda *_: None)
    return made


def test_boots_that_are_kept_are_not_made_again_when_only_missing_ones_are_wanted(
    tmp_path: Path, machines: list[str]
) -> None:
    words = ["--workload", "single", "--rival", "kernel", "--rival", "bound", "--boots", "2", "--seconds", "10"]
    words += ["--results", str(tmp_path)]
    record.write_boot(tmp_path, kept(wanted()))
    assert command.main([*words, "--missing"]) == 0
    assert machines == ["single.bound.1", "single.kernel.2", "single.bound.2"]
    assert command.main([*words, "--missing"]) == 0
    assert len(machines) == 3
    assert command.main(words) == 0
    assert len(machines) == 7


def test_a_boot_that_failed_is_named_and_the_others_are_made(
    tmp_path: Path, machines: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--workload", "single", "--rival", "numad", "--rival", "bound", "--boots", "1", "--results", str(tmp_path)]
    assert command.main(words) == 1
    assert machines == ["single.numad.1", "single.bound.1"]
    assert "failed: single under numad, boot 1" in capsys.readouterr().err
    assert [one.rival for one in record.read_boots(tmp_path)] == ["bound"]


def test_a_check_fails_when_a_share_is_out_of_its_band(
    tmp_path: Path, machines: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--workload", "single", "--rival", "nothing", "--boots", "1", "--results", str(tmp_path)]
    assert command.main(words) == 0
    assert command.main([*words, "--check"]) == 1
    assert len(machines) == 2
    assert "check: single under nothing: 0.0% remote" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--workload", "singel"], r"'singel' \(choose from .*single.*storm.*redis"),
        (["--rival", "nobody"], r"'nobody' \(choose from .*nothing.*numad"),
        (["--boots", "0"], "1 or more"),
        (["--fast"], "unrecognized arguments: --fast"),
    ],
)
def test_what_there_is_not_is_refused_with_what_there_is(
    words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        command.main(words)
    assert refused.value.code == 2
    assert re.search(complaint, capsys.readouterr().err)


def test_only_locality_and_report_take_options(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[list[str]] = []

    def run(words: list[str], *, check: bool) -> "subprocess.CompletedProcess[bytes]":
        assert not check
        started.append(words[2:])
        return subprocess.CompletedProcess(words, 3)

    monkeypatch.setattr(subprocess, "run", run)
    assert all_benchmarks.main(["locality", "--boots", "1"]) == 3
    assert all_benchmarks.main(["report"]) == 3
    assert started == [["tests.bench.locality", "--boots", "1"], ["tests.bench.locality.report"]]
    assert all_benchmarks.main(["coverage", "--boots", "1"]) == 2
    assert "no benchmark --boots, 1; there are: placement," in capsys.readouterr().err
