"""Daemons forked from one process: each has its own log, its own end, and the status that it ended with."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.prestart import Child, Prestart

pytestmark = pytest.mark.host


@pytest.fixture
def prestart() -> Iterator[Prestart]:
    it = Prestart()
    yield it
    it.close()


def start(prestart: Prestart, log: Path, *arguments: str) -> Child:
    with log.open("w", encoding="utf-8") as stream:
        return prestart.start(arguments, stream.fileno())


def test_who_ends_by_itself_has_a_status_and_a_log(prestart: Prestart, tmp_path: Path) -> None:
    wrong = start(prestart, tmp_path / "wrong", "--no-such-option")
    refused = start(prestart, tmp_path / "refused", "--set", "mode=careless")
    assert (refused.wait(), wrong.wait()) == (5, 2)
    assert "--no-such-option" in (tmp_path / "wrong").read_text(encoding="utf-8")
    assert "careless" in (tmp_path / "refused").read_text(encoding="utf-8")


def test_who_is_ended_is_told_by_the_signal(prestart: Prestart, tmp_path: Path) -> None:
    words = ("--set", "control.socket=" + str(tmp_path / "socket"), "--set", "metrics.listen=null")
    child = start(prestart, tmp_path / "log", *words)
    assert child.poll() is None
    assert Path(f"/proc/{child.pid}/comm").exists()
    child.kill()
    assert child.wait() == -signal.SIGKILL
    child.send_signal(signal.SIGTERM)  # to nobody
