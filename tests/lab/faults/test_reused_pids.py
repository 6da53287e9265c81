"""A process is gone, and another one has its pid, with memory at the same addresses: nothing of that may move."""

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from balancerd.model.decision import Reason
from tests.lab.faults.asking import CALM, NO_POLICY, ask, largest_mapping, pages_off, settle
from tests.lab.faults.conftest import Fault
from tests.lab.faults.tally import Tally
from tests.lab.live import WatchedCore, carry_out, live_kernel, step_of
from tests.lab.service import Balancerd
from tests.lab.workloads import Hog, binary, mib_by_node

pytestmark = pytest.mark.topology("four-nodes")

MIB = 16
SOURCE, TARGET = 2, 0
PID_MAX = Path("/proc/sys/kernel/pid_max")
FEW_PIDS = "700"
FIRST_PID = 310
"""Pids below 300 are given once and never again (RESERVED_PIDS in kernel/pid.c)."""

AT_THE_SAME_ADDRESSES = ("setarch", "-R")


class Heir(Hog):
    """A hog with the pid of somebody who is gone; all of its memory is where it runs."""

    def __init__(self, pid: int) -> None:
        self.taken = pid
        prefix = (str(binary("heir")), str(pid))
        super().__init__("base", MIB, touch_cpu=SOURCE, spin_cpu=SOURCE, busy_percent=5, prefix=prefix)

    @property
    def pid(self) -> int:
        """The pid that it has taken."""
        return self.taken


@pytest.fixture
def few_pids() -> Iterator[None]:
    """The kernel comes round to a pid soon."""
    before = PID_MAX.read_text(encoding="ascii")
    PID_MAX.write_text(FEW_PIDS, encoding="ascii")
    free = next(pid for pid in range(FIRST_PID, int(FEW_PIDS)) if not Path(f"/proc/{pid}").exists())  # of threads, too
    subprocess.run([binary("heir"), str(free), "true"], check=True)
    yield
    PID_MAX.write_text(before, encoding="ascii")


def victim(stack: ExitStack) -> Hog:
    return stack.enter_context(
        Hog("base", MIB, touch_cpu=SOURCE, spin_cpu=TARGET, busy_percent=5, prefix=AT_THE_SAME_ADDRESSES)
    )


def wait_for_a_beginning(daemon: Balancerd, hog: Hog) -> None:
    """Wait until some of its memory has moved."""
    daemon.wait_for(lambda: mib_by_node(hog.pid).get(TARGET, 0.0) > 2.0, 60.0, "a beginning")


def take_over(stack: ExitStack, hog: Hog) -> Heir:
    """End a process, and have another one take its pid."""
    hog.process.kill()
    hog.process.wait()
    return stack.enter_context(Heir(hog.pid))


def look_after(tally: Tally, heir: Heir, span: tuple[int, int]) -> None:
    """Its memory is where it was, whole, and lies where that of the one before has been."""
    if largest_mapping(heir.pid) == span:
        tally.count("had its memory at the same addresses")
    tally.stay(pages_off(heir.pid, SOURCE))
    tally.verify(heir.end(), MIB * 256)


@pytest.mark.usefixtures("few_pids")
def test_a_step_moves_nothing_of_who_has_the_pid_by_now(fault: Fault) -> None:
    told = "another process gets the pid between the decision and the move, or between two calls of a move"
    with fault("reused-pid", told, few=2, many=100) as tally:
        for number in tally.tries:
            with tally.trying(), ExitStack() as stack:
                hog = victim(stack)
                span, heirs = largest_mapping(hog.pid), list[Heir]()
                take_over_after = 0 if number % 2 == 0 else tally.dice.randint(1, 4)

                def after(_done: object, *, hog: Hog = hog, left: list[int] = [take_over_after]) -> None:  # noqa: B006
                    left[0] -= 1
                    if left[0] == 0:
                        heirs.append(take_over(stack, hog))  # noqa: B023 - called in this round only

                kernel = live_kernel(WatchedCore(after=after), stall_target_seconds=0.004)
                step = step_of(hog.pid, [span], TARGET)
                if not take_over_after:
                    heirs.append(take_over(stack, hog))
                outcome = carry_out(kernel, step)
                assert heirs, "nobody had taken the pid before the step was over"
                tally.lose(outcome.submitted_pages, sum(outcome.pages.values()))
                tally.count("before the first call" if not take_over_after else "between two calls")
                tally.count("pages moved before", outcome.moved_pages)
                look_after(tally, heirs[0], span)
                assert outcome.stopped_by is Reason.EXITED, outcome
                assert (outcome.moved_pages > 0) == bool(take_over_after)


@pytest.mark.usefixtures("few_pids")
@pytest.mark.thorough
def test_the_daemon_moves_nothing_of_who_has_the_pid_by_now(fault: Fault, tmp_path: Path) -> None:
    told = "another process gets the pid at any moment of a move by the daemon"
    overrides = {**CALM, "migrate.process_rate_limit": "16MiB/s"}
    with (
        fault("reused-pid-daemon", told, few=2, many=10) as tally,
        Balancerd(tmp_path, NO_POLICY, overrides=overrides) as daemon,
    ):
        for _ in tally.tries:
            with tally.trying(), ExitStack() as stack:
                hog = victim(stack)
                span = largest_mapping(hog.pid)
                job = ask(daemon, hog.pid, TARGET)
                if tally.dice.random() < 0.8:
                    wait_for_a_beginning(daemon, hog)
                heir = take_over(stack, hog)
                settle(tally, daemon, job)
                daemon.wait_ticks(2)
                look_after(tally, heir, span)
                tally.audit(daemon)
