"""A watched directory: which files are imported, when, and which never."""

import threading
from pathlib import Path

import pytest

from balancerd.config import custody
from balancerd.kernel.accesses.log_directory import LogDirectory
from balancerd.kernel.accesses.log_store import LogHeader
from tests.unit.kernel.accesses.test_log_store import START, World
from tests.unit.kernel.worlds import OWN

LINE = f"{OWN.pid}/7 [000] 4990.000000: {START:16x}\n"


class Watched:
    """A directory, and what was told of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.world = World()
        self.told: list[str] = []
        self.directory = LogDirectory(self.world.store, self.told.append)
        self.directory.use(str(path))

    def look(self) -> list[str]:
        """Look once, let what was begun end, and return what was told since."""
        before = len(self.told)
        self.directory.look()
        for thread in threading.enumerate():
            if thread.name == "log-directory":
                thread.join()
        return self.told[before:]


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    (tmp_path / "logs").mkdir(mode=0o755)
    return Watched(tmp_path / "logs")


def test_a_file_is_taken_once_when_nobody_writes_to_it_any_more(watched: Watched) -> None:
    file = watched.path / "a"
    file.write_text(LINE)
    assert watched.look() == []
    file.write_text(LINE * 2)
    assert watched.look() == []
    assert watched.look() == [f"{file}: 2 samples in 2 lines, counted: 2 of process {OWN.pid}"]
    assert watched.look() == []
    file.write_text(LINE * 3)
    watched.look()
    assert "3 samples" in watched.look()[0]
    assert watched.world.pages() == 1


def test_each_file_has_its_turn_and_one_that_is_no_log_stops_none(watched: Watched) -> None:
    for name, text in (("a", "what is this?\n"), ("b", LINE), ("c", LINE + "and this?\n")):
        (watched.path / name).write_text(text)
    watched.look()
    told = "\n".join(line for _ in range(3) for line in watched.look())
    assert "not taken" in told
    assert "a: no samples in 1 lines" in told
    assert f"b: 1 samples in 1 lines, counted: 1 of process {OWN.pid}" in told
    assert "1 lines are no samples" in told
    assert "c:2: no sample of a memory access" in told


def test_unfinished_hidden_and_linked_files_are_passed_over(watched: Watched) -> None:
    for name in (".hidden", "log.tmp", "log.part", "log~"):
        (watched.path / name).write_text(LINE)
    (watched.path.parent / "elsewhere").write_text(LINE)
    (watched.path / "link").symlink_to(watched.path.parent / "elsewhere")
    (watched.path / "directory").mkdir()
    assert [watched.look() for _ in range(3)] == [[], [], []]


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o1777])
def test_a_directory_that_others_may_write_to_is_not_used(watched: Watched, mode: int) -> None:
    (watched.path / "a").write_text(LINE)
    watched.path.chmod(mode)
    told = [line for _ in range(3) for line in watched.look()]
    assert len(told) == 1  # and not at each look
    assert "others than root and the daemon's user may write to it" in told[0]
    watched.path.chmod(0o755)
    watched.look()
    assert "1 samples" in watched.look()[0]


@pytest.mark.parametrize("privileged", [True, False])
def test_nor_is_it_in_the_hands_of_whoever_may_write_above_it_but_by_who_reads_what_he_may(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, privileged: bool
) -> None:
    monkeypatch.setattr(custody, "is_privileged", lambda: privileged)
    watched.path.parent.chmod(0o777)
    told = watched.look()
    assert [f"chmod go-w {watched.path.parent}" in each for each in told] == [True] * privileged
    watched.path.parent.chmod(0o755)
    watched.path.chmod(0o777)
    assert ["others than root and the daemon's user may write" in each for each in watched.look()] == [True]


@pytest.mark.parametrize("mode", [0o664, 0o646])
def test_a_file_that_others_may_write_to_is_not_taken(watched: Watched, mode: int) -> None:
    (watched.path / "open").write_text(LINE)
    (watched.path / "open").chmod(mode)
    told = [line for _ in range(3) for line in watched.look()]
    assert [f"its mode is {mode:04o}" in each for each in told] == [True]


def test_a_directory_that_is_not_there_is_told_once(watched: Watched) -> None:
    watched.directory.use(str(watched.path / "none"))
    assert len(watched.look()) == 1
    assert watched.look() == []


def test_while_somebody_else_imports_a_file_waits_for_its_turn(watched: Watched) -> None:
    (watched.path / "a").write_text(LINE)
    going = watched.world.store.begin(LogHeader(name="log", samples_by_pid={OWN.pid: 1}, last_seconds=4999.0))
    assert [watched.look() for _ in range(3)] == [[], [], []]
    watched.world.store.abandon(going.number)
    assert "1 samples" in watched.look()[0]


def test_without_a_directory_nothing_is_looked_at(watched: Watched) -> None:
    (watched.path / "a").write_text(LINE)
    watched.directory.use(None)
    assert [watched.look() for _ in range(3)] == [[], [], []]
