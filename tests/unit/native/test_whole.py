"""migrate_pages(2) as far as one node can show it; the process that does move is in tests/lab."""

import errno
import os

import pytest

from balancerd.native import migrate_process
from tests.unit.native.memory import child, kernel_thread, needs_root, own_node, without_privileges

NODE = own_node()


def errno_of(pid: int, sources: list[int], targets: list[int]) -> int | None:
    with pytest.raises(OSError, match=r"\[Errno") as raised:
        migrate_process(pid, sources, targets)
    return raised.value.errno


def test_from_a_node_to_itself_no_page_stays_behind() -> None:
    with child(pages=64, touched=64) as other:
        assert migrate_process(other.process.pid, [NODE], {NODE}) == 0


def test_a_process_that_is_gone_is_esrch() -> None:
    with child(pages=1, touched=1) as other:
        pid = other.process.pid
    assert errno_of(pid, [NODE], [NODE]) == errno.ESRCH


@needs_root
def test_a_process_of_another_user_is_eperm() -> None:
    with child(pages=1, touched=1) as other:
        pid = other.process.pid
        assert without_privileges(lambda: errno_of(pid, [NODE], [NODE])) == errno.EPERM


@pytest.mark.parametrize("targets", [[], [999], [-1], [1024]])
def test_targets_that_are_no_nodes_with_memory_are_einval(targets: list[int]) -> None:
    assert errno_of(os.getpid(), [NODE], targets) == errno.EINVAL


@pytest.mark.parametrize("pid", [0, -1])
def test_a_pid_that_names_no_single_process_is_einval(pid: int) -> None:
    assert errno_of(pid, [NODE], [NODE]) == errno.EINVAL


def test_a_kernel_thread_is_einval() -> None:
    assert errno_of(kernel_thread(), [NODE], [NODE]) == errno.EINVAL
