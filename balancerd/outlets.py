"""What the daemon tells others by beside its control socket: the history, the page, and /metrics.

Owns how they follow from the configuration. Must not know when anything is told.
"""

import functools
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from balancerd import __version__
from balancerd.config.schema import Config
from balancerd.control.metrics_app import MetricsApp
from balancerd.control.server import MetricsServer
from balancerd.control.state import ControlState
from balancerd.control.taking import TAKE_KEY
from balancerd.engine.chronicle import Chronicle
from balancerd.history.book import History
from balancerd.history.place import find_file
from balancerd.history.store import Store
from balancerd.kernel.affinity.journal import state_directory
from balancerd.web.room import Page

STALLED_INTERVALS: Final = 10
"""/healthz turns bad when no tick has ended for so many intervals, or a minute."""


def find_history(config: Config) -> Path | None:
    """Return the file that the history is kept in, None for none."""
    if not config.history.enabled:
        return None
    return find_file(config.history.path, state_directory(config.state_directory, os.environ))


def keep_history(
    config: Config, file: Path | None, chronicle: Chronicle, *, tell: Callable[[str], None]
) -> History | None:
    """Return what writes the history to a file, None for none."""
    if file is None:
        return None
    open_store = functools.partial(
        Store,
        max_rows=config.history.max_rows,
        max_bytes=config.history.max_size_bytes,
        version=__version__,
        started_at=time.time(),
    )
    return History(file, chronicle, open_store, tell=tell)


def build_page(config: Config, now: Callable[[], float]) -> Page | None:
    """Return the page, None where it is off, or nothing listens."""
    listen = config.metrics.listen
    if listen is None or not config.page.enabled:
        return None
    return Page(
        now=now,
        version=__version__,
        host=os.uname().nodename,
        config=config,
        hosts=(listen.host,),
        take_key=TAKE_KEY,
    )


def metrics_server(
    config: Config,
    *,
    state: ControlState,
    render: Callable[[str], tuple[str, bytes]],
    page: Page | None,
    now: Callable[[], float],
    on_error: Callable[[str], None],
    turned_away: Callable[[str], None],
    give_way: Callable[[], None],
) -> MetricsServer | None:
    """Return the listener of /metrics, the checks of health and the page; None where nothing listens."""
    listen = config.metrics.listen
    if listen is None:
        return None
    return MetricsServer(
        host=listen.host,
        port=listen.port,
        app=MetricsApp(
            state=state,
            now=now,
            render=render,
            stalled_after_seconds=max(60.0, STALLED_INTERVALS * config.tick_interval_seconds),
            pages={} if page is None else page.applications,
        ),
        on_error=on_error,
        turned_away=turned_away,
        give_way=give_way,
    )


def numa_balancing_mode() -> int | None:
    """Return kernel.numa_balancing, None where the kernel has none."""
    try:
        return int(Path("/proc/sys/kernel/numa_balancing").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
