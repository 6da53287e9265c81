"""The notification protocol against a real datagram socket."""

import os
import re
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from balancerd.systemd import Notifier, watchdog_interval


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """NOTIFY_SOCKET as systemd would set it, and the socket behind it."""
    name = f"@balancerd-test-{secrets.token_hex(8)}" if request.param == "abstract" else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0" + name[1:] if name.startswith("@") else name)
        listener.settimeout(5)
        yield name, listener


def test_each_message_is_what_sd_notify_documents(manager: tuple[str, socket.socket]) -> None:
    name, listener = manager
    notifier = Notifier({"NOTIFY_SOCKET": name})
    assert notifier.enabled
    assert notifier.ready("watching 4 nodes")
    assert listener.recv(4096) == b"READY=1\nSTATUS=watching 4 nodes"
    assert notifier.status("tick 3")
    assert listener.recv(4096) == b"STATUS=tick 3"
    assert notifier.watchdog()
    assert listener.recv(4096) == b"WATCHDOG=1"
    assert notifier.stopping()
    assert listener.recv(4096) == b"STOPPING=1"


def test_reloading_carries_the_monotonic_clock_in_microseconds(manager: tuple[str, socket.socket]) -> None:
    name, listener = manager
    before = time.monotonic_ns() // 1000
    assert Notifier({"NOTIFY_SOCKET": name}).reloading("reading")
    after = time.monotonic_ns() // 1000
    match = re.fullmatch(rb"RELOADING=1\nMONOTONIC_USEC=(\d+)\nSTATUS=reading", listener.recv(4096))
    assert match is not None
    assert before <= int(match[1]) <= after


def test_a_status_cannot_smuggle_in_another_assignment_and_is_bounded(manager: tuple[str, socket.socket]) -> None:
    name, listener = manager
    assert Notifier({"NOTIFY_SOCKET": name}).status("bad file\nREADY=1\r\x85x\udc80" + "y" * 5000)
    message = listener.recv(65536)
    assert message.startswith(b"STATUS=bad file READY=1 x?yyy")
    assert b"\n" not in message
    assert len(message) < 600


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "relative/path"}])
def test_without_systemd_nothing_is_sent_and_nothing_raised(environment: dict[str, str]) -> None:
    notifier = Notifier(environment)
    assert not notifier.enabled
    assert not notifier.ready("x")
    assert not notifier.status("x")
    assert not notifier.reloading()
    assert not notifier.watchdog()
    assert not notifier.stopping()


def test_a_manager_that_is_gone_raises_nothing(tmp_path: Path) -> None:
    assert not Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready()
    assert not Notifier({"NOTIFY_SOCKET": "@" + "x" * 500}).ready()


def test_a_manager_that_does_not_read_holds_nobody_up_for_long(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(path)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as filler:
            filler.setblocking(False)
            with suppress(BlockingIOError):
                while filler.sendto(b"x", path):
                    pass
            started = time.monotonic()
            assert not Notifier({"NOTIFY_SOCKET": path}).watchdog()
            assert time.monotonic() - started < 2


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "60000000"}, 30.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "4711"}, 30.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "4712"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "²"}, None),
    ],
)
def test_the_watchdog_interval_is_half_of_what_the_manager_allows(
    environment: dict[str, str], expected: float | None
) -> None:
    assert watchdog_interval(environment, pid=4711) == expected


def test_the_watchdog_is_meant_for_this_process_by_default() -> None:
    assert watchdog_interval({"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": str(os.getpid())}) == 1.0
