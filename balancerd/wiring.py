"""The object graph: the only place where the daemon's parts meet. No logic beyond who gets what."""

import contextlib
import functools
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from balancerd import __version__, outlets, plugins, stack
from balancerd.config import loader
from balancerd.config.findings import ConfigError
from balancerd.config.places import find_places
from balancerd.config.schema import Config
from balancerd.config.units import format_duration
from balancerd.control import api
from balancerd.control.access import Access
from balancerd.control.api import Json
from balancerd.control.app import ControlApp
from balancerd.control.history_api import HistoryDesk
from balancerd.control.lease_book import LeaseBook
from balancerd.control.listening import ServerError, group_id
from balancerd.control.operator_api import Operator
from balancerd.control.server import ControlServer, MetricsServer
from balancerd.control.state import ControlState, View
from balancerd.control.stream_api import Stream
from balancerd.daemon import Daemon, Flags, ReloadError, Running
from balancerd.engine.chronicle import Chronicle
from balancerd.engine.deciding import LONGEST_SECONDS
from balancerd.engine.memory import EngineMemory
from balancerd.engine.rules import compile_groups
from balancerd.engine.select import reason_to_skip
from balancerd.engine.story import report
from balancerd.engine.tick import Engine, Settings
from balancerd.history.place import find_first_id
from balancerd.history.reader import read_history
from balancerd.jobs.board import Jobs
from balancerd.jobs.means import Means
from balancerd.jobs.record import Job
from balancerd.jobs.switches import Switches
from balancerd.kernel.affinity.journal import Journal, state_directory
from balancerd.kernel.clock import MonotonicClock
from balancerd.kernel.live import LiveKernel
from balancerd.kernel.machine.release import kernel_version
from balancerd.kernel.observe import ObserveKernel
from balancerd.kernel.processes.descriptors import raise_descriptor_limit
from balancerd.log import TickLog, setup
from balancerd.log.journald import Journal as SystemJournal
from balancerd.log.journald import is_journal
from balancerd.metrics import Metrics
from balancerd.model.report import ProcessReport
from balancerd.overrun import Overrun
from balancerd.ports import Kernel, PolicyPlugin, Sink
from balancerd.precedence import Precedence
from balancerd.settings import build_accesses, build_pace, build_policies, build_settings, options_by_kind
from balancerd.systemd import Notifier, watchdog_interval
from balancerd.trace.recorder import Recorder, Source
from balancerd.trace.tap import Tap, TapAccessWatch, TapClock, TapEngine, TapHeatWatch, TapKernel
from balancerd.web.room import Page

STDERR = 2
"""The descriptor of standard error, also where sys.stderr is something else."""


class StartError(Exception):
    """The daemon cannot start; the message is for the operator, one finding a line."""


class Application:
    """The daemon of one process: builds everything once, and what depends on the configuration again at a reload."""

    def __init__(self, *, path: Path | None, overrides: Sequence[str]) -> None:
        self._path = path
        self._overrides = tuple(overrides)
        self._clock = MonotonicClock()
        self._precedence = Precedence()
        self._flags = Flags(self._clock.wake)
        self._plugins = _or_start_error(plugins.discover)
        loaded = self._load()
        self._config, self._places = loaded.config, find_places(loaded)
        raise_descriptor_limit()
        self._live = LiveKernel(
            clock=self._clock,
            pace=build_pace(self._config),
            read_timeout_seconds=self._config.select.read_timeout_seconds,
            groups=compile_groups(self._config.workloads),
            accesses=build_accesses(self._config),
            tell=lambda told: self._running.log.info("perf log", told=told),
            tell_heat=lambda told: self._running.log.warning("heat", told=told),
            journal=Journal(state_directory(self._config.state_directory, os.environ)),
            tell_threads=lambda told: self._running.log.error("threads", told=told),
        )
        self._journal = SystemJournal() if is_journal(STDERR) else None
        self._history_file = outlets.find_history(self._config)
        self._chronicle = Chronicle(find_first_id(self._history_file))
        self._history = outlets.keep_history(
            self._config,
            self._history_file,
            self._chronicle,
            tell=lambda told: self._running.log.warning("history", told=told),
        )
        self._metrics = Metrics(
            version=__version__,
            numa_balancing_mode=outlets.numa_balancing_mode,
            history=lambda: None if self._history is None else self._history.figures(),
        )
        self._state = ControlState(self._clock.now)
        self._page = outlets.build_page(self._config, self._clock.now)
        self._operator: Operator | None = None
        self._stream = Stream(self._state, status=self._tell_status, now=self._clock.now)
        self._overrun = Overrun(LONGEST_SECONDS, self._on_policy_hangs)
        self._built: tuple[Config, Settings] | None = None
        self._memory: EngineMemory = self._settings(self._config).new_memory()
        self._switches = Switches(self._clock.now, self._clock.wake)
        self._leases = LeaseBook(self._clock.now, lambda: self._config.migrate.watermark_ratio)
        self._origins = {key: str(place) for key, place in loaded.origins.items()}
        self._jobs = Jobs(
            self._means(self._config),
            own_pid=os.getpid(),
            wake=self._clock.wake,
            should_stop=self._flags.should_stop,
            on_end=self._on_job_ended,
            is_halted=self._switches.is_halted,
        )
        self._recorder = Recorder(self._describe, self._clock.now)
        self._running = self._assemble(self._config)
        self._warn(loaded)

    def run(self, *, once: bool) -> int:
        """Serve and tick until told to stop; return the exit status. Raises StartError."""
        self._flags.install(self._clock.wake_fd)
        with contextlib.ExitStack() as stack:
            stack.callback(self._live.heat.close)
            self._live.steerer.recover()
            stack.callback(self._live.steerer.restore_all)
            if self._history is not None:
                self._history.start()
                stack.callback(self._history.close)
            try:
                servers = list(self._servers())
                self._clock.leave_out(lambda: [tid for server in servers for tid in server.thread_ids])
                for server in servers:
                    server.start()
                    stack.callback(server.stop)
                stack.callback(self._stream.close)
            except ServerError as error:
                raise StartError(str(error)) from error
            self._on_reloaded(None)
            daemon = Daemon(
                running=self._running,
                reload=self._reload,
                clock=self._clock,
                flags=self._flags,
                jobs=self._jobs,
                sinks=tuple(self._sinks()),
                on_tick_failed=self._on_tick_failed,
                on_reloaded=self._on_reloaded,
                notifier=Notifier(),
                watchdog_seconds=watchdog_interval(),
                precedence=self._precedence,
                before_tick=self._obey,
            )
            return daemon.run(once=once)

    def _load(self) -> loader.Loaded:
        try:
            loaded = loader.load(
                self._path, overrides=self._overrides, plugins=options_by_kind(self._plugins), obeyed=True
            )
        except ConfigError as reason:
            raise StartError("\n".join(map(str, reason.findings))) from reason
        missing = stack.find_missing_nodes(loaded, self._plugins)
        state = state_directory(loaded.config.state_directory, os.environ)
        missing += stack.find_exposed(loaded, state)
        missing += stack.find_missing_journal(loaded, self._plugins, state)
        if missing:
            raise StartError("\n".join(map(str, missing)))
        return replace(loaded, findings=(*loaded.findings, *stack.advise_on_options(loaded, self._plugins)))

    def _assemble(self, config: Config) -> Running:
        tap = Tap(should_stop=self._should_stop, claimed=self._jobs.claimed)
        engine = Engine(
            kernel=self._kernel(config, TapKernel(self._live, tap)),
            clock=TapClock(self._clock, tap),
            policies=build_policies(config, self._plugins, kernel_version()),
            settings=self._settings(config),
            should_stop=tap.should_stop,
            memory=self._memory,
            claimed=tap.claimed,
            access_watch=TapAccessWatch(self._live.access_watch, tap),
            heat_watch=TapHeatWatch(self._live.heat, tap),
            on_policy=self._overrun,
        )
        names = ", ".join(policy.name for policy in config.policies) or "no policy"
        summary = f"{config.mode}: {names}, every {format_duration(config.tick_interval_seconds)}"
        journal = self._journal if config.log.format == "auto" else None
        log = setup(level=config.log.level, form=config.log.format, stream=sys.stderr, journal=journal)
        return Running(
            engine=TapEngine(engine, tap, self._recorder),
            tick_interval_seconds=config.tick_interval_seconds,
            summary=summary,
            log=log,
            tick_log=TickLog(log, None if journal is None else self._chronicle),
        )

    def _kernel(self, config: Config, kernel: Kernel) -> Kernel:
        return kernel if config.mode == "enforce" else ObserveKernel(kernel)

    def _describe(self) -> Source:
        return Source(version=__version__, kernel=kernel_version(), config=self._config, own_pid=os.getpid())

    def _means(self, config: Config) -> Means:
        return Means(
            kernel=self._kernel(config, self._live),
            machine=self._live,
            clock=self._clock,
            memory=self._memory,
            limits=self._settings(config).limits,
        )

    def _settings(self, config: Config) -> Settings:
        """Return what a configuration means to the engine, worked out once: whoever asks for a process asks for it."""
        if self._built is None or self._built[0] is not config:
            self._built = config, build_settings(config, self._plugins)
        return self._built[1]

    def _reload(self) -> Running:
        try:
            loaded = self._load()
        except StartError as error:
            raise ReloadError(str(error)) from error
        config = loaded.config
        fixed = [
            key
            for key, old, new in (
                ("metrics.listen", self._config.metrics, config.metrics),
                ("page", self._config.page, config.page),
                ("control", self._config.control, config.control),
                ("state_directory", self._config.state_directory, config.state_directory),
                ("history", self._config.history, config.history),
            )
            if old != new
        ]
        if fixed:
            raise ReloadError(f"{', '.join(fixed)} cannot change while running: restart balancerd for it")
        self._recorder.end("the configuration was loaded again")
        running = self._assemble(config)
        self._live.set_pace(build_pace(config))
        self._live.set_read_timeout(config.select.read_timeout_seconds)
        self._live.set_groups(compile_groups(config.workloads))
        self._live.set_accesses(build_accesses(config))
        self._jobs.use(self._means(config))
        self._config, self._running, self._places = config, running, find_places(loaded)
        self._origins = {key: str(place) for key, place in loaded.origins.items()}
        self._warn(loaded)
        return running

    def _obey(self) -> Running | None:
        """Do as operators have switched; return what to go on with in another mode, None when the mode stays."""
        halted = self._switches.tell()
        self._memory.pause.halt(halted)
        if halted is not None:
            self._recorder.end("balancerd was paused")
        mode = self._switches.take_mode()
        if mode is None or mode == self._config.mode:
            return None
        self._recorder.end("the mode was changed")
        self._config = self._config.model_copy(update={"mode": mode})
        self._running = self._assemble(self._config)
        self._jobs.use(self._means(self._config))
        self._running.log.info("mode changed", mode_summary=self._running.summary)
        return self._running

    def _should_stop(self) -> bool:
        """Whether a tick is to end its moves after the call at hand."""
        return self._flags.should_stop() or self._switches.is_halted()

    def _tell_status(self, view: View, *, now: float) -> Json:
        told = api.status(view, version=__version__, pid=os.getpid(), now=now)
        return told if self._operator is None else self._operator.complete(told)

    def _tell_config(self) -> Json:
        path = self._path or loader.DEFAULT_PATH
        return {
            "path": str(path) if path.exists() else None,
            "config": self._config.model_dump(mode="json", by_alias=True),
            "origins": self._origins,
        }

    def _sinks(self) -> Iterator[Sink]:
        yield from (self._metrics, self._state, self._stream, self._leases)
        yield from (sink for sink in (self._history, self._page) if sink is not None)

    def _servers(self) -> Iterator[ControlServer | MetricsServer | Page]:
        control = self._config.control
        reader_gid, changer_gid = (
            None if name is None else group_id(name) for name in (control.group, control.change_group)
        )
        access = Access(own_uid=os.getuid(), reader_gid=reader_gid, changer_gid=changer_gid)
        self._operator = Operator(
            switches=self._switches,
            leases=self._leases,
            access=access,
            view=self._state.view,
            now=self._clock.now,
            config=self._tell_config,
        )
        yield ControlServer(
            path=control.socket,
            group=control.group or control.change_group,
            app=ControlApp(
                state=self._state,
                jobs=self._jobs,
                access=access,
                version=__version__,
                pid=os.getpid(),
                now=self._clock.now,
                look=self._look,
                reload=self._flags.request_reload,
                count=self._metrics.control_request,
                imports=self._live.logs,
                recorder=self._recorder,
                operator=self._operator,
                history=None
                if self._history_file is None
                else HistoryDesk(functools.partial(read_history, self._history_file)),
                stream=self._stream,
            ),
            on_error=self._server_error,
            turned_away=functools.partial(self._metrics.turned_away, "control"),
            give_way=self._precedence.give_way,
        )
        if self._page is not None:
            yield self._page
        metrics = outlets.metrics_server(
            self._config,
            state=self._state,
            render=self._metrics.render,
            page=self._page,
            now=self._clock.now,
            on_error=self._server_error,
            turned_away=functools.partial(self._metrics.turned_away, "metrics"),
            give_way=self._precedence.give_way,
        )
        if metrics is not None:
            yield metrics

    def _look(self, pid: int) -> ProcessReport | None:
        """Tell of a process that the surveys pass over: small, a kernel thread, or new."""
        process = self._live.look(pid)
        if process is None:
            return None
        skip = reason_to_skip(process, self._settings(self._config).criteria)
        return report(process, None, () if skip is None else (skip,), (), self._live.topology())

    def _on_reloaded(self, error: str | None) -> None:
        at = time.time()
        path = self._path or loader.DEFAULT_PATH
        self._metrics.reload(succeeded=error is None, at=at)
        self._metrics.limit(self._config.migrate.rate_limit_bytes_per_second)
        if self._page is not None:
            self._page.memory.reloaded(self._config, error)
        self._state.reloaded(
            path=str(path) if path.exists() else None,
            succeeded=error is None,
            at=at,
            error=error or "",
            places=self._places,
        )

    def _on_tick_failed(self, error: str) -> None:
        self._metrics.tick_failed("tick", error)
        self._state.tick_failed()
        if self._page is not None:
            self._page.memory.tick_failed(error)

    def _on_policy_hangs(self, name: str, seconds: float) -> None:
        self._running.log.warning("policy hangs", policy=name, seconds=seconds)

    def _on_job_ended(self, job: Job) -> None:
        self._running.log.info(
            "job ended",
            id=job.id,
            kind=job.request.kind,
            pid=job.process.pid,
            state=job.state.value,
            reason=None if job.reason is None else job.reason.value,
            detail=job.detail,
            moved_bytes=job.account.moved_bytes,
            evicted_pages=job.account.evicted_pages,
            pages={status.value: pages for status, pages in job.account.pages.items()},
        )

    def _server_error(self, text: str) -> None:
        self._running.log.warning("http server", error=text)

    def _warn(self, loaded: loader.Loaded) -> None:
        for finding in loaded.findings:
            self._running.log.warning("configuration", finding=str(finding))


def _or_start_error(discover: Callable[[], dict[str, PolicyPlugin[Any]]]) -> dict[str, PolicyPlugin[Any]]:
    try:
        return discover()
    except plugins.PluginError as error:
        raise StartError(str(error)) from error
