"""A real balancerd under test: started, asked over its control socket, ended by signals."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from balancerd.control.client import ControlClient, ControlFailure
from balancerd.native import PAGE_BYTES
from tests.lab.prestart import Child, Prestart

BIN = Path(sys.executable).parent
POLL_SECONDS = 0.4
FIRST_TICK_SECONDS = 180.0
"""Starting takes 15 s of an emulated CPU of its own; spinning workloads and a busy host make many times that of it."""

EMULATED = {
    "migrate.stall_target": "50ms",
    "migrate.stall_limit": "5s",
    "select.scan_budget": "100%",
    "select.read_timeout": "10s",
}
"""A tick takes 50 ms of CPU time where it takes 2 on hardware: with the default scan budget there would be few. And
emulated, 512 pages take 20 to 30 ms, and a busy host can make that 20 times as much: with the default of 5 ms, and
20 ms for a stall, every call would be one, and nothing would move. A look takes as much longer."""


prestart: Prestart | None = None
"""What programs are forked from; None: each is started as its command."""


class Balancerd:
    """The daemon with a configuration of its own. Leaving the block ends it; what it logged is in `log_text()`.

    With a prefix, an environment or `as_command` it is started as its command in any case. Without `wait` it may have
    come to no tick yet.
    """

    def __init__(
        self,
        folder: Path,
        config: str = "",
        *,
        overrides: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        as_command: bool = False,
        wait: bool = True,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.config = folder / "balancerd.yaml"
        self.config.write_text(config, encoding="utf-8")
        self.socket = folder / "control.sock"
        self.log = folder / "log"
        settings = {
            "control.socket": str(self.socket),
            "metrics.listen": "null",
            **EMULATED,
            **(overrides or {}),
        }
        sets = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
        arguments = ["--config", str(self.config), *sets]
        self.process: subprocess.Popen[bytes] | Child
        with self.log.open("a", encoding="utf-8") as log, Path(os.devnull).open("wb") as nowhere:
            if prestart is not None and not (prefix or environment or as_command):
                command = ["balancerd", *arguments]
                self.process = prestart.start(command, stdout=nowhere.fileno(), stderr=log.fileno())
            else:
                command = [*prefix, str(BIN / "balancerd"), *arguments]
                self.process = subprocess.Popen(command, stderr=log, env={**os.environ, **(environment or {})})
        self.client = ControlClient(str(self.socket))
        if wait:
            self.wait_for(self.has_ticked, FIRST_TICK_SECONDS, "the first tick")

    def has_ticked(self) -> bool:
        """Whether it has come to its first tick."""
        return self.status()["tick"] is not None

    def status(self) -> dict[str, Any]:
        """GET /v1/status."""
        return self.client.get("/v1/status")

    def explain(self, pid: int) -> dict[str, Any]:
        """GET /v1/processes/PID: the process."""
        found: dict[str, Any] = self.client.get(f"/v1/processes/{pid}")["process"]
        return found

    def wait_for(self, condition: Callable[[], bool], seconds: float, what: str) -> float:
        """Poll until `condition` holds; return the seconds it took. AssertionError after `seconds`, with the log."""
        started = time.monotonic()
        while time.monotonic() - started < seconds:
            assert self.process.poll() is None, f"balancerd ended with {self.process.returncode}: {self.log_text()}"
            try:
                if condition():
                    return time.monotonic() - started
            except ControlFailure:
                pass
            time.sleep(POLL_SECONDS)
        raise AssertionError(f"no {what} within {seconds} s; log: {self.log_text()[-4000:]}")

    def wait_for_reason(self, pid: int, reason: str, seconds: float = 45.0) -> dict[str, Any]:
        """Wait until `explain` gives that reason; return the process. AssertionError with what it gave instead."""
        told: dict[str, Any] = {}

        def has_reason() -> bool:
            told.update(self.explain(pid))
            return bool(told["reason"] == reason)

        try:
            self.wait_for(has_reason, seconds, f"reason {reason} for {pid}")
        except AssertionError as error:
            raise AssertionError(f"{told.get('reason')}: {told.get('detail')}; {error}") from error
        return self.explain(pid)

    def wait_ticks(self, number: int) -> None:
        """Wait for so many more ticks."""
        first = self.status()["tick"]["number"]
        self.wait_for(lambda: self.status()["tick"]["number"] >= first + number, 20.0 * number, f"{number} ticks")

    def reload(self, config: str) -> None:
        """Give it another configuration, and wait until that is at work."""
        before = self.status()["config"]["last_reload"]
        self.config.write_text(config, encoding="utf-8")
        self.client.post("/v1/reload")
        self.wait_for(lambda: bool(self.status()["config"]["last_reload"] != before), 30.0, "a reload")
        told = self.status()["config"]["last_reload"]
        assert told["succeeded"], told

    def balancerctl(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run `balancerctl` against this daemon."""
        command = [str(BIN / "balancerctl"), "--socket", str(self.socket), *words]
        if prestart is None:
            return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        with (
            tempfile.TemporaryFile("w+", encoding="utf-8") as out,
            tempfile.TemporaryFile("w+", encoding="utf-8") as err,
        ):
            child = prestart.start(["balancerctl", *command[1:]], stdout=out.fileno(), stderr=err.fileno())
            status = child.wait()
            for stream in (out, err):
                stream.seek(0)
            return subprocess.CompletedProcess(command, status, out.read(), err.read())

    def log_text(self) -> str:
        """Everything logged so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def log_lines(self, event: str) -> list[dict[str, Any]]:
        """Return the log's JSON lines of one event."""
        lines = [json.loads(line) for line in self.log_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == event]

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(30)

    def check_accounts(self) -> dict[str, int]:
        """Every page that was submitted has a status: return the pages by status."""
        totals = self.status()["totals"]
        pages: dict[str, int] = totals["pages"]
        assert sum(pages.values()) == totals["submitted_pages"], totals
        return pages

    def moved_pages(self, pid: int) -> int:
        """How many pages of one process have moved, all moves together."""
        moves: list[dict[str, Any]] = self.client.get("/v1/moves")["moves"]
        return sum(int(move["moved_bytes"]) for move in moves if move["pid"] == pid) // PAGE_BYTES

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
