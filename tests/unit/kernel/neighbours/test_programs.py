"""Programs that move memory, by name and file; which processes are read at all; real processes of this machine."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from balancerd.kernel.neighbours.programs import KDAMOND, PROGRAMS, Programs
from tests.unit.kernel.trees import stat_line, write_tree

KERNEL_THREAD = 0x00200000


def add(
    root: Path, pid: int, comm: str, exe: str | None = None, *, cmdline: bytes = b"", flags: int = 0, uid: int = 0
) -> None:
    write_tree(
        root / str(pid),
        {
            "comm": f"{comm}\n",
            "cmdline": cmdline,
            "stat": stat_line(pid, comm, start_ticks=1, flags=flags),
            "status": f"Name:\t{comm}\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n",
        },
    )
    if exe is not None:
        (root / f"{pid}/exe").symlink_to(exe)


@pytest.mark.parametrize(
    ("comm", "exe", "cmdline", "found"),
    [
        ("numad", "/usr/bin/numad", b"/usr/bin/numad\0-i\x0015\0", True),
        ("numad", "/usr/bin/numad (deleted)", b"numad\0", True),
        ("memtierd", "/opt/cri/bin/memtierd", b"memtierd\0-c\0", True),
        ("katalyst-agent", "/katalyst-agent", b"/katalyst-agent\0", True),
        ("numad", "/usr/bin/python3.11", b"numad\0", False),
        ("numad", "/usr/bin/numad", b"numad\0-w\x004:1024\0", False),
        ("numad", "/usr/bin/numad", b"numad\0-w4:1024\0", False),
        ("numad", None, b"", False),
        ("numademo", "/usr/bin/numademo", b"numademo\0", False),
    ],
)
def test_a_program_is_known_by_its_name_and_its_file(
    tmp_path: Path, comm: str, exe: str | None, cmdline: bytes, found: bool
) -> None:
    add(tmp_path, 10, comm, exe, cmdline=cmdline)
    add(tmp_path, 11, "bash", "/bin/bash")
    assert Programs(str(tmp_path)).look() == ({comm: (10,)} if found else {})


@pytest.mark.parametrize(("uid", "found"), [(0, True), (os.geteuid(), True), (4242, False)])
def test_what_neither_root_nor_our_user_runs_moves_nothing_of_others_whatever_it_is_called(
    tmp_path: Path, uid: int, found: bool
) -> None:
    add(tmp_path, 10, "numad", "/home/user/numad", cmdline=b"numad\0", uid=uid)
    add(tmp_path, 11, "memtierd", "/home/user/memtierd", uid=uid)
    (tmp_path / "11/status").unlink()
    assert Programs(str(tmp_path)).look() == ({"numad": (10,)} if found else {})


def test_where_the_file_may_not_be_read_the_name_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path) -> Path:
        raise PermissionError(13, "Permission denied", str(self))

    add(tmp_path, 10, "memtierd", "/usr/bin/memtierd")
    monkeypatch.setattr(Path, "readlink", refuse)
    assert Programs(str(tmp_path)).look() == {"memtierd": (10,)}


def test_only_a_thread_of_the_kernel_is_one_of_damons(tmp_path: Path) -> None:
    add(tmp_path, 77, "kdamond.0", flags=KERNEL_THREAD)
    add(tmp_path, 78, "kdamond.1", "/usr/bin/kdamond.1")
    assert Programs(str(tmp_path)).look() == {KDAMOND: (77,)}


def test_a_program_that_starts_later_is_found_even_when_it_was_another_at_first(tmp_path: Path) -> None:
    for pid in range(100, 110):
        add(tmp_path, pid, "sleep", "/bin/sleep")
    programs = Programs(str(tmp_path))
    assert programs.look() == {}
    add(tmp_path, 20, "sh", "/bin/sh")
    assert programs.look() == {}
    (tmp_path / "20/comm").write_text("numad\n")
    (tmp_path / "20/exe").unlink()
    (tmp_path / "20/exe").symlink_to("/usr/bin/numad")
    assert programs.look() == {"numad": (20,)}


def test_an_old_process_that_became_another_program_is_found_within_so_many_looks(tmp_path: Path) -> None:
    for pid in range(100, 200):
        add(tmp_path, pid, "sh", "/bin/sh")
    programs = Programs(str(tmp_path))
    programs.look()
    (tmp_path / "150/comm").write_text("memtierd\n")
    (tmp_path / "150/exe").unlink()
    (tmp_path / "150/exe").symlink_to("/usr/bin/memtierd")
    assert any(programs.look() for _ in range(60))


def test_a_look_reads_few_of_those_that_it_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for pid in range(100, 700):
        add(tmp_path, pid, "sh", "/bin/sh")
    programs = Programs(str(tmp_path))
    programs.look()
    read: list[int] = []
    monkeypatch.setattr(programs, "_wanted_name", read.append)
    programs.look()
    assert len(read) == 11


def test_one_that_has_gone_or_became_another_is_forgotten(tmp_path: Path) -> None:
    add(tmp_path, 10, "numad", "/usr/bin/numad")
    add(tmp_path, 11, "memtierd", "/usr/bin/memtierd")
    programs = Programs(str(tmp_path))
    assert programs.look() == {"numad": (10,), "memtierd": (11,)}
    shutil.rmtree(tmp_path / "10")
    (tmp_path / "11/comm").write_text("bash\n")
    assert programs.verify() == {}


def test_after_a_first_look_at_all_what_a_survey_knows_by_name_is_checked_and_nothing_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(tmp_path, 10, "numad", "/usr/bin/numad")
    asked: list[str] = []

    def find(beginning: str) -> tuple[int, ...]:
        asked.append(beginning)
        return {"numad": (10, 11, 99), "memtierd": (12,)}.get(beginning, ())

    programs = Programs(str(tmp_path), find)
    assert programs.look() == {"numad": (10,)}
    assert asked == []
    add(tmp_path, 11, "numad", "/usr/bin/vim")
    add(tmp_path, 12, "memtierd", "/usr/bin/memtierd")
    monkeypatch.setattr("balancerd.kernel.neighbours.programs.list_names", None)
    assert programs.look() == {"numad": (10,), "memtierd": (12,)}
    assert asked == [*PROGRAMS, KDAMOND]


@contextmanager
def really_running(tmp_path: Path, name: str) -> Iterator[int]:
    """A process whose file and name are those of a manager; it only sleeps."""
    program = tmp_path / name
    shutil.copy("/bin/sleep", program)
    with subprocess.Popen([str(program), "100"]) as process:
        try:
            yield process.pid
        finally:
            process.kill()


def test_a_real_process_is_found_and_one_with_a_borrowed_name_is_not(tmp_path: Path) -> None:
    borrowed = "import ctypes, time; ctypes.CDLL(None).prctl(15, b'memtierd'); print(flush=True); time.sleep(100)"
    with (
        really_running(tmp_path, "katalyst-agent") as pid,
        subprocess.Popen(["python3", "-c", borrowed], stdout=subprocess.PIPE) as other,
    ):
        assert other.stdout is not None
        other.stdout.readline()
        assert Path(f"/proc/{other.pid}/comm").read_text() == "memtierd\n"
        found = Programs("/proc").look()
        other.kill()
    assert pid in found["katalyst-agent"]
    assert other.pid not in found.get("memtierd", ())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a pid namespace")
def test_a_process_of_another_pid_namespace_counts(tmp_path: Path) -> None:
    program = tmp_path / "memtierd"
    shutil.copy("/bin/sleep", program)
    with subprocess.Popen(["unshare", "--pid", "--fork", "--kill-child", str(program), "100"]) as outer:
        children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children")
        pid = 0
        while not pid or Path(f"/proc/{pid}/comm").read_text() != "memtierd\n":
            assert outer.poll() is None
            words = children.read_text().split()
            pid = int(words[0]) if words else 0
        found = Programs("/proc").look()
        outer.kill()
    assert pid in found["memtierd"]
