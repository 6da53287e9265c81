"""Where golden traces are, and their decisions as text. Run as a program it prints the decisions of all."""

import sys
from pathlib import Path

import yaml

from balancerd import plugins
from balancerd.config import loader
from balancerd.config.schema import Config
from balancerd.replaying import build_replay
from balancerd.trace.reader import TraceReader
from balancerd.trace.replay import Replay

FOLDER = Path(__file__).parent
NAMES = (
    "follow-cpu",
    "access",
    "interleave",
    "rule",
    "cpuset-follow",
    "drain",
    "threads",
    "tiering",
    "cold-eviction",
    "packing",
)


def path_of(name: str) -> Path:
    return FOLDER / f"{name}.trace.gz"


def text_of(name: str) -> Path:
    return FOLDER / f"{name}.decisions.txt"


def recorded_config(path: Path) -> Config:
    with TraceReader(path) as reader:
        text = yaml.safe_dump(reader.header.config)
    found = plugins.discover()
    return loader.load_text(text, plugins={kind: plugin.options for kind, plugin in found.items()}).config


def replay(path: Path, config: Config | None = None) -> Replay:
    """A replay that has not begun, under the recorded configuration unless there is one."""
    return Replay(path, build_replay(recorded_config(path) if config is None else config, plugins.discover()))


def decisions_of(path: Path) -> str:
    """All decisions, and behind them the digest."""
    run = replay(path)
    lines = [line for tick in run.ticks() for line in (f"tick {tick.number}", *tick.lines)]
    return "\n".join([*lines, f"digest {run.summary.digest}", ""])


if __name__ == "__main__":
    sys.stdout.write("".join(decisions_of(path_of(name)) for name in NAMES))
