"""Disks that are full, read-only or damaged, and configurations that are: the daemon says so and goes on moving."""

import gzip
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest

from tests.lab.faults.asking import CALM, NO_POLICY, ask, elsewhere, settle
from tests.lab.faults.conftest import Fault
from tests.lab.faults.tally import Tally
from tests.lab.service import Balancerd
from tests.lab.workloads import Hog

pytestmark = pytest.mark.topology("four-nodes")

MIB = 16
PINNING = "policies: [{name: gather, kind: threads, method: pin}]\n"
STATE_FILES = ("threads.json", "history.sqlite")
REFUSED = 5
"""The exit status of a daemon whose configuration cannot be used."""


def moves_on(tally: Tally, daemon: Balancerd, hog: Hog) -> None:
    """Memory still moves, and every page of it is told of."""
    told = settle(tally, daemon, ask(daemon, hog.pid, tally.dice.choice(elsewhere(hog))))
    assert told["state"] == "done", told
    tally.verify(hog.check(), MIB * 256)
    tally.audit(daemon)


def wait_for_word(daemon: Balancerd) -> None:
    """Wait until it has logged something about its history."""
    daemon.wait_for(lambda: bool(daemon.log_lines("history")), 60.0, "word of the history")


def refuse(daemon: Balancerd) -> None:
    """Have it reload, and refuse that."""
    before = daemon.status()["config"]["last_reload"]
    daemon.process.send_signal(signal.SIGHUP)
    daemon.wait_for(lambda: bool(daemon.status()["config"]["last_reload"] != before), 30.0, "a reload")
    assert not daemon.status()["config"]["last_reload"]["succeeded"]


def a_hog() -> Hog:
    return Hog("base", MIB, touch_cpu=2, spin_cpu=0, busy_percent=5)


@contextmanager
def mounted(place: Path, options: str) -> Iterator[Path]:
    """A tmpfs of its own for what the daemon keeps."""
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"mode=755,{options}", "state", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def fill_up(place: Path) -> None:
    """Leave nothing free on a small file system."""
    with suppress_no_space(), (place / "filler").open("wb", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))


@contextmanager
def suppress_no_space() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno != 28:  # ENOSPC
            raise


@pytest.mark.parametrize("when", ["start", pytest.param("later", marks=pytest.mark.thorough)])
def test_a_full_disk_costs_the_history_and_nothing_else(fault: Fault, tmp_path: Path, when: str) -> None:
    told = (
        f"the file system of the state directory is full, from the {when} on"
        if when == "start"
        else ("the file system of the state directory fills up while the daemon runs, and has room again")
    )
    with fault(f"disk-full-{when}", told, few=1, many=3) as tally, a_hog() as hog:
        for number in tally.tries:
            with tally.trying(), mounted(tmp_path / f"state-{number}", "size=512k") as state:
                if when == "start":
                    fill_up(state)
                settings = {**CALM, "state_directory": str(state)}
                with Balancerd(tmp_path / f"daemon-{number}", NO_POLICY, overrides=settings) as daemon:
                    moves_on(tally, daemon, hog)
                    if when == "later":
                        fill_up(state)
                        moves_on(tally, daemon, hog)
                        wait_for_word(daemon)
                        (state / "filler").unlink()
                        moves_on(tally, daemon, hog)
                    wait_for_word(daemon)
                    tally.count("said so", len(daemon.log_lines("history")))
                    assert daemon.stop() == 0


@pytest.mark.thorough
def test_a_read_only_state_directory_is_told_of(fault: Fault, tmp_path: Path) -> None:
    told = "the state directory is read-only: no history; where a policy moves threads, the start is refused"
    with fault("read-only-state", told, few=1, many=3) as tally, a_hog() as hog:
        for number in tally.tries:
            with tally.trying(), mounted(tmp_path / f"state-{number}", "size=512k,ro") as state:
                settings = {**CALM, "state_directory": str(state)}
                with Balancerd(tmp_path / f"daemon-{number}", NO_POLICY, overrides=settings) as daemon:
                    moves_on(tally, daemon, hog)
                    wait_for_word(daemon)
                    assert daemon.stop() == 0
                with Balancerd(tmp_path / f"pin-{number}", PINNING, overrides=settings, wait=False) as daemon:
                    assert daemon.process.wait(60.0) == REFUSED
                    assert "nothing can be written there" in daemon.log_text()
                    tally.count("starts refused")


def garbage(dice: Random, good: bytes) -> bytes:
    """A file as a crash, a broken disk or somebody's mistake leaves it."""
    at = dice.randrange(len(good))
    kinds: tuple[Callable[[], bytes], ...] = (
        lambda: b"",
        lambda: dice.randbytes(4096),
        lambda: good[:at],
        lambda: good[:at] + dice.randbytes(64) + good[at + 64 :],
        lambda: good[:at] + bytes(len(good) - at),
        lambda: b"[" * 100000,
    )
    return dice.choice(kinds)()


def test_damaged_files_of_an_earlier_daemon_are_put_aside(fault: Fault, tmp_path: Path) -> None:
    told = "history and journal of threads are damaged at the start: cut off, empty, other bytes, zeros, nested"
    with fault("damaged-state", told, few=1, many=15) as tally, a_hog() as hog:
        state = tmp_path / "state"
        state.mkdir()
        settings = {**CALM, "state_directory": str(state)}
        with Balancerd(tmp_path / "first", NO_POLICY, overrides=settings) as daemon:
            moves_on(tally, daemon, hog)
            assert daemon.stop() == 0
        good = {"history.sqlite": (state / "history.sqlite").read_bytes(), "threads.json": JOURNAL}
        for number in tally.tries:
            with tally.trying():
                for path in state.iterdir():
                    path.unlink()
                for name in STATE_FILES:
                    (state / name).write_bytes(garbage(tally.dice, good[name]))
                    (state / name).chmod(0o600)
                with Balancerd(tmp_path / f"daemon-{number}", PINNING, overrides=settings) as daemon:
                    moves_on(tally, daemon, hog)
                    tally.count("said something of the journal", int("threads.json" in daemon.log_text()))
                    tally.count("said something of the history", len(daemon.log_lines("history")))
                    assert daemon.stop() == 0
                aside = [path.name for path in state.iterdir() if path.name not in STATE_FILES]
                tally.count("files put aside", len(aside))


JOURNAL = (
    b'{"form":"balancerd-threads","version":1,"boot":"x","daemon":[1,1],"threads":'
    b'[{"pid":1,"start":1,"tid":1,"tid_start":1,"before":"0-3","ours":"1","whole":true,"at":1}]}'
)

BROKEN = (  # in what no --set of a test takes the place of
    "mode: obsrve\n",
    "policies: [{name: a, kind: nobody}]\n",
    "evict: {rate_limit: 2}\n",
    "tick_interval: 2s\ntick_interval: 3s\n",
    "select: {min_rss: [\n",
    "\x00\x01\x02",
    "- a\n- b\n",
    "a: &a [*a]\n",
    "migrate: {rate_limit: -1MiB/s}\n",
    "mode: !!python/object/apply:os.system [true]\n",
    "x" * 70000,
    "[" * 5000,
)


def test_a_broken_configuration_is_refused_at_the_start_and_changes_nothing_at_reload(
    fault: Fault, tmp_path: Path
) -> None:
    told = "a broken configuration: refused at the start with its place, and at reload the old one stays"
    with (
        fault("broken-configuration", told, few=1, many=len(BROKEN)) as tally,
        a_hog() as hog,
        Balancerd(tmp_path / "running", NO_POLICY, overrides=CALM) as running,
    ):
        texts = [*BROKEN]
        tally.dice.shuffle(texts)
        for number in tally.tries:
            text = texts[number % len(texts)]
            with tally.trying():
                with Balancerd(tmp_path / f"start-{number}", text, overrides=CALM, wait=False) as daemon:
                    assert daemon.process.wait(60.0) == REFUSED, daemon.log_text()[-500:]
                    said = daemon.log_text()
                    assert f"{daemon.config}:" in said, said[-500:]
                    assert "Traceback" not in said
                running.config.write_text(text, encoding="utf-8")
                refuse(running)
                assert running.status()["mode"] == "enforce"
                moves_on(tally, running, hog)
        running.config.write_text(NO_POLICY, encoding="utf-8")
        running.reload(NO_POLICY)
        moves_on(tally, running, hog)


@pytest.mark.thorough
def test_a_damaged_trace_is_refused_with_its_place(fault: Fault, tmp_path: Path) -> None:
    told = "a recorded trace is damaged: balancerctl replay refuses it, or replays what is whole, and never crashes"
    trace = tmp_path / "trace.gz"
    with (
        fault("damaged-trace", told, few=2, many=20) as tally,
        Balancerd(tmp_path / "daemon", NO_POLICY, overrides=CALM) as daemon,
    ):
        done = daemon.balancerctl("record", str(trace), "--for", "3s")
        assert done.returncode == 0, done.stderr
        whole = trace.read_bytes()
        for number in tally.tries:
            with tally.trying():
                plain = gzip.decompress(whole)
                is_inside = tally.dice.random() < 0.5
                bad = gzip.compress(garbage(tally.dice, plain)) if is_inside else garbage(tally.dice, whole)
                path = tmp_path / f"bad-{number}.gz"
                path.write_bytes(bad)
                done = daemon.balancerctl("replay", str(path))
                said = done.stdout + done.stderr
                tally.count(f"exit status {done.returncode}")
                assert done.returncode in {0, 1, 5}, said[-500:]
                assert "Traceback" not in said, said[-1500:]
                if done.returncode == 1:
                    assert str(path) in said, said[-500:]
                path.unlink()
        tally.audit(daemon)
