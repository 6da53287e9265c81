"""The journal of narrowed affinities: written whole, read back, and refused where it is not ours."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from balancerd.kernel.affinity.journal import (
    NAME,
    Entry,
    InUseError,
    Journal,
    JournalError,
    explain_unwritable,
    state_directory,
)
from balancerd.kernel.processes.identity import read_start_ticks
from balancerd.model.ids import CpuId, ProcessId

ENTRY = Entry(
    process=ProcessId(100, 7),
    tid=101,
    start_ticks=8,
    before=frozenset({CpuId(0), CpuId(1)}),
    ours=frozenset({CpuId(1)}),
    whole=True,
    at_ticks=9,
)
OTHER = replace(ENTRY, tid=102, whole=False)


def test_what_is_written_is_read_back_and_nothing_to_tell_is_no_file(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    assert journal.read() == ()
    journal.write((ENTRY, OTHER))
    assert journal.read() == (ENTRY, OTHER)
    assert [path.name for path in tmp_path.iterdir()] == [NAME]
    assert journal.path.stat().st_mode & 0o777 == 0o600
    journal.write(())
    assert list(tmp_path.iterdir()) == []


def change(journal: Journal, **keys: Any) -> None:
    document = json.loads(journal.path.read_bytes())
    journal.path.write_text(json.dumps(document | keys), encoding="ascii")


def test_what_was_written_before_a_reboot_says_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.write((ENTRY,))
    change(journal, boot="another")
    assert journal.read() == ()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no JSON"),
        ("{", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("[]", "balancerd has not written it"),
        ('{"form": "other"}', "balancerd has not written it"),
        ('{"form": "balancerd-threads", "version": 2}', "version 2, this balancerd reads version 1"),
        ('{"form": "balancerd-threads", "version": 1}', "cannot be understood"),
    ],
)
def test_a_file_that_is_none_of_ours_is_an_error(tmp_path: Path, text: str, told: str) -> None:
    journal = Journal(tmp_path)
    journal.path.write_text(text, encoding="ascii")
    with pytest.raises(JournalError, match=told):
        journal.read()


@pytest.mark.parametrize(
    "entry",
    [{"whole": 1}, {"tid": -1}, {"tid": "101"}, {"before": ""}, {"ours": "x"}, {"pid": True}],
)
def test_an_entry_that_makes_no_sense_is_an_error(tmp_path: Path, entry: dict[str, Any]) -> None:
    journal = Journal(tmp_path)
    journal.write((ENTRY,))
    told = json.loads(journal.path.read_bytes())["threads"][0]
    change(journal, threads=[told | entry])
    with pytest.raises(JournalError, match="cannot be understood"):
        journal.read()


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.symlink_to("/etc/passwd"), os.mkfifo])
def test_what_is_no_regular_file_is_not_read(tmp_path: Path, make: Callable[[Path], object]) -> None:
    journal = Journal(tmp_path)
    make(journal.path)
    with pytest.raises((JournalError, OSError)):
        journal.read()


def test_the_journal_of_a_daemon_that_runs_is_left_to_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.write((ENTRY,))
    parent = os.getppid()
    change(journal, daemon=[parent, read_start_ticks(parent)])
    with pytest.raises(InUseError, match=f"pid {parent}"):
        journal.read()
    change(journal, daemon=[parent, read_start_ticks(parent) + 1])
    assert journal.read() == (ENTRY,)


def test_what_is_put_aside_keeps_what_was_put_aside_before(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for text in ("one", "two"):
        journal.path.write_text(text, encoding="ascii")
        aside = journal.put_aside()
        assert aside.read_text(encoding="ascii") == text
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{NAME}.bad-1", f"{NAME}.bad-2"]


def test_a_write_that_fails_leaves_what_was_written_before(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.write((ENTRY,))
    (tmp_path / f"{NAME}.new").mkdir()
    with pytest.raises(OSError, match="Is a directory"):
        journal.write((OTHER,))
    assert journal.read() == (ENTRY,)


def test_a_directory_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    assert explain_unwritable(tmp_path) is None
    assert list(tmp_path.iterdir()) == []
    assert explain_unwritable(tmp_path / "none") == f"{tmp_path}/none: No such file or directory"


@pytest.mark.parametrize(
    ("configured", "environment", "directory"),
    [
        ("/srv/b", {"STATE_DIRECTORY": "/run/x"}, "/srv/b"),
        (None, {"STATE_DIRECTORY": "/run/x:/run/y"}, "/run/x"),
        (None, {"STATE_DIRECTORY": ""}, "/var/lib/balancerd"),
        (None, {}, "/var/lib/balancerd"),
    ],
)
def test_the_directory_is_as_configured_or_as_systemd_says(
    configured: str | None, environment: dict[str, str], directory: str
) -> None:
    assert state_directory(configured, environment) == Path(directory)


@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_what_others_may_write_to_names_no_thread(tmp_path: Path, mode: int) -> None:
    journal = Journal(tmp_path)
    journal.write((ENTRY,))
    journal.path.chmod(mode)
    with pytest.raises(JournalError, match=f"its mode is {mode:04o}"):
        journal.read()
