"""Programs forked from one process: each has its own output, its own end, and the status that it ended with."""

import signal
import time
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


def start(prestart: Prestart, log: Path, *arguments: str, program: str = "balancerd") -> Child:
    with log.open("w", encoding="utf-8") as stream:
        return prestart.start([program, *arguments], stdout=stream.fileno(), stderr=stream.fileno())


def wait_for_comm(pid: int) -> str:
    end, comm = time.monotonic() + 10.0, Path(f"/proc/{pid}/comm")
    while (name := comm.read_text(encoding="ascii").strip()) != "balancerd" and time.monotonic() < end:
        time.sleep(0.01)
    return name


def test_who_ends_by_itself_has_a_status_and_a_log(prestart: Prestart, tmp_path: Path) -> None:
    wrong = start(prestart, tmp_path / "wrong", "--no-such-option")
    refused = start(prestart, tmp_path / "refused", "--set", "mode=careless")
    assert (refused.wait(), wrong.wait()) == (5, 2)
    assert "--no-such-option" in (tmp_path / "wrong").read_text(encoding="utf-8")
    assert "careless" in (tmp_path / "refused").read_text(encoding="utf-8")


def test_commands_write_where_they_are_told_to(prestart: Prestart, tmp_path: Path) -> None:
    known = start(prestart, tmp_path / "known", "policies", "list", "--json", program="balancerctl")
    unknown = start(prestart, tmp_path / "unknown", "--socket", "/nowhere", "status", program="balancerctl")
    assert (known.wait(), unknown.wait()) == (0, 3)
    assert '"follow-cpu"' in (tmp_path / "known").read_text(encoding="utf-8")
    assert "/nowhere" in (tmp_path / "unknown").read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="none of balancerd, balancerctl"):
        start(prestart, tmp_path / "other", program="ls")


def test_who_is_ended_is_told_by_the_signal(prestart: Prestart, tmp_path: Path) -> None:
    words = ("--set", "control.socket=" + str(tmp_path / "socket"), "--set", "metrics.listen=null")
    child = start(prestart, tmp_path / "log", *words)
    assert child.poll() is None
    assert wait_for_comm(child.pid) == "balancerd"
    child.kill()
    assert child.wait() == -signal.SIGKILL
    child.send_signal(signal.SIGTERM)  # to nobody
