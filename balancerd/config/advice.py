"""Settings that work but that an operator probably does not want: warnings, each with what to write instead.

Pure. It must not know files or places; the key it names leads to them.
"""

import ipaddress
from collections.abc import Iterator

from balancerd.config.schema import Config
from balancerd.config.units import format_duration, format_ratio


def advise(config: Config) -> Iterator[tuple[tuple[str, ...], str]]:
    """Pairs of a key's path and what is doubtful about its value."""
    if config.tick_interval_seconds < 0.5:
        shown = format_duration(config.tick_interval_seconds)
        yield ("tick_interval",), f"looking every {shown} costs CPU and finds little more: 1s to 5s is usual"
    if config.migrate.stall_target_seconds > 0.1:
        shown = format_duration(config.migrate.stall_target_seconds)
        yield ("migrate", "stall_target"), f"one call may hold a process up for {shown}: 5ms to 20ms is usual"
    if config.select.scan_budget_ratio > 0.1:
        shown = format_ratio(config.select.scan_budget_ratio)
        yield ("select", "scan_budget"), f"looking may take {shown} of a core: 0.5% to 2% is usual"
    if (listen := config.metrics.listen) is not None and not _is_loopback(listen.host):
        yield (
            ("metrics", "listen"),
            f"{listen} is open to other machines, without a password: write 127.0.0.1:{listen.port} or use a firewall",
        )
    if not config.policies:
        yield ("policies",), "no policy is at work, so nothing will ever move: remove this key to get the default"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")  # RFC 6761 keeps these names for loopback
