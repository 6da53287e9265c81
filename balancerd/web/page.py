"""The whole page from what is remembered. Pure: the same view at the same moment gives the same bytes."""

from typing import Final

from balancerd.web.budgets import budgets
from balancerd.web.decisions import decisions
from balancerd.web.markup import Html, element
from balancerd.web.memory import View
from balancerd.web.moves import moves
from balancerd.web.nodes import matrix, nodes
from balancerd.web.past import add_up, last_hour
from balancerd.web.summary import state, summary
from balancerd.web.workloads import reasons, workloads

DOCTYPE: Final = "<!doctype html>\n"


def render(view: View, now: float) -> bytes:
    """Return the page at monotonic second `now`."""
    report = view.report
    hour = last_hour(view.minutes, now, view.started_at)
    total = add_up(hour)
    parts: list[Html] = [summary(view, now, total)]
    if report is not None:
        parts += [
            workloads(report),
            nodes(report),
            matrix(report, total.flows),
            moves(hour, total),
            budgets(view, report),
            decisions(view, now),
            reasons(report),
        ]
    body = element(
        "body",
        element("a", "To the workloads", href="#workloads", class_="skip") if report is not None else None,
        element(
            "header",
            element("h1", "balancerd", element("span", f" on {view.host}")),
            element("p", "Reload for newer figures.", id="live", role="status"),
        ),
        element("main", parts, id="main"),
        element(
            "footer",
            element("p", "This page only reads. Figures for machines: ", element("a", "/metrics", href="/metrics")),
        ),
    )
    title = f"{state(view, now).word} · balancerd on {view.host}"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name_="color-scheme", content="light dark"),
        element("title", title),
        element("link", rel="icon", href="/icon.svg", type="image/svg+xml"),
        element("link", rel="stylesheet", href="/page.css"),
        element("script", src="/page.js", defer=True),
    )
    return (DOCTYPE + element("html", head, body, lang="en").text + "\n").encode("utf-8")
