"""The page as wiring sees it: one sink, one thread, and an application for its paths."""

from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from wsgiref.types import WSGIApplication

from balancerd.config.schema import Config
from balancerd.model.report import TickReport
from balancerd.web.app import PATHS, PageApp
from balancerd.web.live import Live
from balancerd.web.memory import PageMemory


class Page:
    """The page from start() to stop(). Arguments are those of PageMemory and PageApp."""

    def __init__(
        self,
        *,
        now: Callable[[], float],
        version: str,
        host: str,
        config: Config,
        hosts: Iterable[str],
        take_key: str,
        most_clients: int | None = None,
    ) -> None:
        self.memory = PageMemory(now, version=version, host=host, config=config)
        self.live = Live() if most_clients is None else Live(most_clients=most_clients)
        self._app = PageApp(memory=self.memory, live=self.live, now=now, hosts={host, *hosts}, take_key=take_key)

    @property
    def applications(self) -> Mapping[str, WSGIApplication]:
        """What answers, by path."""
        return dict.fromkeys(PATHS, self._app)

    @property
    def thread_ids(self) -> AbstractSet[int]:
        """See Live."""
        return self.live.thread_ids

    def start(self) -> None:
        """Tell open pages of ticks from now on."""
        self.live.start()

    def stop(self) -> None:
        """Let open pages go."""
        self.live.stop()

    def emit(self, report: TickReport) -> None:
        """Take one finished tick: first it is remembered, then told of."""
        self.memory.emit(report)
        self.live.emit(report)
