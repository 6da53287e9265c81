"""A machine of four nodes under the daemon's own engine, in simulated time, and the page over it on a real socket."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from balancerd import plugins
from balancerd.cli.simulate import build_means
from balancerd.config.schema import Config
from balancerd.control.metrics_app import MetricsApp
from balancerd.control.server import MetricsServer
from balancerd.control.state import ControlState
from balancerd.control.taking import TAKE_KEY
from balancerd.engine.tick import Engine
from balancerd.metrics import Metrics
from balancerd.model.report import TickReport
from balancerd.model.sample import ProcessSample, Survey
from balancerd.model.workload import Workload, WorkloadKind
from balancerd.ports import SurveyScope
from balancerd.simulation.clock import SimClock
from balancerd.simulation.kernel import SimKernel
from balancerd.simulation.loading import load
from balancerd.simulation.population import chance_of
from balancerd.simulation.run import NO_PID, build_machine
from balancerd.web.room import Page

SCENARIO: Final = Path(__file__).parent / "four-nodes.yaml"

KINDS: Final = {
    "postgres": (WorkloadKind.UNIT, "postgresql@15-main.service"),
    "redis-server": (WorkloadKind.UNIT, "redis-server.service"),
    "java": (WorkloadKind.POD, "shop/search-7d9f6/elasticsearch"),
    "qemu": (WorkloadKind.VM, "build-runner-2"),
    "python3": (WorkloadKind.POD, "ml/features-0/trainer"),
    "cc1plus": (WorkloadKind.GROUP, "ci builds"),
    "nginx": (WorkloadKind.UNIT, "nginx.service"),
    "prometheus": (WorkloadKind.CONTAINER, "monitoring-prometheus"),
}
"""What the processes of the scenario would belong to, by their names."""


class NamedKernel(SimKernel):
    """Names the workloads, which the simulated survey does not know of."""

    def survey(self, scope: SurveyScope) -> Survey:
        """See SimKernel."""
        survey = super().survey(scope)
        return replace(survey, processes=tuple(map(_named, survey.processes)), kernel_threads=412, small_processes=187)


class World:
    """The engine over the scenario, and the page over its reports. `now` is simulated time."""

    def __init__(self, *, most_clients: int | None = None, seed: int = 1) -> None:
        scenario, config = load(str(SCENARIO)), Config()
        means = build_means(config, plugins.discover())
        self.clock = SimClock()
        self._machine = build_machine(scenario, seed)
        kernel = NamedKernel(
            self._machine,
            self.clock,
            chance_of(seed, "samples"),
            duty_ratio=means.duty_ratio,
            call_seconds=means.call_seconds,
        )
        self._engine = Engine(
            kernel=kernel,
            clock=self.clock,
            policies=means.build_policies(),
            settings=replace(means.settings, criteria=replace(means.settings.criteria, own_pid=NO_PID)),
            should_stop=lambda: False,
            memory=means.settings.new_memory(),
        )
        self._interval_seconds = means.interval_seconds
        self.state = ControlState(self.clock.now)
        self.metrics = Metrics(version="0.1.0")
        self.page = Page(
            now=self.clock.now,
            version="0.1.0",
            host="db-7",
            config=config,
            hosts=(),
            take_key=TAKE_KEY,
            most_clients=most_clients,
        )

    def tick(self) -> TickReport:
        """Run one tick, wait until the next is due, and return the report."""
        due_at = self.clock.now() + self._interval_seconds
        report = self._engine.tick()
        for sink in (self.metrics, self.state, self.page):
            sink.emit(report)
        self.clock.wait_until(max(due_at, self._engine.next_tick_at(due_at)))
        return report

    def run_until(self, seconds: float) -> None:
        """Tick until so much simulated time has passed."""
        while self.clock.now() < seconds:
            self.tick()

    @contextmanager
    def served(self) -> Iterator[str]:
        """Answer on a free port for the length of a block; gives the page's address."""
        server = MetricsServer(
            host="127.0.0.1",
            port=0,
            app=MetricsApp(
                state=self.state, now=self.clock.now, render=self.metrics.render, pages=self.page.applications
            ),
            on_error=print,
            turned_away=print,
            give_way=lambda: None,
        )
        self.page.start()
        server.start()
        try:
            host, port = server.address
            yield f"http://{host}:{port}/"
        finally:
            server.stop()
            self.page.stop()


def _named(process: ProcessSample) -> ProcessSample:
    kind, name = KINDS.get(process.comm, (WorkloadKind.OTHER, process.comm))
    return replace(process, workload=Workload(kind=kind, name=name, cgroup=None))
