from pathlib import Path

import pytest

from balancerd.kernel.errors import ProcessGoneError
from balancerd.kernel.processes.identity import HeldProcess, read_start_ticks
from balancerd.model.ids import ProcessId
from tests.unit.kernel.children import child
from tests.unit.kernel.trees import proc_tree, stat_line

NOBODY = 2**22 - 1  # beyond the largest pid that a default kernel.pid_max gives out


def test_a_held_process_is_alive_until_it_exits() -> None:
    with child() as (process, id_), HeldProcess(id_) as held:
        assert held.alive()
        process.kill()
        process.wait()
        assert not held.alive()


def test_a_pid_without_a_process_is_gone() -> None:
    with pytest.raises(ProcessGoneError, match=f"no process has pid {NOBODY}"), HeldProcess(ProcessId(NOBODY, 1)):
        pass
    with pytest.raises(ProcessGoneError):
        read_start_ticks(NOBODY)


def test_another_process_with_the_same_pid_is_told_apart_by_its_start_time() -> None:
    with child() as (_, id_):
        other = ProcessId(id_.pid, id_.start_ticks - 1)
        with pytest.raises(ProcessGoneError, match=f"started at tick {id_.start_ticks}"), HeldProcess(other):
            pass


def test_a_zombie_is_gone_though_its_files_are_still_there() -> None:
    with child() as (process, id_):
        process.kill()
        process_exited_unreaped = Path(f"/proc/{id_.pid}/stat")
        while b") Z " not in process_exited_unreaped.read_bytes():
            pass
        with pytest.raises(ProcessGoneError, match="has exited"), HeldProcess(id_):
            pass


def test_the_start_time_is_read_below_the_given_root(tmp_path: Path) -> None:
    procfs = proc_tree(tmp_path, {5: {"stat": stat_line(5, "x", start_ticks=77)}})
    assert read_start_ticks(5, str(procfs)) == 77
