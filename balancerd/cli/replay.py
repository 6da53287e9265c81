"""`balancerctl replay`: decide a recorded trace anew, and show where two configurations differ. Needs no daemon.

It must not know how ticks are replayed; it words what came of them.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click
import yaml

from balancerd import plugins
from balancerd.cli.exits import CommandError, ExitCode
from balancerd.cli.options import SCHEMA, json_option
from balancerd.cli.screen import Column, Table, draw, escape, write, write_json
from balancerd.config import loader
from balancerd.config.findings import ConfigError
from balancerd.config.schema import Config
from balancerd.config.units import format_bytes
from balancerd.ports import PolicyPlugin
from balancerd.replaying import build_replay
from balancerd.trace.compare import Comparison, Difference, compare
from balancerd.trace.configuration import not_replayed
from balancerd.trace.form import TraceError
from balancerd.trace.reader import Header, TraceReader
from balancerd.trace.replay import Replay, ReplayedTick, Summary

MOST_ROWS: Final = 50
MOST_REASONS: Final = 8
RECORDED: Final = "(recorded)"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chosen:
    """A configuration, what it is called, and what of it has no effect in replay."""

    name: str
    config: Config
    not_replayed: tuple[str, ...]


@click.command(
    short_help="Decide a recorded trace anew, under one configuration or two.",
    epilog="""\b
Examples:
  balancerctl replay /tmp/monday.trace.gz
  balancerctl replay /tmp/monday.trace.gz --show-config > old.yaml
  balancerctl replay /tmp/monday.trace.gz --config old.yaml --config new.yaml
  balancerctl replay /tmp/monday.trace.gz --json | jq -r '.replays[0].digest'
""",
)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--config",
    "paths",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="X",
    help="Decide by this configuration, not by the recorded one; a second one is compared with the first.",
)
@click.option("--show-config", is_flag=True, help="Print the configuration that was recorded, and replay nothing.")
@click.option("--decisions", is_flag=True, help="Print every verdict, plan and rejection, tick by tick.")
@json_option
@click.pass_context
def replay(
    ctx: click.Context, file: Path, *, paths: tuple[Path, ...], show_config: bool, decisions: bool, as_json: bool
) -> None:
    """Run the engine and its policies over FILE, a trace that `balancerctl record` wrote, and tell what they decide.

    The same trace and the same configuration give the same decisions, byte for byte: the digest is over all of them.
    Replay begins with engine and policies that remember nothing, so of a daemon that had run for long it decides the
    first ticks otherwise; it tells which.

    With another configuration some questions come up that nobody asked when it was recorded. These are answered with
    the reason not-recorded, and counted. The machine does not react: memory that only the other configuration moves is
    told to lie where it lay. Names are hashes, so rules of your own by name match nothing; those in the recorded
    configuration (--show-config) do.

    Exits 5 when a configuration has errors.

    In JSON: {schema, trace, replays: [one for each configuration], comparison (null with one)}; with --show-config
    {schema, file, config}.
    """
    if len(paths) > 2:
        raise click.BadParameter("at most two can be compared", param_hint="--config")
    try:
        with TraceReader(file) as reader:
            header = reader.header
        if show_config:
            _show_config(file, header, as_json=as_json)
            return
        found = _discover()
        recorded = _load_recorded(file, header, found)
        chosen = [_load(path, recorded, found) for path in paths] or [
            _Chosen(name=RECORDED, config=recorded, not_replayed=())
        ]
        _replay(file, header, chosen, found, decisions=decisions, as_json=as_json)
    except (TraceError, OSError) as error:
        raise CommandError(escape(str(error))) from error
    except ConfigError as error:
        for each in error.findings:
            write(escape(str(each)), err=True)
        ctx.exit(ExitCode.FINDINGS)


def _replay(
    file: Path,
    header: Header,
    chosen: Sequence[_Chosen],
    found: Mapping[str, PolicyPlugin[Any]],
    *,
    decisions: bool,
    as_json: bool,
) -> None:
    replays = [Replay(file, build_replay(each.config, found)) for each in chosen]
    told: list[list[dict[str, Any]]] = [[] for _ in chosen]
    print_them = decisions and not as_json

    def followed(index: int) -> Iterator[ReplayedTick]:
        for tick in replays[index].ticks():
            if decisions and as_json:
                told[index].append({"tick": tick.number, "lines": list(tick.lines)})
            if print_them:
                name = "" if len(chosen) == 1 else f" under {chosen[index].name}"
                for line in (f"tick {tick.number}{name}", *tick.lines):
                    write(escape(line))
            yield tick

    comparison, differences = Comparison(), list[Difference]()
    if len(chosen) == 2:
        differences = sorted(
            compare(followed(0), followed(1), comparison), key=lambda each: (each.first, each.process, each.last)
        )
    else:
        for _ in followed(0):
            pass
    summaries = [each.summary for each in replays]
    if as_json:
        compared = _json_comparison(comparison, differences) if len(chosen) == 2 else None
        write_json(
            {
                "schema": SCHEMA,
                "trace": _json_trace(file, header, summaries[0]),
                "replays": [
                    _json_replay(each, summary) | ({"decisions": lines} if decisions else {})
                    for each, summary, lines in zip(chosen, summaries, told, strict=True)
                ],
                "comparison": compared,
            }
        )
        return
    for line in _about_trace(header, summaries[0]):
        write(line)
    for each, summary in zip(chosen, summaries, strict=True):
        for line in _about_replay(each, summary):
            write(line)
    if len(chosen) == 2:
        _show_comparison(comparison, differences, [escape(each.name) for each in chosen])


def _about_trace(header: Header, summary: Summary) -> Iterator[str]:
    kernel = ".".join(map(str, header.kernel))
    yield f"{summary.ticks} ticks of balancerd {escape(header.balancerd)}, Linux {kernel}"
    if summary.broken is not None:
        yield f"the trace is not whole: {escape(summary.broken)}; what is there was used"
    elif summary.ended is None:
        yield "the trace has no end: the recording broke off"
    else:
        yield f"the recording ended: {escape(summary.ended)}"


def _about_replay(chosen: _Chosen, summary: Summary) -> Iterator[str]:
    yield ""
    yield f"under {escape(chosen.name)}:"
    if summary.compared:
        same = f"  decided as the daemon did in {summary.as_recorded} of {summary.compared} ticks"
        yield same if summary.last_other is None else f"{same}, and in all behind tick {summary.last_other}"
    if summary.failed:
        yield f"  {summary.failed} ticks failed"
    yield f"  {summary.steps} steps of moves, {format_bytes(summary.moved_bytes)} moved, {summary.evictions} evictions"
    for what, asked in sorted(summary.asked.items()):
        missing = summary.missing[what]
        yield f"  {what}: {asked} asked for" + (f", {missing} not in the trace" if missing else "")
    most = summary.reasons.most_common()
    told = [f"{reason} {number}" for reason, number in sorted(most, key=lambda each: (-each[1], each[0]))]
    yield f"  processes in all ticks: {', '.join(told[:MOST_REASONS])}{', ...' if len(told) > MOST_REASONS else ''}"
    yield f"  digest {summary.digest}"
    for line in chosen.not_replayed:
        yield f"  without effect: {escape(line)}"


def _show_comparison(comparison: Comparison, differences: Sequence[Difference], names: Sequence[str]) -> None:
    write()
    write(
        f"they differ in {comparison.different_ticks} of {comparison.ticks} ticks, on "
        f"{len({each.process for each in differences})} processes, "
        f"{comparison.different_process_ticks} of {comparison.process_ticks} times"
    )
    if not differences:
        return
    columns = (
        Column(title="TICKS", right=True),
        Column(title="PROCESS", right=True),
        Column(title=names[0], cut=True),
        Column(title=names[1], cut=True),
    )
    rows = [
        (
            str(each.first) if each.first == each.last else f"{each.first}-{each.last}",
            str(each.process),
            _say(each.one.what, each.one.detail),
            _say(each.other.what, each.other.detail),
        )
        for each in differences[:MOST_ROWS]
    ]
    draw(Table(columns=columns, rows=rows))
    if len(differences) > MOST_ROWS:
        write(f"and {len(differences) - MOST_ROWS} more: --json has all", err=True)


def _say(what: str, detail: str) -> str:
    return f"{what} ({detail})" if detail else what


def _json_trace(file: Path, header: Header, summary: Summary) -> dict[str, Any]:
    return {
        "file": str(file),
        "balancerd": header.balancerd,
        "kernel": ".".join(map(str, header.kernel)),
        "ticks": summary.ticks,
        "ended": summary.ended,
        "broken": summary.broken,
    }


def _json_replay(chosen: _Chosen, summary: Summary) -> dict[str, Any]:
    return {
        "config": chosen.name,
        "digest": summary.digest,
        "ticks": summary.ticks,
        "failed_ticks": summary.failed,
        "compared_ticks": summary.compared,
        "ticks_as_recorded": summary.as_recorded,
        "last_other_tick": summary.last_other,
        "steps": summary.steps,
        "moved_bytes": summary.moved_bytes,
        "evictions": summary.evictions,
        "reasons": dict(sorted(summary.reasons.items())),
        "asked": dict(sorted(summary.asked.items())),
        "not_recorded": dict(sorted(summary.missing.items())),
        "without_effect": list(chosen.not_replayed),
    }


def _json_comparison(comparison: Comparison, differences: Iterable[Difference]) -> dict[str, Any]:
    return {
        "ticks": comparison.ticks,
        "different_ticks": comparison.different_ticks,
        "process_ticks": comparison.process_ticks,
        "different_process_ticks": comparison.different_process_ticks,
        "differences": [
            {
                "first_tick": each.first,
                "last_tick": each.last,
                "ticks": each.ticks,
                "process": each.process,
                "verdicts": [{"what": said.what, "detail": said.detail} for said in (each.one, each.other)],
            }
            for each in differences
        ],
    }


def _show_config(file: Path, header: Header, *, as_json: bool) -> None:
    if as_json:
        write_json({"schema": SCHEMA, "file": str(file), "config": header.config})
    else:
        write(yaml.safe_dump(header.config, sort_keys=False).rstrip("\n"))


def _discover() -> dict[str, PolicyPlugin[Any]]:
    try:
        return plugins.discover()
    except plugins.PluginError as error:
        raise CommandError(escape(str(error))) from error


def _load_recorded(file: Path, header: Header, found: Mapping[str, PolicyPlugin[Any]]) -> Config:
    text = yaml.safe_dump(header.config, sort_keys=False)
    return loader.load_text(text, f"{file} {RECORDED}", plugins=_options(found)).config


def _load(path: Path, recorded: Config, found: Mapping[str, PolicyPlugin[Any]]) -> _Chosen:
    loaded = loader.load(path, plugins=_options(found))
    for finding in loaded.findings:
        write(escape(str(finding)), err=True)
    return _Chosen(name=str(path), config=loaded.config, not_replayed=tuple(not_replayed(loaded.config, recorded)))


def _options(found: Mapping[str, PolicyPlugin[Any]]) -> dict[str, Any]:
    return {kind: plugin.options for kind, plugin in found.items()}
