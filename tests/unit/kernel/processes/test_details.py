"""The small files of a process, and how long each is believed."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from balancerd.kernel.errors import BlockedError
from balancerd.kernel.processes.details import DetailReader, Details
from balancerd.kernel.processes.process_files import ProcessFiles
from balancerd.kernel.processes.status import parse_cmdline
from balancerd.model.ids import ProcessId
from balancerd.ports import SurveyScope
from tests.unit.kernel.trees import MACHINES, write_tree
from tests.unit.native.memory import needs_root, without_privileges

T = TypeVar("T")
SCOPE = SurveyScope(min_rss_bytes=1, min_cpu_cores=0.1, read_exe=True, read_cmdline=True)


@pytest.fixture
def real() -> Iterator[ProcessFiles]:
    files = ProcessFiles()
    yield files
    files.close()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"/bin/a\0-x\0two words\0", "/bin/a -x two words"),
        (b"", ""),
        (b"renamed itself", "renamed itself"),
        (b"a\0\0b\0\0", "a  b"),
        (b"\xff\0", r"\xff"),
    ],
)
def test_a_command_line_is_told_with_spaces(text: bytes, expected: str) -> None:
    assert parse_cmdline(text) == expected


def test_program_and_command_line_of_a_real_process(real: ProcessFiles) -> None:
    argument = "y" * 5000
    code = "import sys; print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-ISE", "-c", code, argument]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert real.exe(process.pid) == str(Path(sys.executable).resolve())
        assert real.cmdline(process.pid) == " ".join(command)[:4096]
        process.communicate()
    with pytest.raises(FileNotFoundError):
        real.exe(process.pid)


@needs_root
def test_a_program_that_we_may_not_know_is_unknown(real: ProcessFiles) -> None:
    assert without_privileges(lambda: real.exe(1)) is None
    assert real.exe(os.getpid()) is not None


def test_what_cannot_be_read_is_unknown_and_the_rest_is_not_harmed(tmp_path: Path) -> None:
    exhibit = MACHINES / "four-nodes-6.12/proc/exhibit"
    write_tree(tmp_path, {"7/status": (exhibit / "status").read_bytes(), "7/cgroup": b"nonsense", "7/cmdline": b""})
    files = ProcessFiles(str(tmp_path))
    details = DetailReader(files).read(ProcessId(7, 1), "x", SCOPE, now=1.0)
    assert (details.cgroup, details.exe, details.cmdline) == (None, None, None)
    assert details.mems_allowed is not None
    assert DetailReader(files).read(ProcessId(8, 1), "x", SCOPE, now=1.0) == Details()
    files.close()


def test_each_answer_is_believed_for_its_time_or_until_the_name_changes(tmp_path: Path) -> None:
    files = ProcessFiles(str(tmp_path))
    reader = DetailReader(files)

    def read(second: int, comm: str = "x") -> tuple[int | None, str | None, str | None]:
        status = f"Name:\tx\nUid:\t{second}\t{second}\t0\t0\n"
        write_tree(tmp_path, {"7/status": status, "7/cgroup": f"0::/{second}\n", "7/cmdline": f"{second}\0"})
        details = reader.read(ProcessId(7, 1), comm, SCOPE, now=float(second))
        return details.uid, details.cgroup, details.cmdline

    assert read(0) == (0, "/0", "0")
    assert read(9) == (0, "/0", "0")
    assert read(10) == (10, "/0", "0")
    assert read(30) == (30, "/30", "0")
    assert read(31, comm="y") == (31, "/31", "31")
    reader.forget(7)
    assert read(32, comm="y") == (32, "/32", "32")
    files.close()


def test_a_command_line_is_waited_for_with_patience_once_and_not_for_ever(tmp_path: Path) -> None:
    class Patience:
        def __init__(self) -> None:
            self.asked: list[ProcessId] = []
            self.is_blocked = True

        def read(self, process: ProcessId, read: Callable[[], T]) -> T:
            self.asked.append(process)
            if self.is_blocked:
                raise BlockedError("no answer within 100 ms")
            return read()

    files = ProcessFiles(str(tmp_path))
    write_tree(tmp_path, {"7/cmdline": b"a\0b\0"})
    patience, process = Patience(), ProcessId(7, 1)
    reader = DetailReader(files, patience)
    assert reader.read(process, "x", SCOPE, now=1.0).cmdline is None
    patience.is_blocked = False
    assert [reader.read(process, "x", SCOPE, now=now).cmdline for now in (2.0, 3.0)] == ["a b", "a b"]
    assert patience.asked == [process, process]
    files.close()
