"""The lab itself: what a command gets and gives back, and that the kernel inside sees what the topology file says."""

import os
import pty
import re
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.lab import kernel, topology
from tests.lab.conftest import INSIDE, INSIDE_KERNEL, MachinePool
from tests.lab.link import MachineLostError
from tests.lab.machine import BootError, Machine, Options
from tests.lab.runner import INSIDE_PARTS, NO_OTHER_PLUGINS, PLUGINS, executed_tests, failed_tests, missing, part_of
from tests.lab.state import LabDirectory, LabError, acquire_lock, lab_directory
from tests.lab.terminal import borrowed
from tests.lab.topology import Topology, TopologyError

host = pytest.mark.host
two_nodes = pytest.mark.topology("two-nodes")
everywhere = pytest.mark.topology(*topology.names())

TWO_NODES = topology.load("two-nodes")
NODES = Path("/sys/devices/system/node")
SMALL = 'distances = [[10]]\ndescription = "one"\n[[node]]\nid = 0\ncpus = 1\nmemory_mib = 512\n'


def inside() -> Topology:
    assert INSIDE is not None
    return topology.load(INSIDE)


def id_list(text: str) -> list[int]:
    spans = [part.partition("-") for part in text.strip().split(",") if part]
    return [number for first, _, last in spans for number in range(int(first), int(last or first) + 1)]


# Inside, in every topology


@everywhere
def test_sysfs_shows_the_nodes_of_the_topology_file() -> None:
    assert tuple(id_list((NODES / "online").read_text())) == inside().node_ids
    assert id_list((NODES / "possible").read_text()) == list(range(inside().node_ids[-1] + 1))
    assert id_list((NODES / "has_cpu").read_text()) == [node.id for node in inside().nodes if node.cpus]
    for node, distances in zip(inside().nodes, inside().distances, strict=True):
        folder = NODES / f"node{node.id}"
        assert len(id_list((folder / "cpulist").read_text())) == node.cpus
        assert tuple(map(int, (folder / "distance").read_text().split())) == distances
        total = re.search(r"MemTotal: +(\d+) kB", (folder / "meminfo").read_text())
        assert total is not None
        # the kernel keeps its image, page structs and the firmware's holes: more on node 0 and wherever it rounds
        assert node.memory_mib - 120 < int(total[1]) / 1024 <= node.memory_mib


@everywhere
def test_numactl_shows_the_nodes_of_the_topology_file() -> None:
    text = subprocess.run(["numactl", "-H"], capture_output=True, text=True, check=True).stdout
    cpus = {int(node): len(numbers.split()) for node, numbers in re.findall(r"node (\d+) cpus:(.*)", text)}
    assert cpus == {node.id: node.cpus for node in inside().nodes}
    rows = re.findall(r"^ +\d+: +(.*)$", text, re.MULTILINE)
    assert tuple(tuple(map(int, row.split())) for row in rows) == inside().distances


@pytest.mark.kernel(*kernel.SERIES)
def test_the_kernel_is_of_the_series_asked_for() -> None:
    assert os.uname().release.startswith(f"{INSIDE_KERNEL}.")


@pytest.mark.topology("memory-only-tier")
def test_sysfs_shows_the_access_attributes_of_the_hmat() -> None:
    for node in inside().nodes:
        best = min((hop for hop in inside().localities if hop.target == node.id), key=lambda hop: hop.latency_ns)
        access = NODES / f"node{node.id}" / "access0/initiators"
        assert int((access / "read_latency").read_text()) == best.latency_ns
        assert int((access / "read_bandwidth").read_text()) == best.bandwidth_mib_per_second
    (cache,) = inside().memory_side_caches
    folder = NODES / f"node{cache.node}" / "memory_side_cache/index1"
    assert int((folder / "size").read_text()) == cache.cache_mib << 20
    assert int((folder / "line_size").read_text()) == cache.line_bytes


@everywhere
def test_the_kernel_does_not_move_pages_by_itself() -> None:
    assert Path("/proc/sys/kernel/numa_balancing").read_text().strip() == "0"


@pytest.mark.topology("four-nodes")
def test_a_cpuset_can_be_made_below_the_root() -> None:
    group = Path("/sys/fs/cgroup/lab-test")
    group.mkdir()
    try:
        (group / "cpuset.mems").write_text("1")
        assert (group / "cpuset.mems.effective").read_text().strip() == "1"
    finally:
        group.rmdir()


@pytest.mark.topology("four-nodes")
def test_orphans_are_reaped() -> None:
    script = "true & echo $!; exec sleep 0.2"  # sleep does not wait for the child it gets from the shell
    orphan = int(subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{orphan}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


# Outside


@host
@two_nodes
@pytest.mark.parametrize(
    ("script", "exit_status"),
    [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 128 + signal.SIGTERM)],
)
def test_the_exit_status_comes_back(machine: Machine, script: str, exit_status: int) -> None:
    assert machine.run(["sh", "-c", script]).exit_status == exit_status


@host
@two_nodes
def test_a_program_that_is_not_there_is_127_with_a_message(machine: Machine) -> None:
    ended = machine.run(["/no/such/program"])
    assert (ended.exit_status, b"/no/such/program" in ended.stderr) == (127, True)


@host
@two_nodes
def test_output_comes_back_whole_on_its_own_stream_and_while_the_command_runs(machine: Machine) -> None:
    seen: list[tuple[int, bytes, float]] = []
    ended = machine.run(
        ["sh", "-c", "echo early; sleep 1; echo late >&2; seq 100000"],
        on_output=lambda stream, data: seen.append((stream, data, time.monotonic())),
    )
    assert ended.stderr == b"late\n"
    assert ended.stdout == b"early\n" + b"".join(b"%d\n" % number for number in range(1, 100001))
    assert seen[0][:2] == (1, b"early\n")
    assert seen[1][2] - seen[0][2] > 0.5


@host
@two_nodes
def test_a_command_past_its_timeout_is_killed_with_its_children_and_is_124(machine: Machine) -> None:
    assert machine.run(["sh", "-c", "sleep 4321 & sleep 4321"], timeout_seconds=0.5).exit_status == 124
    assert machine.run(["pgrep", "-f", "^sleep 4321"]).exit_status == 1


@host
@two_nodes
def test_a_background_child_that_holds_the_output_does_not_hold_the_command(machine: Machine) -> None:
    started = time.monotonic()
    assert machine.run(["sh", "-c", "sleep 60 & echo done"]).stdout == b"done\n"
    assert time.monotonic() - started < 30


@host
@two_nodes
def test_environment_and_working_directory_reach_the_command(machine: Machine) -> None:
    script = "echo $PWD $FRUIT $BALANCERD_LAB_TOPOLOGY $(hostname)"
    ended = machine.run(["sh", "-c", script], cwd=Path("/usr/share"), env={"FRUIT": "plum"})
    assert ended.stdout.split() == [b"/usr/share", b"plum", b"two-nodes", b"lab-two-nodes"]


@host
@two_nodes
def test_files_come_out_through_out_and_nothing_else_does(machine: Machine) -> None:
    elsewhere = Path(__file__).parent / "written-inside"
    script = f"echo kept > /run/lab/out/kept; echo lost > {elsewhere}; cat {elsewhere}"
    assert machine.run(["sh", "-c", script]).stdout == b"lost\n"
    assert (machine.out / "kept").read_text() == "kept\n"
    assert not elsewhere.exists()


@host
@two_nodes
def test_this_python_and_its_environment_are_inside(machine: Machine) -> None:
    ended = machine.run([sys.executable, "-c", "import pytest, sys; print(sys.prefix)"])
    assert ended.stdout.decode().strip() == sys.prefix


@host
@two_nodes
def test_the_clock_inside_is_right(machine: Machine) -> None:
    inside_seconds = float(machine.run(["date", "+%s.%N"]).stdout)
    assert abs(inside_seconds - time.time()) < 5


@host
@two_nodes
def test_a_command_whose_client_hangs_up_gives_way_to_the_next(machine: Machine) -> None:
    with pytest.raises(MachineLostError):
        machine.link.run(["sleep", "1234"], cwd=Path("/"), env={}, answer_seconds=1.0)
    assert machine.run(["pgrep", "-f", "^sleep 1234"], timeout_seconds=20).exit_status == 1


@host
@two_nodes
def test_a_second_machine_of_a_checkout_does_not_start_while_one_runs(machine: Machine) -> None:
    with pytest.raises(LabError, match="another lab machine"):
        acquire_lock(machine.lab, wait_seconds=0.0)


@host
@two_nodes
def test_no_port_leads_into_a_machine_that_was_given_none(machine: Machine) -> None:
    with pytest.raises(MachineLostError, match="no port leads to two-nodes"):
        _ = machine.address


@host
@two_nodes
def test_a_terminal_is_lent_with_its_size_and_its_keys(machine: Machine) -> None:
    keyboard, screen = pty.openpty()
    termios.tcsetwinsize(screen, (33, 101))

    def answer(_stream: int, data: bytes) -> None:
        if b"33 101" in data:
            os.write(keyboard, b"plum\r")

    with borrowed(screen) as terminal:
        ended = machine.run(
            ["sh", "-c", "stty size; read word; echo got $word; exit 3"], terminal=terminal, on_output=answer
        )
    assert (ended.exit_status, b"got plum" in ended.stdout) == (3, True)
    os.close(keyboard)
    os.close(screen)


def kill_from_outside(machine: Machine) -> None:
    def kill(_stream: int, _data: bytes) -> None:
        assert machine.pid is not None
        os.kill(machine.pid, signal.SIGKILL)

    machine.run(["sh", "-c", "echo ready; sleep 60"], on_output=kill)


def crash_the_kernel(machine: Machine) -> None:
    machine.run(["sh", "-c", "echo c > /proc/sysrq-trigger; sleep 60"], timeout_seconds=60)


@host
@two_nodes
@pytest.mark.parametrize("end", [kill_from_outside, crash_the_kernel])
def test_a_machine_that_dies_is_an_error_and_leaves_the_checkout_free(
    machine_pool: MachinePool, end: Callable[[Machine], None]
) -> None:
    machine = machine_pool.get("two-nodes")
    with pytest.raises(MachineLostError, match="two-nodes"):
        end(machine)
    machine_pool.shutdown()
    os.close(acquire_lock(machine.lab, wait_seconds=10.0))


@pytest.fixture
def spare_lab(tmp_path: Path, machine_pool: MachinePool) -> LabDirectory:
    """A lab directory of its own, with the packages of the usual one; no other machine takes the CPUs."""
    machine_pool.shutdown()
    tmp_path.joinpath("packages").symlink_to(lab_directory().packages)
    return LabDirectory(root=tmp_path)


@host
def test_a_kernel_that_dies_is_booted_three_times_and_then_an_error_with_its_console(
    spare_lab: LabDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = Machine(TWO_NODES, lab=spare_lab, options=Options(kernel_arguments="rdinit=/nothing init=/nothing"))
    with pytest.raises(BootError, match="Kernel panic"):
        broken.boot()
    assert capsys.readouterr().err.count("once more") == 2


@host
def test_a_machine_that_qemu_refuses_is_an_error_at_once(
    spare_lab: LabDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = TWO_NODES.nodes
    giant = replace(TWO_NODES, nodes=(first, replace(second, memory_mib=1 << 34)))
    with pytest.raises(BootError, match="qemu-system-x86_64: "):
        Machine(giant, lab=spare_lab).boot()
    assert "once more" not in capsys.readouterr().err


@host
def test_systemd_can_be_the_first_process(spare_lab: LabDirectory) -> None:
    with Machine(TWO_NODES, lab=spare_lab, options=Options(systemd_unit="basic.target")) as machine:
        ended = machine.run(["sh", "-c", "ps -p 1 -o comm=; systemctl is-active basic.target"])
    assert ended.stdout.split() == [b"systemd", b"active"]


@host
def test_the_run_verb_gives_back_output_and_exit_status(spare_lab: LabDirectory) -> None:
    command = [sys.executable, "-m", "tests.lab", "run", "--topology", "two-nodes", "--", "sh", "-c", "uname; exit 7"]
    environment = {**os.environ, "BALANCERD_LAB_DIR": str(spare_lab.root)}
    ended = subprocess.run(command, capture_output=True, env=environment, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (7, b"Linux\n", b"")


@host
def test_a_selection_without_a_test_fails(spare_lab: LabDirectory) -> None:
    command = [sys.executable, "-m", "tests.lab", "test", "--topology", "two-nodes", __file__, "-k", "no_such_test"]
    environment = {**os.environ, "BALANCERD_LAB_DIR": str(spare_lab.root)}
    ended = subprocess.run(command, capture_output=True, env=environment, check=False)
    assert (ended.returncode, b"no test for it was selected" in ended.stdout) == (1, True)


@host
@pytest.mark.parametrize(
    ("wanted", "only", "series", "is_everything", "names"),
    [
        ([(name, "6.12") for name in topology.names()], None, None, True, ["6.1"]),
        ([*((name, "6.12") for name in topology.names()), ("four-nodes", "6.1")], None, None, True, []),
        ([("two-nodes", "6.12"), ("two-nodes", "6.1")], None, None, True, sorted({*topology.names()} - {"two-nodes"})),
        ([("two-nodes", "6.12")], None, None, False, []),
        ([], "two-nodes", None, True, ["two-nodes"]),
        ([("two-nodes", "6.12")], "two-nodes", None, True, []),
        ([], None, "6.1", True, ["6.1"]),
        ([], "two-nodes", "6.1", False, ["two-nodes", "6.1"]),
    ],
)
def test_what_was_asked_for_and_has_no_test_is_missing(
    wanted: list[tuple[str, str]], only: str | None, series: str | None, is_everything: bool, names: list[str]
) -> None:
    assert missing(wanted, only, series, is_everything=is_everything) == names


@host
def test_the_parts_leave_no_machine_out_and_no_test_for_one_is_missed_in_its_part() -> None:
    everywhere = [(name, series) for name in topology.names() for series in kernel.SERIES]
    parts = {part: [where for where in everywhere if part_of(where) == part] for part in INSIDE_PARTS}
    assert parts["default"] == [(topology.DEFAULT, kernel.DEFAULT)]
    assert len(parts["default"]) + len(parts["others"]) == len(everywhere)
    for part, wanted in parts.items():
        assert missing(wanted, None, None, is_everything=True, part=part) == []
    assert missing([], None, None, is_everything=True, part="default") == [topology.DEFAULT, kernel.DEFAULT]
    assert missing(parts["default"], None, None, is_everything=True, part="others") != []
    assert missing([], None, None, is_everything=True, part="host") == []


@host
def test_an_unpacked_kernel_of_another_series_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for release in ("6.1.0-50-amd64", "6.12.9-amd64", "6.120.1-amd64"):
        modules = tmp_path / f"linux-image-{release}" / "lib/modules" / release
        modules.mkdir(parents=True)
        (modules / "modules.dep").touch()
    assert kernel.ensure_kernel(tmp_path, "6.1").release == "6.1.0-50-amd64"
    assert kernel.ensure_kernel(tmp_path, "6.12").release == "6.12.9-amd64"
    refreshed: list[bool] = []
    monkeypatch.setattr(kernel, "refresh", lambda: refreshed.append(True))
    with pytest.raises(LabError, match=r"apt knows no Linux 6\.7"):
        kernel.ensure_kernel(tmp_path, "6.7")
    assert refreshed == [True]


@host
def test_a_test_for_the_inside_fails_outside() -> None:
    command = [sys.executable, "-m", "pytest", *PLUGINS, __file__, "-k", "by_itself"]
    ended = subprocess.run(command, capture_output=True, env={**os.environ, **NO_OTHER_PLUGINS}, check=False)
    assert (ended.returncode, b"use: python -m tests.lab test" in ended.stdout) == (1, True)


@host
def test_skipped_tests_do_not_count_as_run(tmp_path: Path) -> None:
    junit = tmp_path / "junit.xml"
    assert executed_tests(junit) == 0
    junit.write_text('<testsuites><testsuite tests="3" skipped="3"/></testsuites>')
    assert executed_tests(junit) == 0
    junit.write_text('<testsuites><testsuite tests="3" skipped="1"/></testsuites>')
    assert executed_tests(junit) == 2


@host
def test_failed_tests_are_named_so_that_pytest_can_run_them_again(tmp_path: Path) -> None:
    junit = tmp_path / "junit.xml"
    assert failed_tests(junit) == ()
    junit.write_text(
        '<testsuites><testsuite tests="4" skipped="1">'
        '<testcase classname="tests.lab.test_a" name="test_passes"/>'
        '<testcase classname="tests.lab.test_a" name="test_fails[4 KiB]"><failure message="no"/></testcase>'
        '<testcase classname="tests.lab.test_b" name="test_breaks"><failure/></testcase>'
        '<testcase classname="tests.lab.test_b" name="test_breaks"><error/></testcase>'
        '<testcase classname="tests.lab.test_b" name="test_skipped"><skipped/></testcase></testsuite></testsuites>'
    )
    assert failed_tests(junit) == ("tests/lab/test_a.py::test_fails[4 KiB]", "tests/lab/test_b.py::test_breaks")


@host
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("id = 0", "id = 1", "must start at 0"),
        ("cpus = 1", "cpus = 0", "needs a CPU"),
        ("cpus = 1", "cpus = 1\ndimm = true", "needs memory to boot in"),
        ("512", "64", "less than 256 MiB"),
        ("[[10]]", "[[10, 20]]", "must be 1 x 1"),
        ("[[10]]", "[[20]]", "distance to itself"),
        ("cpus", "cpu", "unexpected keyword argument 'cpu'"),
        ("[[node]]", "[[memory_side_cache]]\nnode=3\ncache_mib=1\nline_bytes=64\n[[node]]", r"nodes \[3\]"),
    ],
)
def test_a_topology_that_is_no_machine_is_refused(old: str, new: str, message: str) -> None:
    topology.parse("small", SMALL)
    with pytest.raises(TopologyError, match=message):
        topology.parse("small", SMALL.replace(old, new))
