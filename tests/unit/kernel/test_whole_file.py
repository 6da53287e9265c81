"""What is written is there whole or not at all: at every step something fails, or the process is killed."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from balancerd.kernel.affinity.journal import NAME, Journal
from balancerd.kernel.whole_file import replace_file
from tests.unit.kernel.affinity.test_journal import ENTRY, OTHER

ERRORS = (errno.ENOSPC, errno.EROFS, errno.EIO, errno.EDQUOT)
os_open = os.open
STEPS = ("open", "fdopen", "fsync", "replace")


class Failing:
    """A function of os that fails once, when it is called for the `turn`th time; open only for the new file."""

    def __init__(self, function: Callable[..., Any], code: int, turn: int = 1) -> None:
        self._function, self._code, self._left = function, code, turn

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        self._left -= self._function is not os_open or str(arguments[0]).endswith(".new")
        if self._left == 0:
            raise OSError(self._code, os.strerror(self._code))
        return self._function(*arguments, **keywords)


@pytest.mark.parametrize("code", ERRORS)
@pytest.mark.parametrize("step", STEPS)
def test_when_a_step_fails_the_old_journal_stays_and_the_next_one_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, code: int
) -> None:
    journal = Journal(tmp_path)
    journal.write((ENTRY,))
    with monkeypatch.context() as patch:
        patch.setattr(os, step, Failing(getattr(os, step), code))
        with pytest.raises(OSError, match=os.strerror(code)):
            journal.write((ENTRY, OTHER))
    assert journal.read() == (ENTRY,)
    if step != "fdopen":
        assert [path.name for path in tmp_path.iterdir()] == [NAME]
    journal.write((OTHER,))
    assert journal.read() == (OTHER,)
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_when_only_its_name_does_not_reach_the_disk_the_new_one_is_there_and_the_error_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    monkeypatch.setattr(os, "fsync", Failing(os.fsync, errno.EIO, turn=2))
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        replace_file(path, b"new", beside=tmp_path / "beside", mode=0o600)
    assert path.read_bytes() == b"new"


def test_what_somebody_has_put_beside_is_not_written_to(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    for make in (Path.symlink_to, Path.hardlink_to):
        beside = tmp_path / "beside"
        make(beside, victim)
        with pytest.raises(FileExistsError):
            replace_file(tmp_path / "file", b"new", beside=beside, mode=0o600)
        beside.unlink()
    assert victim.read_bytes() == b"precious"
    assert not (tmp_path / "file").exists()


KILLED = """
import os, signal, sys
from pathlib import Path
from balancerd.kernel import whole_file

folder = Path(sys.argv[1])
path, data = folder / "file", b"new" * 100_000
names = ("open", "fdopen", "fsync", "replace", "close")
step = 0

def stepping(function, last):
    def call(*arguments, **keywords):
        global step
        step += 1
        if step == last:
            os.kill(os.getpid(), signal.SIGKILL)
        done = function(*arguments, **keywords)
        step += 1
        if step == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return done
    return call

for last in range(1, 100):
    path.write_bytes(b"old")
    beside = folder / "beside"
    beside.unlink(missing_ok=True)
    pid = os.fork()
    if pid == 0:
        for name in names:
            setattr(os, name, stepping(getattr(os, name), last))
        whole_file.replace_file(path, data, beside=beside, mode=0o600)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    found = path.read_bytes()
    assert found in (b"old", data), found[:100]
    print("new" if found == data else "old")
    if status == 0:
        break
    assert os.WTERMSIG(status) == signal.SIGKILL, status
else:
    raise AssertionError("it never came to its end")
"""


def test_a_process_that_is_killed_before_or_after_any_step_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = done.stdout.split()
    assert told == sorted(told, reverse=True)  # from some step on it is the new one
    assert told.count("old") >= 6
    assert told.count("new") >= 5


FULL = """
import resource, signal, sys
from pathlib import Path
from balancerd.kernel.affinity.journal import Journal
from tests.unit.kernel.affinity.test_journal import ENTRY, OTHER

journal = Journal(Path(sys.argv[1]))
journal.write((ENTRY,))
resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))
signal.signal(signal.SIGXFSZ, getattr(signal, sys.argv[2]))
try:
    journal.write((ENTRY, OTHER) * 50)
except OSError as error:
    print(error.errno)
"""


@pytest.mark.parametrize(
    ("action", "code", "told"), [("SIG_IGN", 0, str(errno.EFBIG)), ("SIG_DFL", -signal.SIGXFSZ, "")]
)
def test_a_write_that_the_kernel_cuts_short_leaves_the_old_journal(
    tmp_path: Path, action: str, code: int, told: str
) -> None:
    command = [sys.executable, "-c", FULL, str(tmp_path), action]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (code, told), done.stderr
    assert Journal(tmp_path).read() == (ENTRY,)
    Journal(tmp_path).write((OTHER,))
    assert [path.name for path in tmp_path.iterdir()] == [NAME]
