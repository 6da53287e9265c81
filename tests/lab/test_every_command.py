"""Every command of balancerctl against a running daemon on a real kernel, and each document against its schema."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from balancerd.cli.schemas import SHAPES
from tests.lab.service import Balancerd
from tests.lab.test_commands import CALM, MIB
from tests.lab.workloads import Hog
from tests.lab.workloads.perf_script import Pattern, perf_script
from tests.unit.cli.validation import faults

pytestmark = [pytest.mark.topology("four-nodes"), pytest.mark.timeout(600)]

SCHEMAS: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "deploy" / "schemas" / "balancerctl.schema.json").read_text(encoding="utf-8")
)["$defs"]
FINDINGS = 5
LOOKING = {"select.min_age": "1s", "mode": "observe"}
SCENARIO = """\
title: two minutes, for an emulated CPU simulates slowly
duration: 2m
machine: {nodes: 2, cpus: 8, memory: 32GiB}
groups:
  - {name: alone, memory: 1GiB, runs_on: [0], lies_on: [1]}
"""


def test_every_command_answers_and_prints_what_its_schema_says(tmp_path: Path) -> None:
    with (
        Balancerd(tmp_path, overrides={**CALM, **LOOKING, "state_directory": str(tmp_path)}) as daemon,
        Hog("base", MIB * 2, touch_cpu=2, spin_cpu=0, busy_percent=50) as hog,
    ):
        daemon.wait_for_reason(hog.pid, "observe-mode")
        pid, trace, log, scenario = str(hog.pid), *(tmp_path / name for name in ("trace.gz", "perf.txt", "two.yaml"))
        scenario.write_text(SCENARIO, encoding="ascii")
        pattern = Pattern(pid=hog.pid, tids=(hog.pid,), owned=(largest_mapping(hog.pid),))
        now = time.clock_gettime(time.CLOCK_MONOTONIC)
        samples = perf_script(pattern, seed=1, samples_per_page=0.1, noise=0.0, seconds=(now - 2.0, now - 1.0))
        log.write_text("".join(samples), encoding="ascii")
        told: dict[str, dict[str, Any]] = {}

        def ask(command: str, *words: str, code: int = 0) -> dict[str, Any]:
            done = daemon.balancerctl(*command.split(), *words, "--json")
            assert done.returncode == code, (command, done.returncode, done.stdout, done.stderr)
            told[command] = json.loads(done.stdout)
            assert list(faults(SCHEMAS[command], told[command])) == [], command
            return told[command]

        assert ask("status")["healthy"]
        assert len(ask("nodes")["nodes"]) == 4
        assert pid in {str(process["pid"]) for process in ask("ps")["processes"]}
        ask("top")
        (planned,) = ask("plan")["moves"]
        assert (planned["pid"], planned["to"]) == (hog.pid, 0)
        assert ask("explain", pid)["process"]["reason"] == "observe-mode"
        ask("heat", pid)
        ask("record", str(trace), "--for", "3s")
        ask("replay", str(trace))

        assert ask("mode", "enforce")["mode"] == "enforce"
        assert ask("pause")["pause"]["left_seconds"] is None
        assert ask("resume")["was_paused"]
        daemon.wait_for_reason(hog.pid, "well-placed", 120.0)
        assert ask("move", pid, "--to", "3")["job"]["state"] == "done"
        moved = ask("moves")["moves"]
        assert {move["policy"] for move in moved} > {"home"}
        ask("undo", str(moved[0]["id"]))
        ask("evict", pid, "--cold-only")
        daemon.wait_for(lambda: bool(ask("history")["events"]), 30.0, "the history")
        assert hog.pid in {event["pid"] for event in told["history"]["events"]}
        ask("import-log", str(log))

        ask("advise", "1:64", "--lease", "1m")
        assert ask("reload")["reloaded"]
        ask("config check", code=told_code(daemon, "config", "check"))
        ask("config show")
        ask("config schema")
        ask("config diff", code=FINDINGS)
        ask("policies list")
        ask("policies show", "follow-cpu")
        ask("simulate", str(scenario))
        ask("doctor", code=told_code(daemon, "doctor"))
        ask("service install", "--dry-run", code=told_code(daemon, "service", "install", "--dry-run"))
        ask("service remove", "--dry-run")
        assert told.keys() == SHAPES.keys()


def told_code(daemon: Balancerd, *words: str) -> int:
    """The exit status of a command in words: 0, or 5 with findings."""
    code = daemon.balancerctl(*words).returncode
    assert code in {0, FINDINGS}
    return code


def largest_mapping(pid: int) -> tuple[int, int]:
    """The span of the largest mapping of a process."""
    spans = []
    for line in Path(f"/proc/{pid}/maps").read_text(encoding="ascii").splitlines():
        start, end = (int(word, 16) for word in line.split(" ")[0].split("-"))
        spans.append((end - start, start, end))
    return max(spans)[1:]
