import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

import pytest

from balancerd.kernel.clock import MonotonicClock, boottime_seconds, process_cpu_seconds, thread_cpu_seconds


def test_a_wait_until_the_past_returns() -> None:
    clock = MonotonicClock()
    clock.wait_until(clock.now() - 5)
    clock.close()


def test_a_wait_lasts_until_its_deadline() -> None:
    clock = MonotonicClock()
    deadline = clock.now() + 0.01
    clock.wait_until(deadline)
    assert clock.now() >= deadline
    clock.close()


def test_another_thread_ends_a_wait() -> None:
    clock = MonotonicClock()
    threading.Timer(0.01, clock.wake).start()
    began = clock.now()
    clock.wait_until(began + 60)
    assert clock.now() - began < 30
    clock.close()


def test_a_wake_before_the_wait_is_not_lost_and_serves_once() -> None:
    clock = MonotonicClock()
    clock.wake()
    clock.wake()
    began = clock.now()
    clock.wait_until(began + 60)
    assert clock.now() - began < 30
    deadline = clock.now() + 0.01
    clock.wait_until(deadline)
    assert clock.now() >= deadline, "the second wake was the same as the first"
    clock.close()


@pytest.fixture
def usr1() -> Iterator[list[Callable[[], None]]]:
    """Call what the test puts into the list when SIGUSR1 arrives."""
    calls: list[Callable[[], None]] = []

    def handle(_signal: int, _frame: FrameType | None) -> None:
        for call in calls:
            call()

    before = signal.signal(signal.SIGUSR1, handle)
    yield calls
    signal.signal(signal.SIGUSR1, before)


def test_a_signal_handler_ends_a_wait(usr1: list[Callable[[], None]]) -> None:
    clock = MonotonicClock()
    usr1.append(clock.wake)
    threading.Timer(0.01, signal.pthread_kill, [threading.get_ident(), signal.SIGUSR1]).start()
    began = clock.now()
    clock.wait_until(began + 60)
    assert clock.now() - began < 30
    clock.close()


def test_a_signal_that_another_thread_takes_ends_a_wait_by_the_wake_up_descriptor(
    usr1: list[Callable[[], None]],
) -> None:
    clock = MonotonicClock()
    handled: list[str] = []
    usr1.append(lambda: handled.append("yes"))
    before = signal.set_wakeup_fd(clock.wake_fd)
    threading.Timer(0.01, signal.raise_signal, [signal.SIGUSR1]).start()
    began = clock.now()
    clock.wait_until(began + 60)
    signal.set_wakeup_fd(before)
    assert clock.now() - began < 30
    assert handled == ["yes"]
    clock.close()


def test_any_number_of_wakes_is_one() -> None:
    clock = MonotonicClock()
    for _ in range(70_000):
        clock.wake()
    clock.wait_until(clock.now() + 60)
    deadline = clock.now() + 0.01
    clock.wait_until(deadline)
    assert clock.now() >= deadline
    clock.close()


def test_boottime_counts_from_boot() -> None:
    assert boottime_seconds() >= time.monotonic() - 1


def test_the_cpu_time_of_a_process_is_what_it_has_used() -> None:
    mine = process_cpu_seconds(os.getpid())
    assert mine is not None
    assert mine <= time.process_time() <= mine + 1.0
    child = subprocess.Popen(["true"])
    child.wait()
    assert process_cpu_seconds(child.pid) is None


def test_threads_that_are_left_out_do_not_count_not_even_when_they_have_ended() -> None:
    clock = MonotonicClock()
    burnt, over = threading.Event(), threading.Event()
    own_seconds = list[float]()

    def serve() -> None:
        while time.thread_time() < 0.2:
            pass
        own_seconds.append(time.thread_time())
        burnt.set()
        over.wait()

    server = threading.Thread(target=serve)
    server.start()
    assert server.native_id is not None
    tid = server.native_id
    clock.leave_out(lambda: [tid])
    burnt.wait()
    alive = time.process_time() - clock.cpu_seconds()
    over.set()
    server.join()
    ended = time.process_time() - clock.cpu_seconds()
    clock.close()
    assert alive == pytest.approx(own_seconds[0], abs=0.05)
    assert ended == pytest.approx(own_seconds[0], abs=0.05)


def test_a_thread_of_another_process_has_no_time_here() -> None:
    assert thread_cpu_seconds(1) is None
    seconds = thread_cpu_seconds(threading.get_native_id())
    assert seconds is not None
    assert seconds == pytest.approx(time.thread_time(), abs=0.05)
