"""The more processes there are, the less often each is read: reading them stays within its part of the scan budget."""

import pytest

from balancerd.kernel.processes.turns import LONGEST_SECONDS, BusyCpus, TurnKeeper, Turns
from balancerd.native.records import ProcessSurvey


def a_pass(*, processes: int, read: int, kernel_threads: int = 0) -> ProcessSurvey:
    return ProcessSurvey(
        rows=(),
        dropped=(),
        processes=processes,
        kernel_threads=kernel_threads,
        read=read,
        vanished=0,
        unreadable=0,
        kept_descriptors=0,
        duration_seconds=0.0,
    )


def keeper(processes: int, cost_us: float, kernel_threads: int = 0) -> TurnKeeper:
    made = TurnKeeper()
    made.note(a_pass(processes=processes, read=1000, kernel_threads=kernel_threads), 1000 * cost_us * 1e-6)
    return made


def test_few_processes_are_read_as_often_as_ever() -> None:
    assert keeper(300, 10).turns(50, 0.005) == Turns()
    assert TurnKeeper().turns(50, 0.005) == Turns()
    assert keeper(100_000, 10).turns(50, None) == Turns()


@pytest.mark.parametrize("n", [1_000, 5_000, 10_000])
def test_what_many_cost_stays_within_its_part_of_the_budget(n: int) -> None:
    cost, budget, n_large = 10e-6, 0.005, n // 5
    turns = keeper(n, 10).turns(n_large, budget)
    assert (n - n_large) * cost / turns.small_seconds <= 0.25 * budget + 1e-12
    assert n_large * cost / turns.idle_seconds <= 0.25 * budget + 1e-12
    assert n * cost / 10 / turns.listing_seconds <= 0.15 * budget + 1e-12
    assert turns.kernel_seconds >= turns.small_seconds


def test_turns_come_at_last_however_many_there_are() -> None:
    turns = keeper(10**6, 100).turns(10**5, 0.0001)
    assert {turns.listing_seconds, turns.idle_seconds, turns.small_seconds} == {LONGEST_SECONDS}


def test_kernel_threads_are_not_small_processes() -> None:
    assert keeper(5000, 10, kernel_threads=4900).turns(0, 0.005) == Turns(listing_seconds=pytest.approx(5000 / 750))  # type: ignore[arg-type]


def test_a_pass_that_read_few_says_nothing_of_the_cost_and_one_does_not_say_it_all() -> None:
    made = keeper(5000, 10)
    before = made.turns(0, 0.005)
    made.note(a_pass(processes=5000, read=31), 31.0)
    assert made.turns(0, 0.005) == before
    made.note(a_pass(processes=5000, read=100), 100 * 20e-6)
    assert made.turns(0, 0.005).small_seconds == pytest.approx(before.small_seconds * 1.2)


def test_when_somebody_is_at_work_idle_ones_are_read_as_soon_as_the_budget_allows() -> None:
    assert TurnKeeper().turns(50, 0.005, at_work=True) == Turns(idle_seconds=0.0)
    assert keeper(300, 10).turns(0, 0.005, at_work=True) == Turns(idle_seconds=0.0)
    assert keeper(300, 10).turns(50, 0.005, at_work=True) == Turns(idle_seconds=pytest.approx(0.4))  # type: ignore[arg-type]
    assert keeper(5000, 10).turns(5000, 0.005, at_work=True) == keeper(5000, 10).turns(5000, 0.005)


def rises(*busy: float | None, seconds: float = 2.0) -> list[bool]:
    """What is said at each look, with so many CPUs busy before it."""
    cpus = BusyCpus()
    return [cpus.rose(100.0 + number * seconds, cores) for number, cores in enumerate(busy)]


@pytest.mark.parametrize(
    ("busy", "said"),
    [
        pytest.param([None, 0, 1, 1, 1], [0, 0, 1, 1, 0], id="one more, told twice"),
        pytest.param([None, 1, 1, 2], [0, 0, 0, 1], id="nobody knows what was before the first look"),
        pytest.param([None, 0, 0.09, 0.11], [0, 0, 0, 1], id="by and by"),
        pytest.param([None, 3, 1, 2], [0, 0, 0, 1], id="one goes, another comes"),
        pytest.param([None, 0, 0.3, 2, 2, 2], [0, 0, 1, 1, 1, 0], id="the rest of an interval, then a whole one"),
        pytest.param([None, 40, 41.9, 40, 42.1], [0, 0, 0, 0, 1], id="many that go up and down"),
        pytest.param([None, 0, None, 1, None], [0, 0, 0, 1, 0], id="a load that is not known each time"),
    ],
)
def test_a_rise_is_told(busy: list[float | None], said: list[int]) -> None:
    assert rises(*busy) == [bool(each) for each in said]


def test_looks_that_follow_at_once_say_nothing_and_lose_nothing() -> None:
    assert rises(None, 0, 4, seconds=0.05) == [False] * 3
    cpus = BusyCpus()
    told = [cpus.rose(now, busy) for now, busy in ((0.0, None), (1.0, 0.0), (1.05, 4.0), (2.0, 3.0))]
    assert told == [False, False, False, True]


def test_threads_are_read_within_their_part_of_the_budget_but_some_always() -> None:
    made = TurnKeeper()
    assert made.most_threads(2.0, 0.005) is None
    made.note_threads(1000, 0.010)
    assert made.most_threads(2.0, 0.005) == 250
    assert made.most_threads(1000.0, 0.005) == 1250
    assert made.most_threads(0.1, 0.005) == 128
    assert made.most_threads(2.0, 1.0) == 50_000
    assert made.most_threads(2.0, None) is None
    assert made.most_threads(None, 0.005) is None
    made.note_threads(31, 31.0)
    assert made.most_threads(2.0, 0.005) == 250
