"""An engine of the daemon's make over a machine in memory, tapped, and its trace in a file."""

import gzip
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from balancerd import plugins
from balancerd.config.schema import Config
from balancerd.engine.tick import Engine
from balancerd.model.ids import ProcessId
from balancerd.model.report import TickReport
from balancerd.ports import AccessWatch, HeatWatch, Kernel
from balancerd.settings import build_policies, build_settings
from balancerd.trace.recorder import Recorder, Source
from balancerd.trace.tap import Tap, TapAccessWatch, TapClock, TapEngine, TapHeatWatch, TapKernel
from tests.unit.fakes import FakeClock

KERNEL_VERSION = (6, 12)
OWN_PID = 4711
SALT = b"the same in every test"
TICK_SECONDS = 2.0


class Recording:
    """The daemon without its loop: ticks every two seconds, and what they told, as lines."""

    def __init__(
        self,
        config: Config,
        kernel: Kernel,
        clock: FakeClock,
        *,
        access_watch: AccessWatch | None = None,
        heat_watch: HeatWatch | None = None,
        salt: bytes = SALT,
        seconds: float = 86_400.0,
    ) -> None:
        self.clock = clock
        self.stopping = False
        self.claimed: frozenset[ProcessId] = frozenset()
        source = Source(version="1.2.3", kernel=KERNEL_VERSION, config=config, own_pid=OWN_PID)
        self.recorder = Recorder(lambda: source, lambda: 0.0, salt=lambda: salt)
        tap = Tap(should_stop=lambda: self.stopping, claimed=lambda: self.claimed)
        settings = build_settings(config, plugins.discover())
        engine = Engine(
            kernel=TapKernel(kernel, tap),
            clock=TapClock(clock, tap),
            policies=build_policies(config, plugins.discover(), KERNEL_VERSION),
            settings=replace(settings, criteria=replace(settings.criteria, own_pid=OWN_PID)),
            should_stop=tap.should_stop,
            memory=settings.new_memory(),
            claimed=tap.claimed,
            access_watch=None if access_watch is None else TapAccessWatch(access_watch, tap),
            heat_watch=None if heat_watch is None else TapHeatWatch(heat_watch, tap),
        )
        self.engine = TapEngine(engine, tap, self.recorder)
        self.seconds = seconds
        self.lines: list[str] = []
        self.number: int | None = None

    def start(self) -> None:
        self.number = self.recorder.start(self.seconds)

    def tick(self) -> TickReport | None:
        """One tick and what the loop does before the next; None when it failed."""
        try:
            report = self.engine.tick()
        except OSError:
            report = None
        self.clock.cpu += 0.001
        self.engine.note_moving(0.0005)
        self.engine.next_tick_at(self.clock.time + TICK_SECONDS)
        self.clock.time += TICK_SECONDS
        self.fetch()
        return report

    def ticks(self, number: int, before: Callable[[int], None] = lambda _: None) -> list[TickReport | None]:
        reports = []
        for index in range(number):
            before(index)
            reports.append(self.tick())
        return reports

    def fetch(self) -> None:
        if self.number is not None:
            self.lines += self.recorder.fetch(self.number).lines

    def write(self, path: Path, *, ended: str | None = "as asked") -> Path:
        lines = self.lines if ended is None else [*self.lines, json.dumps({"end": ended}, separators=(",", ":"))]
        text = "".join(f"{line}\n" for line in lines)
        path.write_bytes(gzip.compress(text.encode("ascii"), mtime=0))
        return path
