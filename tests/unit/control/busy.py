"""A control room with everything in it: each path has something to answer, each number in a path stands for something.

Process 4242 is in the last report, 100 can be moved, and job, lease, import, recording and move number 1 are there.
"""

import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from balancerd.config.schema import Config
from balancerd.control.access import Peer
from balancerd.control.app import PEER_KEY
from balancerd.control.history_api import HistoryDesk
from balancerd.control.operations import Operation
from balancerd.history.reader import read_history
from balancerd.model.report import TickReport
from balancerd.trace.recorder import Recorder, Source
from balancerd.trace.tap import RawTick
from tests.unit.cli.documents import a_crowd
from tests.unit.control.daemon import Room
from tests.unit.heat_reports import a_parts_report, some_heats
from tests.unit.history.files import a_file, an_event
from tests.unit.kernel.accesses.test_log_store import World as Logs
from tests.unit.kernel.worlds import OWN
from tests.unit.machine_reports import a_tiered_report
from tests.unit.reports import a_judged_move, a_moving_report, a_workload_report

ROOT = Peer(uid=0, gid=0)
NUMBERS: Mapping[str, str] = {"pid": "4242", "job": "1", "lease": "1", "import": "1", "recording": "1"}


@dataclass(frozen=True)
class Reply:
    """What came back."""

    code: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body)


def a_full_room(directory: Path) -> Room:
    """A daemon that has just started, with all its desks open."""
    path = directory / "history.sqlite"
    if not path.exists():
        a_file(path, [an_event(number) for number in range(1, 6)])
    source = Source(version="1", kernel=(6, 1), config=Config(), own_pid=1)
    room = Room(
        socket=directory / "socket",
        imports=Logs().store,
        recorder=Recorder(lambda: source, lambda: 0.0),
        history=HistoryDesk(lambda query: read_history(path, query), lambda: 10_000.0),
    )
    room.world.add(100, 0, 0, 1, 1)
    room.world.add(4242, 0, 1)
    return room


def a_busy_room(directory: Path) -> Room:
    """The same one some ticks later, with one of everything."""
    room = a_full_room(directory)
    room.tell(a_crowd())
    for path, body in (
        ("/v1/jobs", {"kind": "move", "pid": 4242, "to": "1"}),
        ("/v1/advice", {"cpus": 0.5, "memory_bytes": 4096, "lease_seconds": 60}),
        ("/v1/imports", {"name": "log", "samples": {str(OWN.pid): 1}}),
        ("/v1/recordings", {"seconds": 60}),
    ):
        assert ask(room, "POST", path, body).code in {200, 202}
    assert room.world.wait(1).move_id == 1
    assert room.recorder is not None
    room.recorder.offer(RawTick(events=(), report=a_moving_report(8)))
    return room


def some_reports() -> Iterable[TickReport]:
    """Ticks that among them have most of what can be told."""
    yield a_crowd()
    yield a_tiered_report()
    yield replace(a_parts_report(), heats=some_heats((0, 64, 0.5)))
    moving = a_moving_report(9)
    judged = a_judged_move(moving.processes[0].process.id)
    yield replace(moving, judged=(judged,), workloads=(a_workload_report(),))


def path_of(operation: Operation) -> str:
    """A path of an operation at which there is something in a busy room."""
    return operation.path.format(**NUMBERS)


def ask(
    room: Room,
    method: str,
    path: str,
    body: object = None,
    *,
    peer: Peer | None = ROOT,
    reader_gid: int | None = None,
    headers: Mapping[str, str] | None = None,
) -> Reply:
    """Ask without a socket; a `body` is sent as JSON unless it is bytes. Of a stream the first piece comes back."""
    sent = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    told: list[tuple[str, list[tuple[str, str]]]] = []
    path_info, _, query = path.partition("?")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "PATH_INFO": path_info,
        "QUERY_STRING": query,
        "CONTENT_LENGTH": str(len(sent)),
        "wsgi.input": io.BytesIO(sent),
        PEER_KEY: peer,
        **(headers or {}),
    }
    chunks = room.app(reader_gid)(environ, lambda status, sent, _info=None: told.append((status, sent)))  # type: ignore[arg-type]
    close = getattr(chunks, "close", lambda: None)
    try:
        received = next(iter(chunks), b"")
    finally:
        close()
    ((status, sent_headers),) = told
    return Reply(code=int(status.split()[0]), headers=dict(sent_headers), body=received)
