"""A picture is written whole: what was there stays while anything fails, and a pipe gets it, too."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from balancerd.cli.exits import CommandError
from balancerd.cli.picture_file import write_picture


def test_a_picture_takes_the_place_of_the_one_before_and_others_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "a.svg"
    for text in ("first", "second"):
        write_picture(path, text)
        assert path.read_text() == text
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "link.svg").symlink_to("there.svg")
    write_picture(tmp_path / "link.svg", "drawn")
    assert (tmp_path / "link.svg").is_symlink()
    assert (tmp_path / "there.svg").read_text() == "drawn"


def test_when_it_cannot_be_written_the_old_one_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.svg"
    path.write_text("old")

    def fail(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(CommandError, match=r"a\.svg cannot be written: No space left on device"):
        write_picture(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="Is a directory"):
        write_picture(tmp_path, "x")


def test_a_pipe_gets_it() -> None:
    program = "import pathlib, balancerd.cli.picture_file as p; p.write_picture(pathlib.Path('/dev/stdout'), 'drawn')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "drawn"
