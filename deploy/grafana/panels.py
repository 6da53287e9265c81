"""Panels, rows and variables in the classic JSON of Grafana, which 10 and 11 read (schemaVersion 39).

Owns every key that Grafana wants. It must not know any metric. No data source is named: each panel asks the one that
the variable `datasource` chooses. Panels are placed in the order in which they are given, from left to right.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

Json: TypeAlias = dict[str, Any]

SCHEMA_VERSION: Final = 39
"""That of Grafana 10.4; later ones bring it up to date as they load it."""

COLUMNS: Final = 24
"""Width of a dashboard in the units of gridPos."""

SOURCE: Final[Json] = {"type": "prometheus", "uid": "${datasource}"}

Steps: TypeAlias = Sequence[tuple[float, str]]
"""Colours from a value on; what is below the first is green."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """An expression, and how each of its series is called. Of an `instant` one only the last value is asked for."""

    expression: str
    legend: str = ""
    instant: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One panel, not placed yet; `width` of COLUMNS."""

    kind: str
    title: str
    text: str
    queries: Sequence[Query]
    width: int
    height: int
    defaults: Json
    options: Json
    overrides: Sequence[Json] = ()
    transformations: Sequence[Json] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Panels under a heading; without one they stand on top of the dashboard. A folded row opens with a click."""

    title: str | None
    panels: Sequence[Panel]
    is_folded: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of a table: the values of one query, and the colours of its cells."""

    title: str
    query: Query
    unit: str = "short"
    steps: Steps = field(default=())


def number(
    title: str,
    text: str,
    query: Query,
    *,
    unit: str = "short",
    steps: Steps = (),
    shows_name: bool = False,
    words: Mapping[float, tuple[str, str]] | None = None,
    width: int = 3,
) -> Panel:
    """Return one large value: a number, the name of its series with `shows_name`, or one of `words` and its colour."""
    shown = [
        {"type": "value", "options": {str(value): {"text": word, "color": colour, "index": index}}}
        for index, (value, (word, colour)) in enumerate((words or {}).items())
    ]
    return Panel(
        kind="stat",
        title=title,
        text=text,
        queries=(Query(expression=query.expression, legend=query.legend, instant=True),),
        width=width,
        height=4,
        defaults={"unit": unit, "mappings": shown, "thresholds": _thresholds(steps), "color": {"mode": "thresholds"}},
        options={
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "colorMode": "background" if steps or words else "value",
            "graphMode": "none",
            "justifyMode": "auto",
            "orientation": "auto",
            "textMode": "name" if shows_name else "value",
        },
    )


def curves(
    title: str,
    text: str,
    *queries: Query,
    unit: str = "short",
    is_stacked: bool = False,
    highest: float | None = None,
    limit: Steps = (),
    width: int = 12,
    height: int = 8,
) -> Panel:
    """Return values over time, from 0 to `highest`; `limit` draws lines."""
    custom: Json = {
        "drawStyle": "line",
        "lineWidth": 1,
        "fillOpacity": 30 if is_stacked else 8,
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"mode": "normal" if is_stacked else "none", "group": "A"},
        "thresholdsStyle": {"mode": "line" if limit else "off"},
    }
    bounds: Json = {"min": 0} if highest is None else {"min": 0, "max": highest}
    return Panel(
        kind="timeseries",
        title=title,
        text=text,
        queries=queries,
        width=width,
        height=height,
        defaults={
            "unit": unit,
            **bounds,
            "custom": custom,
            "color": {"mode": "palette-classic"},
            "thresholds": _thresholds(limit),
        },
        options={
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
    )


def table(
    title: str,
    text: str,
    columns: Sequence[Column],
    *,
    names: Mapping[str, str],
    links: Mapping[str, Json] | None = None,
    sorted_by: str | None = None,
    width: int = COLUMNS,
    height: int = 9,
) -> Panel:
    """Return a row for each series. `names` are the labels shown, by their headings; untitled columns are hidden.

    `links` tell where a click on a cell leads, by heading.
    """
    queries = tuple(Query(expression=c.query.expression, instant=True) for c in columns)
    values = {f"Value #{_reference(place)}" if len(columns) > 1 else "Value": c for place, c in enumerate(columns)}
    order = [*names, *values]
    overrides = [_column(c) for c in columns if c.title]
    overrides += [_override(heading, links=[link]) for heading, link in (links or {}).items()]
    return Panel(
        kind="table",
        title=title,
        text=text,
        queries=queries,
        width=width,
        height=height,
        defaults={"custom": {"align": "auto", "filterable": False}, "thresholds": _thresholds(())},
        overrides=overrides,
        options={
            "showHeader": True,
            "cellHeight": "sm",
            "footer": {"show": False, "reducer": ["sum"], "fields": ""},
            "sortBy": [] if sorted_by is None else [{"displayName": sorted_by, "desc": True}],
        },
        transformations=(
            {"id": "merge", "options": {}},
            {
                "id": "filterFieldsByName",
                "options": {"include": {"names": [*names, *(name for name, c in values.items() if c.title)]}},
            },
            {
                "id": "organize",
                "options": {
                    "excludeByName": {},
                    "includeByName": {},
                    "indexByName": {name: place for place, name in enumerate(order)},
                    "renameByName": {**names, **{name: c.title for name, c in values.items() if c.title}},
                },
            },
        ),
    )


def link(title: str, address: str) -> Json:
    """Return where a click leads; `address` may have Grafana's variables."""
    return {"title": title, "url": address, "targetBlank": False}


def source_variable() -> Json:
    """Return the variable that chooses the Prometheus to ask."""
    return {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        "regex": "",
        "refresh": 1,
        "hide": 0,
        "includeAll": False,
        "multi": False,
        "skipUrlSync": False,
        "options": [],
        "current": {},
    }


def label_variable(name: str, title: str, series: str, *, is_multi: bool) -> Json:
    """Return the variable that chooses values of the label `name` which `series` have; all of them, if `is_multi`."""
    query = f"label_values({series}, {name})"
    everything: Json = {"text": ["All"], "value": ["$__all"], "selected": True}
    return {
        "name": name,
        "label": title,
        "type": "query",
        "datasource": SOURCE,
        "definition": query,
        "query": {"qryType": 1, "query": query, "refId": "PrometheusVariableQueryEditor-VariableQuery"},
        "regex": "",
        "refresh": 2,
        "sort": 1,
        "hide": 0,
        "includeAll": is_multi,
        "multi": is_multi,
        "skipUrlSync": False,
        "options": [],
        "current": everything if is_multi else {},
        **({"allValue": ".*"} if is_multi else {}),
    }


def dashboard(*, uid: str, title: str, text: str, variables: Sequence[Json], rows: Iterable[Row]) -> Json:
    """Return the whole document, with its panels placed and numbered."""
    return {
        "uid": uid,
        "title": title,
        "description": text,
        "tags": ["balancerd"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "timepicker": {},
        "timezone": "",
        "weekStart": "",
        "fiscalYearStartMonth": 0,
        "liveNow": False,
        "annotations": {"list": []},
        "links": [
            {
                "type": "dashboards",
                "title": "balancerd",
                "tags": ["balancerd"],
                "asDropdown": False,
                "includeVars": True,
                "keepTime": True,
                "targetBlank": False,
                "icon": "external link",
                "tooltip": "",
                "url": "",
            }
        ],
        "templating": {"list": list(variables)},
        "panels": _place(rows),
    }


def render(document: Json) -> str:
    """Return the text of the file."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _place(rows: Iterable[Row]) -> list[Json]:
    placed: list[Json] = []
    y = number_given = 0
    for row in rows:
        heading: Json | None = None
        if row.title is not None:
            number_given += 1
            heading = {
                "id": number_given,
                "type": "row",
                "title": row.title,
                "collapsed": row.is_folded,
                "gridPos": {"x": 0, "y": y, "w": COLUMNS, "h": 1},
                "panels": [],
            }
            placed.append(heading)
            y += 1
        inside = heading["panels"] if heading is not None and row.is_folded else placed
        x = tallest = 0
        for panel in row.panels:
            if x + panel.width > COLUMNS:
                x, y, tallest = 0, y + tallest, 0
            number_given += 1
            inside.append(_panel(panel, number_given, x, y))
            x, tallest = x + panel.width, max(tallest, panel.height)
        y += tallest
    return placed


def _panel(panel: Panel, number_given: int, x: int, y: int) -> Json:
    return {
        "id": number_given,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.text,
        "datasource": SOURCE,
        "gridPos": {"x": x, "y": y, "w": panel.width, "h": panel.height},
        "targets": [_target(query, place, panel.kind) for place, query in enumerate(panel.queries)],
        "fieldConfig": {"defaults": panel.defaults, "overrides": list(panel.overrides)},
        "options": panel.options,
        **({"transformations": list(panel.transformations)} if panel.transformations else {}),
    }


def _target(query: Query, place: int, kind: str) -> Json:
    return {
        "refId": _reference(place),
        "datasource": SOURCE,
        "editorMode": "code",
        "expr": query.expression,
        "legendFormat": query.legend or "__auto",
        "instant": query.instant,
        "range": not query.instant,
        **({"format": "table"} if kind == "table" else {}),
    }


def _reference(place: int) -> str:
    return chr(ord("A") + place)


def _thresholds(steps: Steps) -> Json:
    above = [{"value": value, "color": colour} for value, colour in steps]
    return {"mode": "absolute", "steps": [{"value": None, "color": "green"}, *above]}


def _column(column: Column) -> Json:
    shown: Json = {"unit": column.unit}
    if column.steps:
        shown["thresholds"] = _thresholds(column.steps)
        shown["custom.cellOptions"] = {"type": "color-background", "mode": "basic"}
    return _override(column.title, **shown)


def _override(heading: str, **properties: object) -> Json:
    return {
        "matcher": {"id": "byName", "options": heading},
        "properties": [{"id": name, "value": value} for name, value in properties.items()],
    }
