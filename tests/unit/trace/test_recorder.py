"""A recording from the loop's side and from the client's: bounds, ends, and that neither waits for the other."""

import gzip
import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from balancerd import plugins
from balancerd.config.schema import Config, PolicyConfig, SelectConfig
from balancerd.model.copying import Copying, PairCopied
from balancerd.model.ids import NodeId, ProcessId
from balancerd.replaying import build_replay
from balancerd.trace import recorder as module
from balancerd.trace.form import ENDED_IN_TIME, LONGEST_SECONDS
from balancerd.trace.reader import TraceReader
from balancerd.trace.recorder import Recorder, RecordingRefusedError, Source
from balancerd.trace.replay import _ports
from balancerd.trace.stage import Stage
from balancerd.trace.tap import RawTick
from tests.traces.golden import replay
from tests.traces.recording import Recording
from tests.unit.fakes import FakeAccessWatch, FakeClock, FakeKernel, make_process
from tests.unit.reports import a_moving_report

CONFIG = Config(select=SelectConfig(min_age_seconds=0.0), policies=(PolicyConfig(name="home", kind="follow-cpu"),))


class Time:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def recorder(time: Time) -> Recorder:
    source = Source(version="1", kernel=(6, 1), config=CONFIG, own_pid=1)
    return Recorder(lambda: source, time, salt=lambda: b"s")


def a_tick(number: int = 7) -> RawTick:
    return RawTick(events=(), report=a_moving_report(number))


def a_recording(kernel: FakeKernel | None = None, **changes: object) -> Recording:
    clock = FakeClock() if kernel is None else kernel.clock
    kernel = kernel or FakeKernel(clock)
    kernel.add(make_process(300, run={0: 2.0}), {2: 256})
    kernel.add(make_process(310, run={1: 2.0}), {1: 512})
    return Recording(CONFIG, kernel, clock, access_watch=FakeAccessWatch(), **changes)  # type: ignore[arg-type]


def test_a_recording_begins_with_a_header_and_what_was_known_and_has_a_line_for_each_tick(recorder: Recorder) -> None:
    number = recorder.start(10.0)
    assert recorder.fetch(number).lines == ()
    recorder.offer(a_tick(7))
    recorder.offer(a_tick(8))
    piece = recorder.fetch(number)
    header, known, *ticks = map(json.loads, piece.lines)
    assert (header["format"], header["version"], header["kernel"]) == ("balancerd-trace", 1, [6, 1])
    assert len(header["topology"]["nodes"]) == len(a_moving_report(7).survey.topology.nodes)
    assert known == {"known": []}
    assert [tick["tick"] for tick in ticks] == [7, 8]
    assert (piece.ticks, piece.ended) == (2, None)
    recorder.offer(a_tick(9))
    assert [json.loads(line)["tick"] for line in recorder.fetch(number).lines] == [9]


def test_how_fast_memory_had_moved_is_in_the_header_and_a_replay_begins_with_it(
    recorder: Recorder, tmp_path: Path
) -> None:
    pair = PairCopied(source=NodeId(1), target=NodeId(0), copied_bytes=3e9, seconds=2.0)
    told = Copying(copied_bytes=4e9, seconds=2.5, pairs=(pair,))
    number = recorder.start(10.0)
    recorder.offer(replace(a_tick(8), before=replace(a_moving_report(7), copying=told)))
    path = tmp_path / "a.trace.gz"
    with gzip.open(path, "wt") as file:
        file.writelines(f"{line}\n" for line in recorder.fetch(number).lines)
    with TraceReader(path) as reader:
        header = reader.header
    assert header.copying == told
    ports = _ports(Stage())
    engine = build_replay(CONFIG, plugins.discover())(header, ports)
    assert engine._memory.copying.told() == told  # type: ignore[attr-defined]


def test_it_ends_when_its_time_is_over_and_what_came_before_can_be_fetched(recorder: Recorder, time: Time) -> None:
    number = recorder.start(10.0)
    recorder.offer(a_tick())
    time.seconds = 10.0
    recorder.offer(a_tick())
    assert not recorder.is_listening
    piece = recorder.fetch(number)
    assert (piece.ticks, piece.ended) == (1, ENDED_IN_TIME)


def test_it_ends_on_request_and_a_new_one_may_begin(recorder: Recorder) -> None:
    number = recorder.start(10.0)
    with pytest.raises(RecordingRefusedError, match="somebody else is recording"):
        recorder.start(10.0)
    recorder.stop(number)
    assert recorder.fetch(number).ended == "as asked"
    assert recorder.start(10.0) == number + 1
    for ask in (recorder.fetch, recorder.stop):
        with pytest.raises(RecordingRefusedError, match="there is no recording 1"):
            ask(number)


def test_another_configuration_ends_it(recorder: Recorder) -> None:
    recorder.end("nobody records")
    number = recorder.start(10.0)
    recorder.end("the configuration was loaded again")
    assert recorder.fetch(number).ended == "the configuration was loaded again"


def test_who_does_not_fetch_loses_the_recording_and_the_loop_keeps_no_more_than_the_bound(
    recorder: Recorder, time: Time
) -> None:
    number = recorder.start(1000.0)
    for second in range(module.MOST_TICKS + 5):
        time.seconds = second * 0.1
        recorder.offer(a_tick(second))
    assert not recorder.is_listening
    ticks = 0
    while (piece := recorder.fetch(number)).ended is None:
        ticks = piece.ticks
    assert (piece.ended, max(ticks, piece.ticks)) == (module.TOO_SLOW, module.MOST_TICKS)


def test_large_ticks_are_counted_by_what_they_hold(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_RECORDS", 1)
    number = recorder.start(1000.0)
    recorder.offer(a_tick(1))  # the first has room, however large
    recorder.offer(a_tick(2))
    assert recorder.fetch(number).ended == module.TOO_SLOW


def test_a_client_that_has_gone_is_waited_for_half_a_minute(recorder: Recorder, time: Time) -> None:
    recorder.start(1000.0)
    recorder.offer(a_tick())
    time.seconds = module.ABANDONED_SECONDS
    recorder.offer(a_tick())
    assert recorder.is_listening
    time.seconds += 1.0
    recorder.keep_time()
    assert not recorder.is_listening
    assert recorder.start(10.0) == 2


@pytest.mark.parametrize("seconds", [0.0, -1.0, LONGEST_SECONDS + 1, float("nan")])
def test_a_length_out_of_bounds_is_refused(recorder: Recorder, seconds: float) -> None:
    with pytest.raises(RecordingRefusedError, match="up to 24 hours"):
        recorder.start(seconds)


def test_a_tick_is_taken_while_lines_are_made_of_others(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop does not wait for whoever fetches: a fetch that hangs lets it go on."""
    number = recorder.start(1000.0)
    recorder.offer(a_tick(1))
    hangs, go_on = threading.Event(), threading.Event()
    whole: Callable[..., object] = module._begin

    def hang(*arguments: object) -> object:
        hangs.set()
        assert go_on.wait(20.0)
        return whole(*arguments)

    monkeypatch.setattr(module, "_begin", hang)
    fetching = threading.Thread(target=recorder.fetch, args=(number,))
    fetching.start()
    try:
        assert hangs.wait(20.0)
        recorder.offer(a_tick(2))
        recorder.keep_time()
    finally:
        go_on.set()
        fetching.join()


def test_a_failure_to_write_ends_the_recording_and_nothing_else(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("odd")

    number = recorder.start(10.0)
    recorder.offer(a_tick())
    monkeypatch.setattr(module, "_begin", fail)
    with pytest.raises(ValueError, match="odd"):
        recorder.fetch(number)
    assert not recorder.is_listening
    recorder.offer(a_tick())


def test_nothing_is_kept_while_nobody_records() -> None:
    recording = a_recording()
    recording.ticks(3)
    assert recording.lines == []
    assert recording.engine._tap.close() == ()


def test_a_recording_of_a_daemon_that_has_run_for_a_while_knows_what_was_known_when_it_began(tmp_path: Path) -> None:
    recording = a_recording()
    recording.ticks(10)
    recording.start()
    recording.ticks(30)
    run = replay(recording.write(tmp_path / "t"))
    ticks = list(run.ticks())
    assert [tick.number for tick in ticks] == list(range(11, 41))
    assert (run.summary.as_recorded, run.summary.last_other) == (30, None)
    assert run.summary.asked["samples of ticks before"] >= 2  # what the daemon knew when the recording began
    assert run.summary.missing["samples"]  # replay has forgotten that for long nothing had changed, and looks again


def test_two_recordings_one_after_the_other_are_both_whole(tmp_path: Path) -> None:
    recording = a_recording()
    for name in ("one", "two"):
        recording.start()
        recording.ticks(5)
        assert recording.number is not None
        recording.recorder.stop(recording.number)
        assert len(list(replay(recording.write(tmp_path / name)).ticks())) == 5
        recording.lines.clear()


def test_a_tick_that_fails_is_told_and_replayed_as_failed(tmp_path: Path) -> None:
    kernel = FakeKernel(FakeClock())
    recording = a_recording(kernel)
    recording.start()
    recording.ticks(3)
    survey = kernel.survey

    def fail(_scope: object) -> None:
        raise OSError("no")

    kernel.survey = fail  # type: ignore[method-assign,assignment]
    recording.tick()
    kernel.survey = survey  # type: ignore[method-assign]
    recording.ticks(3)
    run = replay(recording.write(tmp_path / "t"))
    ticks = list(run.ticks())
    assert [tick.failed for tick in ticks] == [None, None, None, "OSError", None, None, None]
    assert [tick.as_recorded for tick in ticks] == [True] * 7
    assert run.summary.failed == 1


def test_a_stop_in_the_middle_of_moving_is_replayed(tmp_path: Path) -> None:
    kernel = FakeKernel(FakeClock())
    recording = a_recording(kernel)
    recording.start()
    recording.ticks(3)
    recording.stopping = True
    recording.tick()
    run = replay(recording.write(tmp_path / "t"))
    ticks = list(run.ticks())
    assert all(tick.as_recorded for tick in ticks)
    assert any("stopping" in line for line in ticks[-1].lines) == any("step" in line for line in ticks[-1].lines)


def test_a_process_that_is_not_read_again_is_written_once() -> None:
    recording = a_recording()
    recording.start()
    recording.ticks(6)
    surveys = [event[2] for line in recording.lines[2:] for event in json.loads(line)["events"] if event[0] == "survey"]
    assert [len(survey["processes"]) for survey in surveys] == [2, 0, 0, 0, 0, 0]
    assert ["topology" in survey for survey in surveys] == [True, False, False, False, False, False]
    assert not any("order" in survey for survey in surveys)
    assert ProcessId(300, 1) not in surveys
