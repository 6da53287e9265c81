"""Migrations over the last hour: bytes by minute, and the pages that did not move by status. Pure."""

from collections.abc import Iterator, Sequence
from typing import Final

from balancerd.model.page_status import STATUS_TEXT, PageStatus
from balancerd.model.sample import PAGE_BYTES
from balancerd.web.figures import Column, Piece, bar, count, details, percent, section, size, table
from balancerd.web.markup import Html, element
from balancerd.web.past import MINUTES, Minute, add_up

HEIGHT: Final = 100
STEP: Final = 10
"""Width of a minute, in units of the chart."""

ROW_MINUTES: Final = 5
"""So many minutes are one row of the table behind the chart."""


def moves(hour: Sequence[Minute | None], total: Minute) -> Html:
    """Return the chart, the statuses of failed pages, and the table behind both; `total` is the sum of the hour."""
    chart = element("div", _chart(hour), _axis(), class_="chart")
    evicted = f", {size(total.evicted_bytes)} evicted" if total.evicted_bytes else ""
    note = f"{size(total.moved_bytes)} moved{evicted}; {count(total.failed_pages, 'page')} did not move."
    return section("moves", "Moved in the last hour", chart, *_failures(total), _table(hour), note=note)


def _chart(hour: Sequence[Minute | None]) -> Html:
    most = max((minute.moved_bytes for minute in hour if minute is not None), default=0)
    failed = max((minute.failed_pages for minute in hour if minute is not None), default=0) * PAGE_BYTES
    scale = max(most, failed, 1)
    told = f"At most {size(most)} moved in a minute, at most {size(failed)} failed to move in a minute"
    return element(
        "div",
        element("p", f"{size(most)} a minute at most", class_="most"),
        element(
            "svg",
            list(_columns(hour, scale)),
            viewBox=f"0 0 {MINUTES * STEP} {HEIGHT}",
            preserveAspectRatio="none",
            role="img",
            aria_label=told,
        ),
    )


def _columns(hour: Sequence[Minute | None], scale: int) -> Iterator[Html]:
    for place, minute in enumerate(hour):
        x, ago = place * STEP, MINUTES - 1 - place
        if minute is None:
            yield element("rect", class_="absent", x=x, y=0, width=STEP, height=HEIGHT)
            continue
        failed_bytes = minute.failed_pages * PAGE_BYTES
        if not minute.moved_bytes and not failed_bytes:
            continue
        moved = HEIGHT * minute.moved_bytes / scale
        failed = HEIGHT * failed_bytes / scale
        when = "in this minute" if not ago else f"{count(ago, 'minute')} ago"
        title = element("title", f"{when}: {size(minute.moved_bytes)} moved, {size(failed_bytes)} failed")
        yield element(
            "g",
            title,
            element("rect", class_="moved", x=x + 1, y=HEIGHT - moved, width=STEP - 2, height=moved),
            element("rect", class_="failed", x=x + 1, y=HEIGHT - failed, width=(STEP - 2) / 2, height=failed)
            if failed
            else None,
        )


def _axis() -> Html:
    return element(
        "p", element("span", "an hour ago"), element("span", "half an hour"), element("span", "now"), class_="axis"
    )


def _failures(total: Minute) -> Iterator[Html]:
    failed = total.failed_pages
    legend = element(
        "p",
        element("span", class_="key moved"),
        "moved ",
        element("span", class_="key failed"),
        "failed",
        class_="legend",
    )
    yield legend
    if not failed:
        return
    submitted = sum(total.pages.values())
    columns = (
        Column(title="pages", number=True),
        Column(title="status"),
        Column(title="of those submitted", number=True),
        Column(title="share of failures", wide=True),
    )
    ranked = sorted(
        ((pages, status) for status, pages in total.pages.items() if status is not PageStatus.MOVED and pages),
        key=lambda item: (-item[0], item[1].value),
    )
    rows = [
        (
            f"{pages:,}",
            element("div", status.value, element("small", STATUS_TEXT[status]), class_="name"),
            percent(pages / submitted, 1),
            bar([Piece(ratio=pages / failed, colour="failed", told=status.value)], percent(pages / failed), "bar thin"),
        )
        for pages, status in ranked
    ]
    yield table(columns, rows, "Pages that did not move, by status")


def _table(hour: Sequence[Minute | None]) -> Html:
    columns = (
        Column(title="minutes ago"),
        Column(title="moved", number=True),
        Column(title="pages failed", number=True),
        Column(title="evicted", number=True),
    )
    rows = []
    for place in range(0, MINUTES, ROW_MINUTES):
        some = hour[place : place + ROW_MINUTES]
        span = f"{MINUTES - place - ROW_MINUTES} to {MINUTES - place}"
        total = add_up(some)
        known = any(minute is not None for minute in some)
        figures = (size(total.moved_bytes), f"{total.failed_pages:,}", size(total.evicted_bytes))
        rows.append((span, *(figures if known else ("not running",) * 3)))
    return details("moves-table", "As a table", table(columns, rows[::-1], "Moved by five minutes"))
