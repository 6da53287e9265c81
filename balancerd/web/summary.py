"""The top of the page: whether the daemon is well, what needs attention, and five figures. Pure.

Ten seconds must suffice: one word, one sentence, and a warning for each thing that somebody should look at.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from balancerd.model.decision import Reason
from balancerd.model.health import is_stalled
from balancerd.model.manager import MACHINE_WIDE, MANAGER_TEXT, REMEDY
from balancerd.model.report import TickReport
from balancerd.model.sample import PAGE_BYTES
from balancerd.model.states import STATES
from balancerd.web import figures
from balancerd.web.markup import Html, element
from balancerd.web.memory import View
from balancerd.web.past import Minute


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """How the daemon fares: `level` is "good", "warn" or "bad"."""

    level: str
    word: str
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Something to look at, and what can be done about it."""

    level: str
    text: str
    remedy: str = ""


def state(view: View, now: float) -> State:
    """Return the one thing that matters most."""
    report = view.report
    if report is None or view.told_at is None:
        return State(level="warn", word="starting", sentence="No tick has ended yet.")
    late = now - view.told_at
    interval = max(view.config.tick_interval_seconds, report.survey.interval_seconds or 0.0)
    if is_stalled(late, interval):
        return State(level="bad", word="stalled", sentence=f"The last tick ended {figures.age(late)} ago.")
    found = tuple(warnings(view))
    if any(each.level == "bad" for each in found):
        return State(level="bad", word="needs attention", sentence="Something is wrong, see below.")
    if report.paused is not None:
        return State(level="warn", word="paused", sentence="Moves rest for a while.")
    if report.mode == "observe":
        return State(level="good", word="observing", sentence="It decides and explains, and moves nothing.")
    if found:
        return State(level="warn", word="working", sentence="Something is worth a look, see below.")
    return State(level="good", word="healthy", sentence=_doing(report))


def warnings(view: View) -> Iterator[Notice]:
    """Return what somebody should look at, the worst first."""
    report = view.report
    if view.failed is not None:
        yield Notice(level="bad", text=f"The last tick failed: {view.failed}.", remedy="The log tells more.")
    if view.refused is not None:
        first, *others = view.refused.splitlines() or [""]
        more = f" (and {figures.count(len(others), 'more line')})" if others else ""
        yield Notice(
            level="bad",
            text=f"The new configuration was refused, the old one is in effect: {first}{more}",
            remedy="Correct it and reload: balancerctl config check",
        )
    if report is None:
        return
    for name, failure in report.disabled_policies.items():
        yield Notice(
            level="bad",
            text=f"Policy {name} is asked no more ({failure.cause.value}): {failure.detail}",
            remedy="balancerctl reload starts it again.",
        )
    if report.paused is not None:
        yield Notice(level="warn", text=f"Paused: {report.paused}")
    for found in report.survey.managers:
        if found.active and found.manager in MACHINE_WIDE:
            effect = "nothing moves while it does" if found.manager in report.yield_to else "both go on: see yield_to"
            text = f"{MANAGER_TEXT[found.manager]}; {effect}."
            yield Notice(level="warn", text=text, remedy=REMEDY[found.manager])
    if any(skip.reason is Reason.PRESSURE for skip in report.plan.rejected):
        yield Notice(level="warn", text="The machine is under pressure, and moves wait until it has passed.")


def summary(view: View, now: float, hour: Minute) -> Html:
    """Return the top of the page below its title; `hour` is the sum of the last one."""
    found = state(view, now)
    badge = element("span", found.word, class_=f"badge {found.level}", id="state")
    return element(
        "section",
        element("p", badge, " ", element("span", found.sentence), class_="verdict"),
        element("p", _facts(view, now), class_="note"),
        [_warning(each) for each in warnings(view)],
        element("dl", _tiles(view, hour), class_="tiles") if view.report is not None else None,
        id="summary",
        aria_label="Summary",
    )


def _facts(view: View, now: float) -> str:
    facts = [] if view.report is None else [f"mode {view.report.mode}"]
    if view.report is not None and view.told_at is not None:
        facts.append(f"tick {view.report.number:,} ended {figures.age(now - view.told_at)} ago")
    if view.failed_ticks:
        facts.append(f"{figures.count(view.failed_ticks, 'tick')} failed")
    policies = ", ".join(policy.name for policy in view.config.policies) or "none"
    facts += [f"policies: {policies}", f"up {figures.age(now - view.started_at)}", f"version {view.version}"]
    return " · ".join(facts)


def _doing(report: TickReport) -> str:
    moved = sum(done.moved_pages for done in report.outcomes) * PAGE_BYTES
    pending = sum(each.pending_bytes for each in report.workloads)
    waiting = f"{figures.size(pending)} wait to move" if pending else "nothing waits to move"
    return (
        f"Moved {figures.size(moved)} in the last tick, {waiting}." if moved else f"{waiting[0].upper()}{waiting[1:]}."
    )


def _warning(found: Notice) -> Html:
    remedy = element("span", found.remedy, class_="remedy") if found.remedy else None
    word = "problem" if found.level == "bad" else "note"
    return element("p", element("b", f"{word}: "), found.text, " ", remedy, class_=f"warning {found.level}")


def _tiles(view: View, hour: Minute) -> Iterator[Html]:
    report = view.report
    if report is None:
        return
    judged = sum(each.judged_bytes for each in report.workloads)
    local = sum(each.local_bytes for each in report.workloads)
    yield _tile(
        "local memory",
        figures.percent(local / judged if judged else None, 1),
        f"{figures.size(judged - local)} lie away from their threads" if judged else "nothing was looked at yet",
    )
    submitted = sum(hour.pages.values())
    failed = f", {figures.percent(hour.failed_pages / submitted, 1)} of pages failed" if submitted else ""
    yield _tile("moved, last hour", figures.size(hour.moved_bytes), f"{figures.size(view.moved_bytes)} in all{failed}")
    pending = sum(each.pending_bytes for each in report.workloads)
    yield _tile("waiting to move", figures.size(pending), "wanted by policies, not done in the last tick")
    states = [STATES[each.reason] for each in report.processes]
    held, moving = states.count("held"), states.count("moving")
    yield _tile(
        "processes",
        f"{len(states):,}",
        f"{moving:,} moving, {held:,} held back, {report.survey.small_processes:,} small",
    )
    allowed = report.scan_budget_ratio
    told = "" if allowed is None else f" of {figures.percent(allowed, 2)} allowed"
    yield _tile("observing costs", figures.percent(report.scan_cores, 2), f"of one core{told}")


def _tile(title: str, figure: str, told: str) -> Html:
    return element(
        "div", element("dt", title), element("dd", element("b", figure), element("span", told)), class_="tile"
    )
