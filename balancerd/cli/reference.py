"""The reference of settings, options of policies, reasons, states, page statuses and metrics, from the code itself.

`python -m balancerd.cli.reference FILE` writes it; docs/reference.md is what it writes. It must not know what any of
them does.
"""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from balancerd.cli.keys import Key, list_options, list_settings
from balancerd.cli.screen import write
from balancerd.metrics.catalogue import catalogue
from balancerd.model.decision import REASON_TEXT
from balancerd.model.page_status import STATUS_TEXT
from balancerd.model.states import STATES

HEAD = """\
# Reference

<!-- written by python -m balancerd.cli.reference docs/reference.md; do not edit -->

Every setting, every option of a policy, every reason, every page status and every metric. What they are for is told in
the pages that the [README](../README.md) names; the same settings, with comments, in
[config/balancerd.yaml](../config/balancerd.yaml).
"""

METRICS = """\
What `/metrics` has, besides what every program of Python tells of itself (`process_…`). What is not known has no
series. How far the numbers by workload go, and what else a line cannot say: [metrics.md](metrics.md).
"""


def reference() -> str:
    """Return the page, in Markdown."""
    parts = [HEAD, "## Settings\n", _keys(list_settings()), "## Options of policies\n"]
    for kind, summary, options in list_options():
        parts += [f"### {kind}\n", f"{summary}\n", *([_keys(options)] if options else [])]
    parts += ["## Reasons\n", "What `balancerctl explain` and `balancerd_decisions_suppressed_total{reason}` say.\n"]
    parts += [_table(("reason", "state", "meaning"), _reasons())]
    parts += ["## Page statuses\n", "What became of each page of a move: `balancerd_migration_pages_total{status}`.\n"]
    parts += [_table(("status", "meaning"), ((f"`{status}`", text) for status, text in STATUS_TEXT.items()))]
    parts += ["## Metrics\n", METRICS, _table(("metric", "type", "labels", "meaning"), _metrics())]
    return "\n".join(parts)


def _metrics() -> Iterator[tuple[str, ...]]:
    for metric in catalogue():
        yield f"`{metric.name}`", metric.kind, ", ".join(f"`{label}`" for label in metric.labels), metric.text


def _reasons() -> Iterator[tuple[str, ...]]:
    for reason, text in REASON_TEXT.items():
        yield f"`{reason}`", f"`{STATES[reason]}`", text


def _keys(keys: Iterable[Key]) -> str:
    rows = ((f"`{key.path}`", _default(key), key.meaning) for key in keys)
    return _table(("key", "default", "meaning"), rows)


def _default(key: Key) -> str:
    if key.required:
        return "required"
    return "" if key.default is None else f"`{key.default}`"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def main(arguments: list[str]) -> int:
    """Write the page to the file that is named; return the exit status."""
    if len(arguments) != 1:
        write("usage: python -m balancerd.cli.reference FILE", err=True)
        return 2
    Path(arguments[0]).write_text(reference(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
