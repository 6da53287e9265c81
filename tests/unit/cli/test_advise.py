"""advise: from a daemon and without one, and in numad's words, read as libvirt reads them."""

import json
import os
import string
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from balancerd.engine.advice import NodeRoom
from balancerd.kernel.machine.offer import read_offer
from balancerd.model.ids import NodeId
from tests.unit.cli.conftest import Run
from tests.unit.control.daemon import Room, running
from tests.unit.reports import GIB, a_report

MACHINES = Path(__file__).parents[2] / "machines"
SHIM = Path(__file__).parents[3] / "deploy/libvirt/numad"

TEXT = """\
place it on node 0
NODE  CPUS  MEMORY
   0  1.00    1GiB
node 0: 2.0 CPUs (their load is not known) and 2646 MiB free, for 1 CPUs and 1024 MiB
"""


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    room = Room(socket=tmp_path / "control.sock")
    room.state.emit(a_report())
    with running(room.server()):
        yield room


class BitmapError(Exception):
    """libvirt refuses the text."""


def parse_as_libvirt(text: str) -> set[int]:
    """Read a set of nodes as virBitmapParse() does: N, N-M and ^N between commas, blanks and a newline around them.

    virNumaGetAutoPlacementAdvice() hands it the whole standard output of `numad -w VCPUS:MIB`.
    """
    found: set[int] = set()
    rest = text.lstrip(string.whitespace)
    if not rest:
        raise BitmapError("nothing")
    while rest:
        negated, rest = rest.startswith("^"), rest.removeprefix("^")
        first, rest = _number(rest)
        last = first
        if rest.startswith("-"):
            if negated:
                raise BitmapError("a range cannot be taken away")
            last, rest = _number(rest[1:].lstrip(string.whitespace))
            if last < first:
                raise BitmapError("backwards")
        found = found - {first} if negated else found | set(range(first, last + 1))
        if rest and not rest.startswith(","):
            raise BitmapError(f"{rest!r} is neither a comma nor the end")
        rest = rest.removeprefix(",").lstrip(string.whitespace)
    return found


def _number(text: str) -> tuple[int, str]:
    digits = len(text) - len(text.lstrip(string.digits))
    if not digits:
        raise BitmapError(f"{text!r} is no number")
    return int(text[:digits]), text[digits:].lstrip(string.whitespace)


def a_node(number: int, *, cpus: int = 4, gib: float = 8) -> NodeRoom:
    distances = {NodeId(n): 10 if n == number else 21 for n in range(8)}
    return NodeRoom(
        node=NodeId(number), cpus=cpus, idle_cpus=float(cpus), free_bytes=int(gib * GIB), distances=distances
    )


def test_the_daemon_advises_and_leases(room: Room, run: Run) -> None:
    socket = str(room.socket)
    done = run("advise", "1:1024", socket=socket)
    assert (done.exit_code, done.stdout) == (0, TEXT)
    assert done.stderr == "kept for you for 1m as lease 1: balancerctl advise --release 1\n"
    assert run("advise", "2:1024", "--lease", "5m", "--numactl", socket=socket).stdout == (
        "numactl --cpunodebind=1 --membind=1\n"
    )
    listed = run("advise", "--list", socket=socket).stdout.splitlines()
    assert listed == ["ID  NODES  CPUS  MEMORY  LEFT", " 1  0         1    1GiB    1m", " 2  1         2    1GiB    5m"]
    done = run("advise", "1.5:2048", "--numad", socket=socket)
    assert (done.exit_code, done.stdout, done.stderr) == (0, "0-1\n", "")
    assert run("advise", "--release", "2", socket=socket).exit_code == 0
    done = run("advise", "--release", "2", socket=socket)
    assert (done.exit_code, done.stderr) == (1, "balancerctl: there is no lease 2, or it has ended\n")
    told = json.loads(run("advise", "--list", "--json", socket=socket).stdout)
    assert [lease["id"] for lease in told["leases"]] == [1, 3]


def test_no_lease_leaves_the_space_to_others(room: Room, run: Run) -> None:
    for _ in range(3):
        assert run("advise", "2:2048", "--no-lease", "--numad", socket=str(room.socket)).stdout == "0\n"
    assert room.leases.all() == ()


def test_what_does_not_fit_is_a_finding_but_not_for_numad(room: Room, run: Run) -> None:
    done = run("advise", "1:99999", socket=str(room.socket))
    assert done.exit_code == 5
    assert done.stdout.startswith("place it on nodes 0-1\n")
    assert "it does not fit: nodes 0-1: " in done.stderr
    assert "not leased: it does not fit\n" in done.stderr
    done = run("advise", "1:99999", "--numad", socket=str(room.socket))
    assert (done.exit_code, done.stdout) == (0, "0-1\n")
    told = json.loads(run("advise", "1:99999", "--json", socket=str(room.socket)).stdout)
    assert (told["advice"]["fits"], told["lease"]) == (False, None)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["0x4"],
        ["-1"],
        ["4:"],
        [":4"],
        ["4:1.5"],
        ["4:8:9"],
        ["99999999"],
        ["4", "--list"],
        ["--list", "--release", "1"],
        ["--list", "--numad"],
        ["4", "--numad", "--json"],
        ["4", "--numad", "--numactl"],
        ["4", "--lease", "0s"],
        ["4", "--lease", "61m"],
        ["4", "--lease", "300"],
    ],
)
def test_what_makes_no_sense_is_wrong_usage(run: Run, arguments: list[str]) -> None:
    assert run("advise", *arguments).exit_code == 2


def test_without_a_daemon_it_looks_itself(run: Run) -> None:
    done = run("advise", "0:1", "--json")
    told: dict[str, Any] = json.loads(done.stdout)
    assert (done.exit_code, told["advice"]["source"], told["lease"]) == (0, "machine", None)
    assert "balancerd is not running" in told["lease_detail"]
    online = Path("/sys/devices/system/node/has_memory").read_text(encoding="ascii")
    assert parse_as_libvirt(told["advice"]["nodes"]) <= parse_as_libvirt(online)


def test_before_the_first_tick_it_looks_itself(tmp_path: Path, run: Run) -> None:
    room = Room(socket=tmp_path / "early.sock")
    with running(room.server()):
        told = json.loads(run("advise", "0:1", "--json", socket=str(room.socket)).stdout)
    assert told["advice"]["source"] == "machine"
    assert told["lease_detail"] == "there was no tick yet: ask again in a moment"


@pytest.mark.parametrize("arguments", [["--list"], ["--release", "1"]])
def test_leases_need_the_daemon(run: Run, arguments: list[str]) -> None:
    assert run("advise", *arguments).exit_code == 3


@pytest.mark.parametrize(
    ("demand", "nodes"),
    [
        ("1:1", "0"),
        ("4:8192", "0"),
        ("8:100", "0,2"),
        ("12:100", "0,2-3"),
        ("20:40960", "0,2-4,7"),
        ("999:999999", "0,2-4,7"),
    ],
)
def test_numads_words_are_what_libvirt_reads(
    run: Run, monkeypatch: pytest.MonkeyPatch, demand: str, nodes: str
) -> None:
    monkeypatch.setattr(
        "balancerd.kernel.machine.offer.read_offer", lambda *_: tuple(a_node(n) for n in (0, 2, 3, 4, 7))
    )
    done = run("advise", "--numad", demand)
    assert (done.exit_code, done.stdout) == (0, f"{nodes}\n")
    assert parse_as_libvirt(done.stdout) == parse_as_libvirt(nodes)


@pytest.mark.parametrize("text", ["", "\n", "0 1", "a", "3-1", "0,,1", "^0-1", "0-", "nodes 0"])
def test_the_reader_is_as_strict_as_libvirts(text: str) -> None:
    with pytest.raises(BitmapError):
        parse_as_libvirt(text)


def test_the_program_in_numads_place_answers_as_libvirt_asks(room: Room, tmp_path: Path) -> None:
    """As virNumaGetAutoPlacementAdvice() runs it: NUMAD, "-w", "%d:%llu"; any status but 0 is an error."""
    bin_dir = tmp_path / "bin"
    bin_dir.mkdir()
    (bin_dir / "balancerctl").symlink_to(Path(sys.executable).parent / "balancerctl")
    env = {**os.environ, "PATH": f"{bin_dir}:{os.environ['PATH']}", "BALANCERD_SOCKET": str(room.socket)}
    done = subprocess.run([SHIM, "-w", "1:1024"], capture_output=True, text=True, check=True, env=env)
    assert parse_as_libvirt(done.stdout) == {0}
    assert done.stderr == ""
    assert len(room.leases.all()) == 1
    refused = subprocess.run([SHIM, "-i", "15"], capture_output=True, text=True, check=False, env=env)
    assert (refused.returncode, refused.stdout) == (1, "")


def test_a_captured_machine_is_read_by_anyone(tmp_path: Path) -> None:
    machine = MACHINES / "four-nodes-6.12"
    offered = read_offer(machine / "proc", machine / "sys", look_seconds=0.0)
    assert [room.node for room in offered] == [0, 1, 2, 3]
    assert all(room.free_bytes > 0 and room.cpus > 0 for room in offered)
    assert all(room.idle_cpus is None for room in offered)  # no time has passed between the two readings
    with pytest.raises(FileNotFoundError):
        read_offer(tmp_path, tmp_path, look_seconds=0.0)


def test_a_machine_that_tells_nothing_is_a_failure(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*_: object) -> tuple[NodeRoom, ...]:
        raise FileNotFoundError(2, "No such file or directory", "/sys/devices/system/node/online")

    monkeypatch.setattr("balancerd.kernel.machine.offer.read_offer", nothing)
    done = run("advise", "1")
    assert done.exit_code == 1
    assert "this machine does not tell of its nodes" in done.stderr
