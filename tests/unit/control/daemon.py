"""A daemon's control room for tests: real servers around a state, with the rest of the daemon as plain callbacks."""

import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from wsgiref.types import WSGIApplication

from balancerd.control import api
from balancerd.control.access import Access
from balancerd.control.app import ControlApp
from balancerd.control.client import ControlClient
from balancerd.control.door import Bounds
from balancerd.control.history_api import HistoryDesk
from balancerd.control.lease_book import LeaseBook
from balancerd.control.metrics_app import MetricsApp
from balancerd.control.operator_api import Operator
from balancerd.control.server import CONTROL_BOUNDS, OPEN_BOUNDS, ControlServer, MetricsServer
from balancerd.control.state import ControlState
from balancerd.control.stream_api import Stream
from balancerd.jobs.switches import Switches
from balancerd.kernel.accesses.log_store import LogStore
from balancerd.metrics import Metrics
from balancerd.model.report import ProcessReport, TickReport
from balancerd.precedence import Precedence
from balancerd.trace.recorder import Recorder
from tests.unit.jobs.machine import World


@dataclass
class Room:
    """Everything that a test of the control room looks at. `now` is the monotonic second that the room believes in."""

    socket: Path
    now: float = 100.0
    known: dict[int, ProcessReport] = field(default_factory=dict)
    reloads: int = 0
    errors: list[str] = field(default_factory=list)
    turned_away: list[str] = field(default_factory=list)
    imports: LogStore | None = None
    recorder: Recorder | None = None
    history: HistoryDesk | None = None
    precedence: Precedence = field(default_factory=Precedence)
    gave_way: set[str] = field(default_factory=set)
    """The names of the threads that asked whether a tick is at work."""

    def __post_init__(self) -> None:
        self.state = ControlState(lambda: self.now)
        status = partial(api.status, version="1.2.3", pid=4711)
        self.stream = Stream(self.state, status=status, now=lambda: self.now, most_listeners=2)
        self.metrics = Metrics(version="1.2.3")
        self.world = World()
        self.switches = Switches(lambda: self.now, lambda: None)
        self.leases = LeaseBook(lambda: self.now, lambda: 0.02)

    @property
    def client(self) -> ControlClient:
        return ControlClient(str(self.socket))

    def app(self, reader_gid: int | None = None) -> ControlApp:
        access = Access(own_uid=os.geteuid(), reader_gid=reader_gid)
        return ControlApp(
            state=self.state,
            jobs=self.world.jobs,
            access=access,
            version="1.2.3",
            pid=4711,
            now=lambda: self.now,
            look=self.known.get,
            reload=self._reload,
            count=self.metrics.control_request,
            imports=self.imports,
            recorder=self.recorder,
            operator=Operator(
                switches=self.switches,
                leases=self.leases,
                access=access,
                view=self.state.view,
                now=lambda: self.now,
                config=lambda: {"path": None, "config": {"mode": "enforce"}, "origins": {}},
            ),
            history=self.history,
            stream=self.stream,
        )

    def server(
        self,
        *,
        group: str | None = None,
        reader_gid: int | None = None,
        app: ControlApp | None = None,
        bounds: Bounds = CONTROL_BOUNDS,
    ) -> ControlServer:
        return ControlServer(
            path=str(self.socket),
            group=group,
            app=app or self.app(reader_gid),
            on_error=self.errors.append,
            turned_away=self.turned_away.append,
            give_way=self._give_way,
            bounds=bounds,
        )

    def metrics_server(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        pages: Mapping[str, WSGIApplication] | None = None,
        bounds: Bounds = OPEN_BOUNDS,
    ) -> MetricsServer:
        app = MetricsApp(state=self.state, now=lambda: self.now, render=self.metrics.render, pages=pages)
        return MetricsServer(
            host=host,
            port=port,
            app=app,
            on_error=self.errors.append,
            turned_away=self.turned_away.append,
            give_way=self._give_way,
            bounds=bounds,
        )

    def _give_way(self) -> None:
        self.gave_way.add(threading.current_thread().name)
        self.precedence.give_way()

    def tell(self, report: TickReport) -> None:
        """End a tick, as the loop does."""
        self.state.emit(report)
        self.stream.emit(report)

    def _reload(self) -> None:
        self.reloads += 1


@contextmanager
def running(server: ControlServer | MetricsServer) -> Iterator[None]:
    """Serve for the length of a block, and check that stopping is quick."""
    server.start()
    try:
        yield
    finally:
        started = time.monotonic()
        server.stop()
        assert time.monotonic() - started < 1.0
