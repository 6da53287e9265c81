"""How much of what may be used was used in the last tick: observing, moving, the busiest link, evicting. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass

from balancerd.model.report import TickReport
from balancerd.web.figures import Column, Piece, bar, percent, rate, section, table
from balancerd.web.markup import Html, element
from balancerd.web.memory import View
from balancerd.web.past import evicted_bytes_of, flows_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """One budget; `used` and `allowed` are figures to read, `ratio` is the one over the other, None: not known."""

    name: str
    setting: str
    used: str
    allowed: str
    ratio: float | None


COLUMNS = (
    Column(title="budget"),
    Column(title="used", number=True),
    Column(title="allowed", number=True),
    Column(title="share", wide=True),
)


def budgets(view: View, report: TickReport) -> Html:
    """Return a bar for each budget."""
    rows = [
        (
            element("div", each.name, element("small", each.setting), class_="name"),
            each.used,
            each.allowed,
            _share(each),
        )
        for each in in_use(view, report)
    ]
    return section("budgets", "Budgets", table(COLUMNS, rows, "Use of budgets"), note="Over the last tick.")


def in_use(view: View, report: TickReport) -> Iterator[Budget]:
    """Return every budget. Where a tick may save up what earlier ones left, the share can be above one."""
    interval = report.survey.interval_seconds
    cores, allowed = report.scan_cores, report.scan_budget_ratio
    yield Budget(
        name="observing, of one core",
        setting="select.scan_budget",
        used=percent(cores, 2),
        allowed="no limit" if allowed is None else percent(allowed, 2),
        ratio=cores / allowed if cores is not None and allowed else None,
    )
    flows = flows_of(report)
    migrate = view.config.migrate
    yield _rate("moving", "migrate.rate_limit", sum(flows.values()), migrate.rate_limit_bytes_per_second, interval)
    busiest = max(flows, key=lambda pair: (flows[pair], pair), default=None)
    yield _rate(
        "busiest pair of nodes" if busiest is None else f"moving from node {busiest[0]} to {busiest[1]}",
        "migrate.node_pair_rate_limit",
        0 if busiest is None else flows[busiest],
        migrate.node_pair_rate_limit_bytes_per_second,
        interval,
    )
    evicted, evict_limit = evicted_bytes_of(report), view.config.evict.rate_limit_bytes_per_second
    yield _rate("evicting", "evict.rate_limit", evicted, evict_limit, interval)


def _rate(name: str, setting: str, used_bytes: int, limit_bytes_per_second: float, interval: float | None) -> Budget:
    used = used_bytes / interval if interval else None
    return Budget(
        name=name,
        setting=setting,
        used=rate(used),
        allowed=rate(limit_bytes_per_second),
        ratio=None if used is None else used / limit_bytes_per_second,
    )


def _share(budget: Budget) -> Html | str:
    if budget.ratio is None:
        return "unknown"
    kind = "over" if budget.ratio > 1 else "plain"
    told = f"{budget.name}: {percent(budget.ratio)} of what is allowed"
    return bar([Piece(ratio=min(1.0, budget.ratio), colour=kind, told=percent(budget.ratio))], told)
