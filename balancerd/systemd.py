"""The notification protocol of systemd, sd_notify(3), and the watchdog's interval, sd_watchdog_enabled(3).

Owns the datagrams and the environment variables they depend on. Without systemd every call does nothing, and nothing
here ever raises: a service manager that cannot be told is no reason to stop. It must not know when the daemon is ready.
"""

import os
import socket
import time
from collections.abc import Mapping

_BLOCKED_SECONDS = 0.5
"""A manager that does not read its socket must not hold up the loop for longer."""

_STATUS_CHARACTERS = 512
"""More does not fit on the line of `systemctl status`."""


class Notifier:
    """Tells the service manager how the daemon is doing. Every method says whether the message was sent.

    `environment` is the process's own; NOTIFY_SOCKET names a path or, with a leading "@", an abstract socket.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._address = _address(environment.get("NOTIFY_SOCKET", ""))

    @property
    def enabled(self) -> bool:
        """Whether a service manager listens."""
        return self._address is not None

    def ready(self, status: str = "") -> bool:
        """Starting up or reloading is finished."""
        return self._send("READY=1", *_status(status))

    def status(self, status: str) -> bool:
        """Show one line in `systemctl status`; line breaks become spaces."""
        return self._send(*_status(status))

    def reloading(self, status: str = "") -> bool:
        """The configuration is being read again; ready() must follow. The time is CLOCK_MONOTONIC in microseconds."""
        microseconds = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        return self._send("RELOADING=1", f"MONOTONIC_USEC={microseconds}", *_status(status))

    def stopping(self, status: str = "") -> bool:
        """The daemon is shutting down."""
        return self._send("STOPPING=1", *_status(status))

    def watchdog(self) -> bool:
        """The loop is alive."""
        return self._send("WATCHDOG=1")

    def _send(self, *assignments: str) -> bool:
        if self._address is None or not assignments:
            return False
        message = "\n".join(assignments).encode("utf-8", "replace")
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
                channel.settimeout(_BLOCKED_SECONDS)
                channel.sendto(message, self._address)
        except OSError:
            return False
        return True


def watchdog_interval(environment: Mapping[str, str] = os.environ, pid: int | None = None) -> float | None:
    """Return how often to call Notifier.watchdog(), in seconds.

    That is half of WATCHDOG_USEC, as sd_watchdog_enabled(3) advises. None when there is no watchdog,
    or WATCHDOG_PID says that it is for another process than `pid` (default: this one).
    """
    microseconds, meant = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID")
    if meant is not None and meant != str(os.getpid() if pid is None else pid):
        return None
    if not (microseconds.isascii() and microseconds.isdecimal()) or int(microseconds) == 0:
        return None
    return int(microseconds) / 2_000_000


def _address(name: str) -> str | None:
    """Return the socket address for NOTIFY_SOCKET: a NUL stands for the "@" of an abstract name, see unix(7)."""
    if name.startswith("@"):
        return "\0" + name[1:]
    return name if name.startswith("/") else None


def _status(text: str) -> tuple[str, ...]:
    return (f"STATUS={' '.join(text.split())[:_STATUS_CHARACTERS]}",) if text else ()
