"""A few threads that do what they are given."""

import threading
import time

from balancerd.control.crew import Crew

PATIENCE_SECONDS = 10.0


def test_what_fails_is_told_and_its_thread_goes_on() -> None:
    failed, done = threading.Event(), threading.Event()
    crew = Crew(1, name="crew", on_error=failed.set)
    crew.start()
    crew.do(lambda: print(1 / 0))
    crew.do(done.set)
    assert failed.wait(PATIENCE_SECONDS)
    assert done.wait(PATIENCE_SECONDS)
    crew.stop(PATIENCE_SECONDS)


def test_as_many_work_at_a_time_as_there_are_threads_and_these_are_known() -> None:
    seen: set[int] = set()
    both = threading.Barrier(3)

    def meet() -> None:
        seen.add(threading.get_native_id())
        both.wait(PATIENCE_SECONDS)

    crew = Crew(2, name="crew", on_error=lambda: None)
    assert crew.thread_ids == set()
    crew.start()
    for _ in range(2):
        crew.do(meet)
    both.wait(PATIENCE_SECONDS)
    crew.stop(PATIENCE_SECONDS)
    assert crew.thread_ids == seen


def test_stopping_waits_for_what_is_being_done_but_not_for_ever() -> None:
    crew = Crew(1, name="crew", on_error=lambda: None)
    crew.start()
    going_on, done = threading.Event(), threading.Event()

    def work() -> None:
        going_on.wait(PATIENCE_SECONDS)
        done.set()

    crew.do(work)
    began = time.monotonic()
    crew.stop(0.1)
    assert 0.1 <= time.monotonic() - began < PATIENCE_SECONDS / 2
    going_on.set()
    crew.stop(PATIENCE_SECONDS)
    assert done.is_set()
