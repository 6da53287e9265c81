"""Every command's --json has a schema, and prints what that says; the fixture `run` holds every test to it."""

import json
from pathlib import Path
from typing import Any

import pytest

from balancerd.cli.schemas import SHAPES
from balancerd.control.shapes import by, each, either, maybe, of, one_of, schema_of
from tests.unit.cli.conftest import SCHEMAS, Run, Serve
from tests.unit.cli.documents import answers, before_the_first_tick
from tests.unit.cli.test_manual import LEAVES
from tests.unit.cli.validation import faults

TRACE = str(Path(__file__).parents[2] / "traces/follow-cpu.trace.gz")
SHIPPED = str(Path(__file__).parents[3] / "config/balancerd.yaml")


def test_every_command_has_a_schema_and_nothing_else_has() -> None:
    assert set(SHAPES) == {" ".join(path) for path in LEAVES}


@pytest.mark.parametrize(
    ("arguments", "exit_code"),
    [
        (("replay", TRACE, "--json"), 0),
        (("replay", TRACE, "--json", "--config", SHIPPED, "--config", SHIPPED), 0),
        (("replay", TRACE, "--json", "--show-config"), 0),
        (("simulate", "--json"), 0),
        (("config", "check", SHIPPED, "--json"), 0),
        (("config", "check", "/nonexistent", "--json"), 5),
        (("config", "show", SHIPPED, "--json"), 0),
        (("config", "diff", SHIPPED, SHIPPED, "--json"), 0),
        (("config", "schema", "--json"), 0),
        (("policies", "list", "--json"), 0),
        (("policies", "show", "access", "--json"), 0),
        (("advise", "0:1", "--json"), 0),
    ],
)
def test_commands_that_need_no_daemon_print_their_document(
    run: Run, arguments: tuple[str, ...], exit_code: int
) -> None:
    done = run(*arguments)
    assert (done.exit_code, json.loads(done.stdout)["schema"]) == (exit_code, 1)


@pytest.mark.parametrize(
    "arguments",
    [
        ("status", "--json"),
        ("nodes", "--json"),
        ("ps", "--json", "--all"),
        ("plan", "--json"),
        ("explain", "4242", "--json"),
        ("explain", "51", "--json"),
        ("heat", "4242", "--json"),
        ("moves", "--json"),
        ("mode", "--json"),
    ],
)
def test_commands_that_ask_the_daemon_print_their_document(run: Run, serve: Serve, arguments: tuple[str, ...]) -> None:
    assert run(*arguments, socket=serve(answers())).exit_code == 0


@pytest.mark.parametrize("command", ["status", "ps", "plan"])
def test_before_the_first_tick_the_document_has_the_same_form(run: Run, serve: Serve, command: str) -> None:
    assert run(command, "--json", socket=serve(before_the_first_tick())).exit_code == 0


def test_doctor_prints_its_document(run: Run) -> None:
    assert run("doctor", "--json").exit_code in {0, 5}


def test_config_diff_compares_with_the_daemon(run: Run, serve: Serve, tmp_path: Path) -> None:
    running = json.loads(run("config", "show", SHIPPED, "--json").stdout)["config"]
    socket = serve({"/v1/config": (200, {"schema": 1, "path": None, "config": running, "origins": {}})})
    same = run("config", "diff", SHIPPED, socket=socket)
    assert (same.exit_code, same.stdout, same.stderr) == (0, "", "no differences\n")
    file = tmp_path / "new.yaml"
    file.write_text("mode: observe\npolicies: [{name: home, kind: follow-cpu}, {name: x, kind: access}]\n")
    done = run("config", "diff", str(file), socket=socket)
    assert (done.exit_code, done.stdout.splitlines()) == (
        5,
        [
            f'mode: "enforce" -> "observe"  ({file}:1:7)',
            'policies.x: nothing -> {"name": "x", "kind": "access", "mode": null, "match": []}',
        ],
    )
    told = json.loads(run("config", "diff", str(file), "--json", socket=socket).stdout)
    assert (told["from"], told["to"], len(told["differences"])) == ("(running)", str(file), 2)
    file.write_text("mode: obey\n")
    broken = run("config", "diff", str(file), socket=socket)
    assert broken.exit_code == 5
    assert f"{file}:1:7: error" in broken.stderr
    assert run("config", "diff", SHIPPED).exit_code == 3


def test_policies_show_tells_options_and_knows_what_was_meant(run: Run) -> None:
    done = run("policies", "show", "tiering")
    assert done.exit_code == 0
    assert 'headroom     "2%"     Share of a node with CPUs to keep free' in done.stdout
    assert "- name: tiering\n      kind: tiering" in done.stdout
    assert "(required)" in run("policies", "show", "drain").stdout
    wrong = run("policies", "show", "tierin")
    assert wrong.exit_code == 2
    assert "did you mean tiering?" in wrong.stderr


@pytest.mark.parametrize(
    ("shape", "good", "bad"),
    [
        ("int", 1, 1.5),
        ("int", 0, True),
        ("int?", None, "x"),
        ("num", 1.5, None),
        ("str", "", 0),
        ("bool", False, 0),
        (one_of("a", None), None, "b"),
        (each("int"), [1], [None]),
        (by("int"), {"0": 1}, {"0": "1"}),
        (maybe({"a": "int"}), None, {}),
        (of("a:int b?:str"), {"a": 1}, {"b": ""}),
        ({"a": "int"}, {"a": 1}, {"a": 1, "new": 2}),
        (either("int", "str"), "x", None),
    ],
)
def test_the_validator_tells_good_from_bad(shape: Any, good: Any, bad: Any) -> None:
    schema = schema_of(shape)
    assert list(faults(schema, good)) == []
    assert list(faults(schema, bad)) != []


def test_a_status_without_its_tick_is_a_fault() -> None:
    document = {**answers()["/v1/status"][1], "healthy": True}
    assert list(faults(SCHEMAS["status"], document)) == []
    del document["tick"]
    assert list(faults(SCHEMAS["status"], document)) == ["$: no tick"]
