"""Entries of the journal, read from a real socket of the protocol; a journal that is gone or asleep stops nobody."""

import ast
import fcntl
import io
import os
import re
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import balancerd
from balancerd.engine.chronicle import Chronicle
from balancerd.log import TickLog, journald, setup
from balancerd.log.events import PHRASES
from balancerd.log.journald import Journal, encode, is_journal
from balancerd.log.native import FIELDS, MESSAGE_IDS
from balancerd.model.decision import Reason, Skip
from tests.unit.reports import a_decision, a_moving_report, a_process, a_process_report, a_report

HOSTILE = "x\ny=\n\r\x1b[2J\x00\u202e\udcff z"
DOCS = Path(balancerd.__file__).parents[1] / "docs" / "history.md"

Entry = dict[str, list[bytes]]


def parse(data: bytes) -> Entry:
    """Take a datagram apart as https://systemd.io/JOURNAL_NATIVE_PROTOCOL/ says."""
    entry: Entry = {}
    while data:
        line, _, rest = data.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if equals:
            data = rest
        else:
            (length,) = struct.unpack("<Q", rest[:8])
            value, data = rest[8 : 8 + length], rest[8 + length :]
            assert data[:1] == b"\n"
            data = data[1:]
        assert re.fullmatch(rb"[A-Z][A-Z0-9_]{0,63}", name), name
        entry.setdefault(name.decode(), []).append(value)
    return entry


class Receiver:
    """A socket as journald has one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.settimeout(5.0)
        self.files = 0

    def receive(self) -> Entry:
        data, fds, _flags, _address = socket.recv_fds(self.socket, 1 << 20, 1)
        if fds:
            assert data == b""
            seals = fcntl.fcntl(fds[0], fcntl.F_GET_SEALS)
            assert seals == fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
            with os.fdopen(fds[0], "rb") as file:
                file.seek(0)
                data = file.read()
            self.files += 1
        return parse(data)


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    receiver = Receiver(tmp_path / "socket")
    yield receiver
    receiver.socket.close()


@pytest.fixture
def journal(receiver: Receiver) -> Iterator[Journal]:
    journal = Journal(str(receiver.path))
    yield journal
    journal.close()


def one(entry: Entry) -> dict[str, str]:
    """An entry whose fields have one value each."""
    assert all(len(values) == 1 for values in entry.values()), entry
    return {name: values[0].decode("utf-8", "surrogateescape") for name, values in entry.items()}


def test_fields_are_written_as_the_protocol_says() -> None:
    assert encode([("A", "b c=d")]) == b"A=b c=d\n"
    assert encode([("A", "b\nc"), ("D", "\udcff")]) == b"A\n\x03\0\0\0\0\0\0\0b\nc\nD=\xff\n"
    assert encode([("A", "")]) == b"A=\n"


def test_an_event_has_its_priority_identifier_and_message_id(receiver: Receiver, journal: Journal) -> None:
    log = setup(stream=io.StringIO(), journal=journal)
    log.info("started", mode_summary="enforce: home, every 2s")
    log.warning("history", told="full")
    entry = one(receiver.receive())
    assert entry == {
        "MESSAGE": "started mode_summary='enforce: home, every 2s'",
        "PRIORITY": "6",
        "SYSLOG_IDENTIFIER": "balancerd",
        "MESSAGE_ID": MESSAGE_IDS["started"],
    }
    assert one(receiver.receive())["PRIORITY"] == "4"


def test_a_move_has_the_fields_that_an_operator_filters_by(receiver: Receiver, journal: Journal) -> None:
    TickLog(setup(stream=io.StringIO(), journal=journal), Chronicle(first_id=70)).emit(a_moving_report(7))
    decision, move, tick = one(receiver.receive()), one(receiver.receive()), one(receiver.receive())
    assert move == {
        "MESSAGE": "memory moved pid=4242 comm=spin workload=spin.service policy=home decision=70 source=[1] target=0 "
        "bytes=4096000 reason=misplaced counts={moved:1000,eacces:24}",
        "PRIORITY": "6",
        "SYSLOG_IDENTIFIER": "balancerd",
        "MESSAGE_ID": MESSAGE_IDS["memory moved"],
        "BALANCERD_PID": "4242",
        "BALANCERD_COMM": "spin",
        "BALANCERD_WORKLOAD": "spin.service",
        "BALANCERD_POLICY": "home",
        "BALANCERD_DECISION_ID": "70",
        "BALANCERD_FROM_NODE": "1",
        "BALANCERD_TO_NODE": "0",
        "BALANCERD_BYTES": "4096000",
        "BALANCERD_REASON": "misplaced",
    }
    assert (decision["MESSAGE_ID"], decision["BALANCERD_DECISION_ID"]) == (MESSAGE_IDS["decision"], "70")
    assert (tick["BALANCERD_TICK"], tick["BALANCERD_BYTES"]) == ("7", "4096000")


def test_why_something_is_held_is_told_at_debug_only(receiver: Receiver, journal: Journal) -> None:
    process = a_process()
    seen = a_process_report(process, verdicts=(a_decision(process.id),))
    held = Skip(by="plan", process=process.id, reason=Reason.COOLDOWN)
    for level, events in (("info", ["decision", "tick"]), ("debug", ["decision", "decision held", "reason changed"])):
        log = setup(level=level, stream=io.StringIO(), journal=journal)  # type: ignore[arg-type]
        TickLog(log, Chronicle()).emit(a_report(processes=(seen,), rejected=(held,)))
        for event in events:
            assert one(receiver.receive())["MESSAGE_ID"] == MESSAGE_IDS[event], (level, event)
    assert one(receiver.receive())["MESSAGE_ID"] == MESSAGE_IDS["tick"]


def test_of_a_storm_some_events_are_told_and_how_many_are_not(receiver: Receiver, journal: Journal) -> None:
    seen = [a_process_report(p, verdicts=(a_decision(p.id),)) for p in map(a_process, range(1, 131))]
    entries: list[Entry] = []
    reader = threading.Thread(target=lambda: entries.extend(receiver.receive() for _ in range(102)))
    reader.start()
    TickLog(setup(stream=io.StringIO(), journal=journal), Chronicle()).emit(a_report(processes=seen))
    reader.join()
    assert [one(entry)["MESSAGE_ID"] for entry in entries[99:]] == [
        MESSAGE_IDS["decision"],
        MESSAGE_IDS["events left out"],
        MESSAGE_IDS["tick"],
    ]
    assert one(entries[100])["MESSAGE"] == "events left out events=30"


def test_several_nodes_are_several_fields(receiver: Receiver, journal: Journal) -> None:
    setup(stream=io.StringIO(), journal=journal).info("memory moved", source=[1, 3], target=None)
    entry = receiver.receive()
    assert entry["BALANCERD_FROM_NODE"] == [b"1", b"3"]
    assert "BALANCERD_TO_NODE" not in entry


def test_hostile_names_make_no_field_and_no_line_of_their_own(receiver: Receiver, journal: Journal) -> None:
    setup(stream=io.StringIO(), journal=journal).info("memory moved", comm=HOSTILE, other=HOSTILE)
    entry = receiver.receive()
    assert entry.keys() == {"MESSAGE", "PRIORITY", "SYSLOG_IDENTIFIER", "MESSAGE_ID", "BALANCERD_COMM"}
    assert entry["BALANCERD_COMM"] == [HOSTILE.encode("utf-8", "surrogateescape")]
    assert entry["MESSAGE"][0].decode().isprintable()


def test_a_traceback_is_a_field_with_its_lines(receiver: Receiver, journal: Journal) -> None:
    log = setup(stream=io.StringIO(), journal=journal)
    try:
        int("x")
    except ValueError:
        log.exception("tick failed", error="ValueError")
    entry = one(receiver.receive())
    assert (entry["MESSAGE"], entry["PRIORITY"]) == ("tick failed error=ValueError", "3")
    assert entry["BALANCERD_EXCEPTION"].startswith("Traceback (most recent call last):\n")


def test_what_is_too_large_for_a_datagram_goes_over_as_a_sealed_file(receiver: Receiver, journal: Journal) -> None:
    text = "x" * (12 << 20)
    setup(stream=io.StringIO(), journal=journal).info("memory moved", detail=text)
    assert one(receiver.receive())["MESSAGE"] == f"memory moved detail={text}"
    assert receiver.files == 1


def test_a_journal_that_is_gone_raises_nothing_and_the_line_goes_to_the_stream(
    receiver: Receiver, journal: Journal
) -> None:
    stream = io.StringIO()
    log = setup(stream=stream, journal=journal)
    receiver.socket.close()
    log.info("started", x=1)
    receiver.path.unlink()
    log.info("stopped")
    assert stream.getvalue() == "started x=1\nstopped\n"
    assert journal.lost_entries == 2
    again = Receiver(receiver.path)  # journald was started again
    log.info("reloaded")
    assert one(again.receive())["MESSAGE"] == "reloaded"
    again.socket.close()


def test_a_journal_that_does_not_read_is_waited_for_once(receiver: Receiver, journal: Journal) -> None:
    begin = time.monotonic()
    sent = 0
    while journal.send([("MESSAGE", "x" * 1000)]):
        sent += 1
    assert time.monotonic() - begin >= journald._BLOCKED_SECONDS
    begin = time.monotonic()
    for _ in range(1000):
        assert not journal.send([("MESSAGE", "x")])
    assert time.monotonic() - begin < 5.0  # waiting each time would be four minutes
    for _ in range(sent):
        receiver.receive()
    assert journal.send([("MESSAGE", "again")])
    assert one(receiver.receive()) == {"MESSAGE": "again"}


@pytest.mark.parametrize("form", ["json", "console"])
def test_another_form_is_written_to_the_stream_as_ever(receiver: Receiver, journal: Journal, form: Any) -> None:
    stream = io.StringIO()
    setup(stream=stream, journal=journal, form=form).info("started")
    assert "started" in stream.getvalue()
    receiver.socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        receiver.receive()


def test_a_stream_is_the_journal_when_device_and_inode_are_the_ones_told(tmp_path: Path) -> None:
    with (tmp_path / "a").open("w") as stream:
        about = os.fstat(stream.fileno())
        told = f"{about.st_dev}:{about.st_ino}"
        assert is_journal(stream.fileno(), {"JOURNAL_STREAM": told})
        for other in (
            f"{about.st_dev}:{about.st_ino + 1}",
            f"{about.st_dev + 1}:{about.st_ino}",
            "",
            ":",
            "x:y",
            told + ":1",
        ):
            assert not is_journal(stream.fileno(), {"JOURNAL_STREAM": other}), other
        assert not is_journal(stream.fileno(), {})
    assert not is_journal(1 << 20, {"JOURNAL_STREAM": told})


def phrases() -> set[str]:
    """Every fixed phrase that balancerd logs: the first argument of calls such as log.info("...")."""
    found = set()
    for file in Path(balancerd.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in {"debug", "info", "warning", "error", "exception"}
                and re.search(r"\b_?log(ger)?$", ast.unparse(node.func.value))
                and isinstance(node.args[0], ast.Constant)
            ):
                found.add(str(node.args[0].value))
    return found


def test_every_kind_of_event_has_a_message_id_of_its_own_and_the_page_lists_it() -> None:
    assert phrases() | set(PHRASES.values()) <= MESSAGE_IDS.keys()
    assert len(phrases()) >= 15
    assert len(set(MESSAGE_IDS.values())) == len(MESSAGE_IDS)
    assert all(re.fullmatch("[0-9a-f]{32}", each) for each in MESSAGE_IDS.values())
    page = DOCS.read_text(encoding="utf-8")
    for phrase, message_id in MESSAGE_IDS.items():
        assert f"| `{message_id}` | {phrase} |" in page, phrase
    for field in FIELDS.values():
        assert f"`{field}`" in page, field


def test_writing_to_the_journal_imports_nothing_more() -> None:
    code = "import sys, balancerd.log; print([m for m in ('rich', 'click', 'systemd') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
