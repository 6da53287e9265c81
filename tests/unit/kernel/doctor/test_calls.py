"""The doctor's tries of the calls beside move_pages: for real here, and against a kernel that refuses."""

import errno
import os
from pathlib import Path

import pytest

from balancerd.kernel.doctor import calls
from balancerd.kernel.doctor.files import CheckStatus
from tests.unit.kernel.doctor.test_probes import ALL_CAPABILITIES, NO_CAPABILITY, tree


class Refusing:
    """Calls that fail with a number of errno: all of them, or only those about one process."""

    def __init__(self, number: int, *, of_process: dict[int, int] | None = None) -> None:
        self.number = number
        self.of_process = of_process
        self.asked: list[int] = []

    def set_affinity(self, pid: int) -> None:
        self.asked.append(pid)
        self._fail(self.number if self.of_process is None else self.of_process.get(pid, 0))

    def advise_cold(self, pidfd: int) -> None:
        assert pidfd >= 0
        self._fail(self.number)

    def migrate_to_same(self, pid: int) -> None:
        assert pid == 0
        self._fail(self.number)

    def _fail(self, number: int) -> None:
        if number:
            raise OSError(number, os.strerror(number))


def test_the_real_calls_change_nothing_and_work_here() -> None:
    real = calls.RealCalls()
    before = os.sched_getaffinity(0)
    for check in (calls.own_affinity(real), calls.process_madvise(real), calls.migrate_pages(real)):
        assert check.status in {CheckStatus.OK, CheckStatus.WARNING}  # a container's filter may refuse them
    assert os.sched_getaffinity(0) == before
    assert real._page[0] == 1


@pytest.mark.parametrize(("number", "hint"), [(errno.EPERM, "@system-service"), (errno.ENOSYS, "boot a newer kernel")])
def test_a_refusal_says_what_is_lost_and_how_to_allow_it(number: int, hint: str) -> None:
    kernel = Refusing(number)
    lost = {
        "set-affinity": "the policy threads",
        "process-madvise": "cold-eviction",
        "migrate-pages": "move --whole",
    }
    for check in (calls.own_affinity(kernel), calls.process_madvise(kernel), calls.migrate_pages(kernel)):
        assert check.status is CheckStatus.WARNING
        assert errno.errorcode[number] in check.seen
        assert lost[check.name] in check.seen
        assert hint in (check.fix or "")


@pytest.mark.parametrize(
    ("of_process", "capabilities", "status", "seen", "asked"),
    [
        ({}, NO_CAPABILITY, "ok", "threads of other users can be moved", [7]),
        ({7: errno.ESRCH}, NO_CAPABILITY, "ok", "can be moved", [7, 8]),
        ({7: errno.EINVAL}, NO_CAPABILITY, "ok", "can be moved", [7, 8]),
        ({7: errno.ESRCH, 8: errno.ESRCH}, NO_CAPABILITY, "unknown", "no other process", [7, 8]),
        ({7: errno.EPERM}, NO_CAPABILITY, "warning", "the affinity of process 7 may not be set", [7]),
        ({7: errno.EPERM}, ALL_CAPABILITIES, "warning", "though CAP_SYS_NICE is in effect", [7]),
        ({7: errno.ENOSYS}, ALL_CAPABILITIES, "warning", "ENOSYS", [7]),
    ],
)
def test_anothers_affinity_is_tried_until_one_answers(
    tmp_path: Path, of_process: dict[int, int], capabilities: str, status: str, seen: str, asked: list[int]
) -> None:
    kernel = Refusing(0, of_process=of_process)
    check = calls.other_affinity(kernel, (7, 8), tree(tmp_path, {"proc/self/status": capabilities}))
    assert (check.status, kernel.asked) == (status, asked)
    assert seen in check.seen
    assert (check.fix is not None) == (status == "warning")
