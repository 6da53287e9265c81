"""`balancerctl status`: the daemon at a glance. It must not know how the daemon is reached."""

from typing import Final

import click

from balancerd.cli import words
from balancerd.cli.options import Document, Settings, ask, json_option, socket_option
from balancerd.cli.screen import UNKNOWN, Column, Table, draw, escape, paint, write, write_json
from balancerd.model.decision import REASON_TEXT
from balancerd.model.health import is_stalled
from balancerd.model.manager import MANAGER_TEXT, Manager

ALWAYS_RESPECTED: Final = frozenset({Manager.MEMPOLICY})
"""Whatever `yield_to` says."""


@click.command(
    short_help="Show whether the daemon works, and what it has done.",
    epilog="""\b
Examples:
  balancerctl status
  balancerctl status --json | jq .totals.moved_bytes
""",
)
@socket_option
@json_option
@click.pass_obj
def status(settings: Settings, *, as_json: bool) -> None:
    """Show whether the daemon works: its last tick, the nodes, processes by reason, what was moved and what failed.

    It is healthy while its last tick is younger than three tick intervals (and 10 s).

    In JSON: the answer of the daemon to GET /v1/status, and "healthy" (null before the first tick).
    """
    document = ask(settings, "/v1/status")
    if as_json:
        write_json({**document, "healthy": is_healthy(document)})
        return
    _show_daemon(document)
    _show_nodes(document)
    _show_processes(document)
    _show_managers(document)
    _show_totals(document)


def is_healthy(document: Document) -> bool | None:
    """Whether ticks come as they should; None before the first one."""
    tick = document["tick"]
    if tick is None:
        return None
    return not is_stalled(tick["age_seconds"], tick["interval_seconds"])


def _show_daemon(document: Document) -> None:
    mode, tick = document["mode"], document["tick"]
    write(
        f"balancerd {escape(document['version'])}, pid {document['pid']}, up {words.age(document['uptime_seconds'])}, "
        f"mode {escape(mode or 'unknown')}{', paused' if document['paused'] else ''}"
    )
    pause = document.get("pause")
    if pause is not None:
        left = "" if pause["left_seconds"] is None else f", or for {words.age(round(pause['left_seconds']))} more"
        write(f"{paint('paused', 'yellow')} by an operator: nothing moves until balancerctl resume{left}")
    elif document.get("paused_detail"):
        write(f"{paint('paused', 'yellow')}, nothing moves there for a while: {escape(document['paused_detail'])}")
    if tick is None:
        write(f"{paint('starting', 'yellow')}: no tick yet")
    else:
        word = paint("healthy", "green") if is_healthy(document) else paint("stalled", "red")
        interval = tick["interval_seconds"]
        every = "" if interval is None else f", {words.age(interval)} after the one before"
        took = words.age(sum(tick["phase_seconds"].values()))
        write(f"{word}: tick {tick['number']} ended {words.age(tick['age_seconds'])} ago and took {took}{every}")
    scan = document["scan"]
    if scan is not None and scan["budget_ratio"] is not None:
        used, allowed = f"{scan['used_ratio']:.2%}", f"{scan['budget_ratio']:.2%}"
        write(f"observing: {used} of one core since the tick before, of {allowed} allowed")
    copying = document.get("copying")
    if copying is not None and copying["bytes_per_second"] is not None:
        rate, measured = words.size(copying["bytes_per_second"]), words.size(copying["measured_bytes"])
        write(f"copying: {rate} in a second of the kernel's calls, measured over {measured}")
    config = document["config"]
    write(f"configuration: {escape(', '.join(config['files']) or 'built-in defaults')}")
    if config["last_reload"] is not None and not config["last_reload"]["succeeded"]:
        write(f"{paint('reload failed', 'red')}, the old one is in effect: {escape(config['last_reload']['error'])}")
    for policy, failure in document["disabled_policies"].items():
        told = f"{escape(policy)}: {escape(failure['cause'])}, {escape(failure['detail'])}"
        write(f"{paint('policy disabled', 'red')} until the next reload: {told}")


def _show_nodes(document: Document) -> None:
    nodes = document["nodes"]
    if not nodes:
        return
    columns = (
        Column(title="NODE", right=True),
        Column(title="CPUS"),
        *(Column(title=title, right=True) for title in ("TOTAL", "FREE", "AVAILABLE")),
        *(Column(title=f"TO {node['node']}", right=True) for node in nodes),
    )
    rows = [
        (
            str(node["node"]),
            node["cpus"] or "none",
            words.size(node["total_bytes"]),
            words.size(node["free_bytes"]),
            words.size(node["available_bytes"]),
            *(str(node["distances"].get(str(other["node"]), UNKNOWN)) for other in nodes),
        )
        for node in nodes
    ]
    write()
    draw(Table(columns=columns, rows=rows))


def _show_processes(document: Document) -> None:
    counts = document["counts"]
    if counts is None:
        return
    columns = (Column(title="PROCESSES", right=True), Column(title="REASON"), Column(title="MEANING", cut=True))
    ranked = sorted(counts["by_reason"].items(), key=lambda item: (-item[1], item[0]))
    meaning = {reason.value: text for reason, text in REASON_TEXT.items()}
    write()
    if ranked:
        draw(Table(columns=columns, rows=[(str(n), reason, meaning.get(reason, "")) for reason, n in ranked]))
    passed_over = words.count(counts["small_processes"], "smaller process")
    write(f"not listed: {passed_over}, {words.count(counts['kernel_threads'], 'kernel thread')}")


def _show_managers(document: Document) -> None:
    """Show who else is at work; nothing when nobody is."""
    found = [manager for manager in document["managers"] or () if manager["active"]]
    if not found:
        return
    columns = (
        Column(title="MANAGER"),
        Column(title="PROCESSES", right=True),
        Column(title="BALANCERD"),
        Column(title="SEEN", cut=True),
    )
    meaning = {manager.value: text for manager, text in MANAGER_TEXT.items()}
    rows = [
        (
            each["manager"],
            UNKNOWN if each["processes"] is None else str(each["processes"]),
            "yields" if each["yields"] or each["manager"] in ALWAYS_RESPECTED else "goes on",
            each["detail"] or meaning.get(each["manager"], ""),
        )
        for each in found
    ]
    write()
    draw(Table(columns=columns, rows=rows))


def _show_totals(document: Document) -> None:
    totals = document["totals"]
    failed = f" ({totals['failed_ticks']} failed)" if totals["failed_ticks"] else ""
    write()
    write(
        f"moved {words.size(totals['moved_bytes'])} in {words.count(totals['ticks'], 'tick')}{failed}; "
        f"{words.count(totals['submitted_pages'], 'page')} submitted"
    )
    if totals["pages"]:
        columns = (Column(title="PAGES", right=True), Column(title="STATUS"), Column(title="MEANING", cut=True))
        ranked = sorted(totals["pages"].items(), key=lambda item: (item[0] != "moved", -item[1], item[0]))
        draw(Table(columns=columns, rows=[(str(n), name, words.status_text(name)) for name, n in ranked]))
