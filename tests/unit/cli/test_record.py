"""`balancerctl record` against a recorder behind a real control socket, and everything that can end it."""

import errno
import gzip
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from balancerd.cli import record as module
from balancerd.config.schema import Config
from balancerd.trace.recorder import Recorder, Source
from balancerd.trace.tap import RawTick
from tests.traces.golden import replay
from tests.unit.cli.conftest import Run, Serve
from tests.unit.cli.test_start import loaded_by
from tests.unit.control.daemon import Room, running
from tests.unit.reports import a_moving_report


class Daemon:
    """A control socket with a recorder, and a loop that ticks as fast as it can, and not at all with `ticks` = 0."""

    def __init__(self, folder: Path) -> None:
        self.socket = str(folder / "socket")
        source = Source(version="1", kernel=(6, 1), config=Config(policies=()), own_pid=1)
        self.recorder = Recorder(lambda: source, time.monotonic)
        self.room = Room(socket=Path(self.socket), recorder=self.recorder)
        self.ticks = 1_000_000
        self.number = 0
        self.on_tick: Callable[[int], None] = lambda _: None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _loop(self) -> None:
        while not self._stop.wait(0.02):
            if self.recorder.is_listening and self.number < self.ticks:
                self.number += 1
                self.recorder.offer(RawTick(events=(), report=a_moving_report(self.number)))
                self.on_tick(self.number)


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    monkeypatch.setattr(module, "POLL_SECONDS", 0.02)
    with Daemon(tmp_path) as found, running(found.room.server()):
        yield found


def lines_of(path: Path) -> list[Any]:
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


def test_it_writes_a_trace_that_only_its_owner_reads_until_its_time_is_over(
    daemon: Daemon, run: Run, tmp_path: Path
) -> None:
    path = tmp_path / "t"
    done = run("record", str(path), "--for", "300ms", "--json", socket=daemon.socket)
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["schema"], told["file"], told["ended"]) == (1, str(path), "its time is over")
    assert told["bytes"] == path.stat().st_size
    header, known, *ticks, end = lines_of(path)
    assert header["format"] == "balancerd-trace"
    assert known == {"known": []}
    assert [tick["tick"] for tick in ticks] == list(range(1, told["ticks"] + 1))
    assert end == {"end": "its time is over"}
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_it_wrote_is_told_in_a_line(daemon: Daemon, run: Run, tmp_path: Path) -> None:
    done = run("record", str(tmp_path / "t"), "--for", "200ms", socket=daemon.socket)
    assert done.exit_code == 0
    assert done.stdout.startswith(f"{tmp_path}/t: ")
    assert done.stdout.endswith("ended: its time is over\n")


def test_ctrl_c_ends_it_cleanly(daemon: Daemon, run: Run, tmp_path: Path) -> None:
    daemon.on_tick = lambda number: os.kill(os.getpid(), signal.SIGINT) if number == 5 else None
    done = run("record", str(tmp_path / "t"), "--json", socket=daemon.socket)
    assert done.exit_code == 130
    assert json.loads(done.stdout)["ended"] == "interrupted"
    assert lines_of(tmp_path / "t")[-1] == {"end": "interrupted"}
    assert not daemon.recorder.is_listening


def test_it_ends_when_the_file_is_large_enough(
    daemon: Daemon, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LEAST_BYTES", 1)
    done = run("record", str(tmp_path / "t"), "--max-size", "4KiB", "--json", socket=daemon.socket)
    assert done.exit_code == 0
    assert json.loads(done.stdout)["ended"] == "the file has reached 4KiB"
    assert 4096 <= (tmp_path / "t").stat().st_size < 64 * 1024
    assert not daemon.recorder.is_listening


def test_a_full_disk_ends_it_and_what_is_there_can_be_replayed(
    daemon: Daemon, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "t"
    whole = module._File.add

    def add(self: Any, lines: Any) -> None:
        for line in lines:
            if self.ticks == 3:
                raise OSError(errno.ENOSPC, "No space left on device")
            whole(self, (line,))

    monkeypatch.setattr(module._File, "add", add)
    done = run("record", str(path), socket=daemon.socket)
    assert done.exit_code == 1
    assert f"{path} cannot be written: No space left on device; recorded until then: 3 ticks" in done.stderr
    assert not daemon.recorder.is_listening
    replayed = replay(path)
    assert len(list(replayed.ticks())) == 3
    assert (replayed.summary.ticks, replayed.summary.ended) == (3, None)


def test_a_daemon_that_ends_it_is_a_failure(daemon: Daemon, run: Run, tmp_path: Path) -> None:
    daemon.on_tick = lambda number: daemon.recorder.end("the configuration was loaded again") if number == 3 else None
    done = run("record", str(tmp_path / "t"), "--json", socket=daemon.socket)
    assert done.exit_code == 1
    assert json.loads(done.stdout)["ended"] == "the configuration was loaded again"


def test_without_a_tick_there_is_no_file(daemon: Daemon, run: Run, tmp_path: Path) -> None:
    daemon.ticks = 0
    done = run("record", str(tmp_path / "t"), "--for", "100ms", socket=daemon.socket)
    assert done.exit_code == 1
    assert "nothing was recorded, no tick has ended: its time is over" in done.stderr
    assert not (tmp_path / "t").exists()


def test_a_file_that_exists_is_not_touched(daemon: Daemon, run: Run, tmp_path: Path) -> None:
    (tmp_path / "t").write_text("mine")
    done = run("record", str(tmp_path / "t"), socket=daemon.socket)
    assert done.exit_code == 1
    assert "exists already" in done.stderr
    assert (tmp_path / "t").read_text() == "mine"
    assert daemon.number == 0


def test_where_nothing_can_be_written_the_daemon_is_not_asked(daemon: Daemon, run: Run, tmp_path: Path) -> None:
    done = run("record", str(tmp_path / "no" / "t"), socket=daemon.socket)
    assert (done.exit_code, daemon.number) == (1, 0)
    assert "No such file or directory" in done.stderr


def test_nobody_there_is_status_3_and_leaves_no_file(run: Run, tmp_path: Path) -> None:
    assert run("record", str(tmp_path / "t")).exit_code == 3
    assert not (tmp_path / "t").exists()


def test_who_may_not_record_is_told_so(serve: Serve, run: Run, tmp_path: Path) -> None:
    answers = {"/v1/recordings": (403, {"schema": 1, "error": "only root may"})}
    done = run("record", str(tmp_path / "t"), socket=serve(answers))
    assert done.exit_code == 4
    assert not (tmp_path / "t").exists()


@pytest.mark.parametrize("options", [["--for", "10"], ["--for", "x"], ["--max-size", "1"], ["--max-size", "4KiB"]])
def test_a_value_without_its_unit_or_out_of_bounds_is_wrong_usage(run: Run, tmp_path: Path, options: list[str]) -> None:
    assert run("record", str(tmp_path / "t"), *options).exit_code == 2
    assert not (tmp_path / "t").exists()


def test_recording_imports_nothing_heavy(tmp_path: Path) -> None:
    assert loaded_by("--socket", str(tmp_path / "nobody"), "record", str(tmp_path / "t")) == (3, set())
