"""`balancerctl simulate SCENARIO`: what the configured policies make of a machine that exists only in memory.

Owns the command and its words. Needs no daemon. It must not know how a machine is simulated, or judged.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import click

from balancerd import plugins, settings
from balancerd.cli import words
from balancerd.cli.exits import CommandError, ExitCode
from balancerd.cli.options import Document, json_option
from balancerd.cli.screen import UNKNOWN, Column, Table, draw, escape, on_terminal, rewrite, write, write_json
from balancerd.config import loader
from balancerd.config.findings import ConfigError
from balancerd.config.schema import Config
from balancerd.engine.gate import BATCHED_SINCE
from balancerd.kernel.observe import ObserveKernel
from balancerd.model.report import TickReport
from balancerd.ports import AccessPolicy, PolicyPlugin
from balancerd.simulation import loading
from balancerd.simulation.judge import judge, to_document
from balancerd.simulation.run import Means
from balancerd.simulation.scenario import Scenario, SchedulerKind, SchedulerSection

COLUMNS: Final = (
    Column(title=""),
    Column(title="LOST", right=True),
    Column(title="OF THE WORK", right=True),
    Column(title="STALLS", right=True),
    Column(title="MOVING", right=True),
    Column(title="WAITING", right=True),
    Column(title="LOCAL AT THE END", right=True),
)


@click.command(
    short_help="Try policies on a machine in memory.",
    epilog="""\b
Examples:
  balancerctl simulate
  balancerctl simulate crossed
  balancerctl simulate wander-300 --scheduler random --seed 7
  balancerctl simulate ./mine.yaml --config ./balancerd.yaml --plot mine.svg
  balancerctl simulate storm --json | jq .to_nothing_ratio
""",
)
@click.argument("scenario", required=False)
@click.option(
    "--config", "config_path", type=click.Path(path_type=Path), metavar="FILE", help="The defaults unless given."
)
@click.option(
    "--scheduler",
    type=click.Choice(["sticky", "random", "balancing"]),
    help="In place of the scenario's: threads stay, move by chance, or go from busy nodes to idle ones.",
)
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Another one, other chances.")
@click.option("--exact", is_flag=True, help="Where memory lies is known without error, at a price by its size.")
@click.option("--no-optimum", is_flag=True, help="Leave the optimum out, which may take minutes.")
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Draw it as an SVG file.")
@json_option
@click.pass_context
def simulate(
    ctx: click.Context,
    scenario: str | None,
    config_path: Path | None,
    scheduler: SchedulerKind | None,
    seed: int,
    *,
    exact: bool,
    no_optimum: bool,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Run SCENARIO in simulated time, with the engine and policies of the daemon, and tell what it cost.

    SCENARIO is a file, or the name of one that came with balancerd: without it, they are listed. Beside balancerd it
    tells the same under nothing, and at the optimum if SciPy is installed (the extra balancerd[optimum]). Lost are the
    CPU seconds that remote memory, moving, and waiting for a CPU take, by the model that every move must pass. The same
    seed gives the same answer.

    Accesses are not simulated, so policies that judge by them do nothing. With errors in SCENARIO or the configuration,
    prints these to standard error and exits 5.

    In JSON: every figure of the table and its course in time; without SCENARIO {schema, scenarios: [{name, title}]}.
    """
    if scenario is None:
        _list(as_json=as_json)
        return
    try:
        what = loading.load(scenario)
        config, found = _load_config(config_path)
    except ConfigError as error:
        for finding in error.findings:
            write(escape(str(finding)), err=True)
        ctx.exit(ExitCode.FINDINGS)
    if scheduler is not None:
        stay = what.scheduler.stay_seconds
        chosen = SchedulerSection(kind=scheduler, stay_seconds=stay, interval_seconds=what.scheduler.interval_seconds)
        what = what.model_copy(update={"scheduler": chosen})
    means = build_means(config, found, exact=exact)
    for policy in means.build_policies():
        if isinstance(policy, AccessPolicy):
            write(
                f"policy {escape(policy.name)} judges by accesses, which are not simulated: it does nothing", err=True
            )
    listen = _progress(what) if on_terminal() else None
    document = {
        "schema": 1,
        "scenario": scenario,
        **to_document(judge(what, seed, means, with_optimum=not no_optimum, listen=listen)),
    }
    if listen is not None:
        rewrite()
    if plot is not None:
        _write_plot(document, plot)
    if as_json:
        write_json(document)
        return
    write(_title(document))
    draw(Table(columns=COLUMNS, rows=tuple(_rows(document))))
    for line in _notes(document):
        write(line)


def _list(*, as_json: bool) -> None:
    known = {name: loading.load(name).title for name in loading.shipped()}
    if as_json:
        write_json({"schema": 1, "scenarios": [{"name": name, "title": title} for name, title in known.items()]})
    else:
        columns = (Column(title="SCENARIO"), Column(title="WHAT IT SHOWS", cut=True))
        draw(Table(columns=columns, rows=tuple(known.items())))


def _load_config(path: Path | None) -> tuple[Config, Mapping[str, PolicyPlugin[Any]]]:
    try:
        found = plugins.discover()
    except plugins.PluginError as error:
        raise CommandError(escape(str(error))) from error
    if path is None:
        return Config(), found
    loaded = loader.load(path, plugins=settings.options_by_kind(found))
    for finding in loaded.findings:
        write(escape(str(finding)), err=True)
    return loaded.config, found


def build_means(config: Config, found: Mapping[str, PolicyPlugin[Any]], *, exact: bool = False) -> Means:
    """Return the engine as the daemon has it under a configuration; `exact`: samples of placements do not err."""
    return Means(
        settings=settings.build_settings(config, found),
        build_policies=lambda: settings.build_policies(config, found, BATCHED_SINCE),
        interval_seconds=config.tick_interval_seconds,
        duty_ratio=config.migrate.duty_cycle_ratio,
        call_seconds=config.migrate.stall_target_seconds,
        exact=exact,
        **({"wrap": ObserveKernel} if config.mode == "observe" else {}),
    )


def _progress(scenario: Scenario) -> Callable[[TickReport], None]:
    told = -1

    def listen(report: TickReport) -> None:
        nonlocal told
        percent = int(100 * report.survey.taken_at / scenario.duration_seconds)
        if percent > told:
            told = percent
            rewrite(f"{percent} % of {words.age(scenario.duration_seconds)}")

    return listen


def _write_plot(document: Document, path: Path) -> None:
    # Here and not at the top: only a file needs it.
    from balancerd.cli.picture_file import write_picture  # noqa: PLC0415
    from balancerd.cli.simulate_svg import draw as draw_svg  # noqa: PLC0415

    write_picture(path, draw_svg(document, (_title(document),)))


def _title(document: Document) -> str:
    title = f": {document['title']}" if document["title"] else ""
    return (
        f"{escape(document['scenario'] + title)}; {words.count(document['nodes'], 'node')}, "
        f"{words.age(document['duration_seconds'])}, scheduler {document['scheduler']}, seed {document['seed']}"
    )


def _rows(document: Document) -> Iterator[tuple[str, ...]]:
    wanted = document["nothing"]["run_seconds"] + document["nothing"]["overload_seconds"]
    for name, key in (("balancerd", "engine"), ("nothing", "nothing")):
        its = document[key]
        parts = (its[part] for part in ("stall_seconds", "moving_seconds", "overload_seconds"))
        local = its["course"][-1]["local_ratio"]
        yield (
            name,
            _seconds(its["lost_seconds"]),
            _of_work(its["lost_seconds"], wanted),
            *map(_seconds, parts),
            UNKNOWN if local is None else words.percent(local),
        )
    for name, key in (("best waiting", "waiting"), ("foresight", "foresight")):
        lost = document["memory_alone"][key]["lost_seconds"]
        if lost is not None:
            yield (name, _seconds(lost), _of_work(lost, wanted), *[UNKNOWN] * 4)
    lost = document["optimum"]["lost_seconds"]
    if lost is not None:
        name = "optimum" if document["optimum"]["exact"] else "optimum, at least"
        yield (name, _seconds(lost), _of_work(lost, wanted), *[UNKNOWN] * 4)


def _notes(document: Document) -> Iterator[str]:
    engine, optimum = document["engine"], document["optimum"]
    to_nothing, to_optimum = document["to_nothing_ratio"], document["to_optimum_ratio"]
    if to_nothing is not None:
        beside = "" if to_optimum is None else f", {to_optimum:.3f} times what it would take at the optimum"
        yield f"the work takes {to_nothing:.3f} times what it takes without balancerd{beside}"
    waiting, foresight = (document["memory_alone"][key]["to_ratio"] for key in ("waiting", "foresight"))
    if waiting is not None:
        told = f"{foresight:.3f} times with foresight of where they go"
        yield f"threads as they were: {waiting:.3f} times what it would take under the best rule that waits, {told}"
    if optimum["lost_seconds"] is None:
        yield f"the optimum is left out: {escape(optimum['why_not'])}"
    steady = engine["steady_ratio_per_hour"]
    by_hour = "" if steady is None else f", {steady:.2%} of the resident memory an hour in the second half"
    hourly = words.size(round(engine["moved_bytes_per_hour"]))
    yield f"moved: {words.size(engine['moved_bytes'])}, {hourly} an hour{by_hour}"
    yield (
        f"returned to a node that it had left: {words.size(engine['returned_bytes'])}, "
        f"{words.size(engine['hasty_bytes'])} of it within ten minutes, "
        f"{words.size(engine['oscillated_bytes'])} without a thread having moved in between"
    )
    if engine["refused_births"]:
        yield f"processes for which there was no memory: {engine['refused_births']}"
    for name, told in engine["policy_errors"].items():
        yield f"policy {escape(name)} failed: {escape(told)}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s"


def _of_work(lost: float, wanted: float) -> str:
    return f"{lost / wanted:.2%}" if wanted > 0 else UNKNOWN
