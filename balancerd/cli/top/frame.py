"""One tick as `balancerctl top` gets it, and what it takes from several: pure. It must not know how it is shown."""

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from balancerd.cli import words
from balancerd.cli.options import SCHEMA, Document
from balancerd.cli.screen import escape
from balancerd.cli.status import is_healthy

KEPT_RATES: Final = 240
"""As many columns as the widest terminal has room for."""

NAMED: Final = 3
"""So many workloads are named at each node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the view is to show: `sort` and `match` as in GET /v1/top."""

    sort: str
    match: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """The answers to GET /v1/status and GET /v1/top at one moment; `missed` ticks have ended since the frame before."""

    status: Document
    top: Document
    missed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """There is no frame, and why, for people."""

    why: str


class SchemaError(Exception):
    """The daemon speaks another version of the API."""


def of_event(event: Document) -> Frame:
    """Return the frame of an event of GET /v1/stream. Raises SchemaError."""
    if event.get("schema") != SCHEMA:
        raise SchemaError
    status = event["status"]
    if status["tick"] is not None:
        status = {**status, "tick": {**status["tick"], "age_seconds": event["age_seconds"]}}
    return Frame(status=status, top=event["top"], missed=event["missed"])


def of_answers(status: Document, top: Document) -> Frame:
    """Return the frame of two answers. Raises SchemaError."""
    if status.get("schema") != SCHEMA or top.get("schema") != SCHEMA:
        raise SchemaError
    return Frame(status=status, top=top)


class Rates:
    """What was moved in each tick, in bytes in a second, the oldest first."""

    def __init__(self) -> None:
        self.rates: deque[float] = deque(maxlen=KEPT_RATES)
        self._before: tuple[int, int, int] | None = None

    def note(self, frame: Frame) -> None:
        """Take one more frame. Ticks that were missed get the mean; another daemon begins anew."""
        tick, interval = frame.status["tick"], frame.top["interval_seconds"]
        if tick is None:
            return
        now = (frame.status["pid"], tick["number"], frame.status["totals"]["moved_bytes"])
        before, self._before = self._before, now
        if before is None or before[0] != now[0] or now[1] < before[1]:
            self.rates.clear()
            return
        ticks = now[1] - before[1]
        if ticks > 0 and interval:
            self.rates.extend([(now[2] - before[2]) / ticks / interval] * min(ticks, KEPT_RATES))

    def last(self) -> float | None:
        """What the last tick moved in a second; None before two were seen."""
        return self.rates[-1] if self.rates else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """How much of a node's memory somebody holds; no `name`: all others, the page cache and the kernel among them."""

    name: str
    ratio: float


def held_by(node: Document, workloads: Sequence[Document], named: int = NAMED) -> tuple[Share, ...]:
    """Return who holds a node's memory, most first, and then the rest of what is used; empty where that is not known.

    Only of `workloads`; what they share counts for each, so their shares are cut to what is used.
    """
    total, free = node["total_bytes"], node["free_bytes"]
    if not total or free is None:
        return ()
    key, used = str(node["node"]), max(0, total - free)
    holders = [(w["bytes_by_node"].get(key, 0), w["name"]) for w in workloads if w["bytes_by_node"]]
    shares, left = [], used
    for held_bytes, name in sorted(holders, key=lambda each: (-each[0], each[1]))[:named]:
        held = min(held_bytes, left)
        if held > 0:
            shares.append(Share(name=name, ratio=held / total))
            left -= held
    return (*shares, Share(name="", ratio=left / total))


def by_state(status: Document) -> list[tuple[str, int]]:
    """Return how many processes are in each state, in the order in which people want to know; empty before a tick."""
    counts = status["counts"]
    if counts is None:
        return []
    states: Counter[str] = Counter()
    for reason, number in counts["by_reason"].items():
        states[words.state(reason)] += number
    states["small"] += counts["small_processes"]
    first = ("moving", "held", "not-worth", "no-home", "unsampled", "well-placed")
    order = {state: place for place, state in enumerate(first)}
    return sorted(
        ((state, number) for state, number in states.items() if number), key=lambda s: (order.get(s[0], 9), s)
    )


def warnings(status: Document) -> list[str]:
    """Return what is wrong with the daemon, safe to print; empty when all is well."""
    found = []
    if is_healthy(status) is False:
        found.append(f"stalled: no tick has ended for {words.age(status['tick']['age_seconds'])}")
    halt: Mapping[str, float | None] | None = status.get("pause")
    if halt is not None:
        left = halt["left_seconds"]
        found.append("paused by an operator" + ("" if left is None else f" for {words.age(left)} more"))
    elif status["paused"]:
        found.append(f"paused: {escape(status['paused_detail'] or '')}")
    for policy, failure in status["disabled_policies"].items():
        found.append(f"policy {escape(policy)} disabled: {escape(failure['detail'])}")
    reload = status["config"]["last_reload"]
    if reload is not None and not reload["succeeded"]:
        found.append(f"reload failed, the old configuration stays: {escape(reload['error'])}")
    yielding = [each for each in status["managers"] or () if each["active"] and each["yields"]]
    return [*found, *(f"yields to {escape(each['manager'])}: {escape(each['detail'])}" for each in yielding)]
