"""The newest decisions: what was wanted of whom, why, and what became of it. Pure."""

from typing import Final

from balancerd.model.decision import REASON_TEXT
from balancerd.web.figures import Column, age, count, details, section, size, table
from balancerd.web.markup import Html, element, shorten
from balancerd.web.memory import View
from balancerd.web.recent import KEPT, PastDecision

LONGEST_DETAIL: Final = 160
SHOWN: Final = 10
"""The others are there when somebody asks for them."""

COLUMNS: Final = (
    Column(title="last"),
    Column(title="process"),
    Column(title="wanted"),
    Column(title="because", wide=True),
    Column(title="done", number=True),
    Column(title="held back by"),
)


def decisions(view: View, now: float) -> Html:
    """Return a line for each of the newest decisions, the newest first."""
    if not view.decisions:
        told = element("p", "Nothing was decided yet: no process is worth a move.")
        return section("decisions", "Decisions", told)
    rows = [_row(each, now) for each in reversed(view.decisions)]
    shown = table(COLUMNS, rows[:SHOWN], "The newest decisions")
    older = table(COLUMNS, rows[SHOWN:], "Older decisions")
    note = f"The newest {KEPT} at most. The whole story of a process: balancerctl explain PID"
    more = [details("decisions-older", f"{len(rows) - SHOWN} older", older)] if len(rows) > SHOWN else []
    return section("decisions", "Decisions", shown, *more, note=note)


def _row(decision: PastDecision, now: float) -> tuple[Html | str, ...]:
    return (
        element(
            "div",
            f"{age(now - decision.last_at)} ago",
            element("small", count(decision.ticks, "tick")),
            class_="name here",
        ),
        element(
            "div",
            element("b", "unknown" if decision.comm is None else shorten(decision.comm)),
            element("small", f"pid {decision.process.pid}"),
            class_="name",
        ),
        element("div", _wanted(decision), element("small", shorten(decision.policy)), class_="name"),
        element(
            "div",
            element("span", REASON_TEXT[decision.reason], class_="meaning"),
            element("small", shorten(decision.detail, LONGEST_DETAIL)),
            class_="name",
        ),
        _done(decision),
        _held(decision),
    )


def _wanted(decision: PastDecision) -> str:
    if decision.action == "steer":
        return f"threads to node {decision.target}"
    return "evict" if decision.target is None else f"move to node {decision.target}"


def _done(decision: PastDecision) -> Html | str:
    if not decision.failed_pages:
        return size(decision.done_bytes)
    failed = element("small", f"{count(decision.failed_pages, 'page')} failed")
    return element("div", size(decision.done_bytes), failed, class_="name")


def _held(decision: PastDecision) -> Html | str:
    if decision.held_by is None:
        return element("span", "nothing", class_="muted")
    told = element("span", decision.held_by.value, class_="tag warn", title=REASON_TEXT[decision.held_by])
    detail = element("small", shorten(decision.held_detail, LONGEST_DETAIL)) if decision.held_detail else None
    return element("div", told, detail, class_="name")
