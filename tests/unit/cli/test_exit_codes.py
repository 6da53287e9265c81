"""The exit codes are a contract with scripts: each is reached, and --help and the manual list them all."""

import re
from typing import Any

import pytest

from balancerd.cli import manual
from balancerd.cli.control import EPILOG
from balancerd.cli.exits import ExitCode
from tests.unit.cli.conftest import Run, Serve
from tests.unit.cli.documents import answers

REFUSED: dict[str, tuple[int, Any]] = {
    "/v1/status": (403, {"schema": 1, "error": "not you"}),
    "/v1/pause": (403, {"schema": 1, "error": "not you"}),
    "/v1/jobs": (403, {"schema": 1, "error": "not you"}),
    "/v1/advice": (403, {"schema": 1, "error": "not you"}),
}
BROKEN: dict[str, tuple[int, Any]] = {"/v1/status": (500, b"no JSON"), "/v1/pause": (409, {"schema": 1, "error": "no"})}


@pytest.mark.parametrize(
    ("arguments", "served", "code"),
    [
        (("status",), answers(), ExitCode.OK),
        (("status",), BROKEN, ExitCode.FAILURE),
        (("pause",), BROKEN, ExitCode.FAILURE),
        (("move", "1"), None, ExitCode.USAGE),
        (("no-such-command",), None, ExitCode.USAGE),
        (("status", "--no-such-option"), None, ExitCode.USAGE),
        (("status",), None, ExitCode.NOT_RUNNING),
        (("move", "1", "--to", "0"), None, ExitCode.NOT_RUNNING),
        (("config", "diff"), None, ExitCode.NOT_RUNNING),
        (("status",), REFUSED, ExitCode.NOT_PERMITTED),
        (("pause",), REFUSED, ExitCode.NOT_PERMITTED),
        (("move", "1", "--to", "0"), REFUSED, ExitCode.NOT_PERMITTED),
        (("advise", "0:1"), REFUSED, ExitCode.OK),  # it looks itself
        (("advise", "9999:1"), REFUSED, ExitCode.FINDINGS),
        (("config", "check", "/nonexistent.yaml"), None, ExitCode.FINDINGS),
    ],
)
def test_each_code_means_what_it_says(
    run: Run, serve: Serve, arguments: tuple[str, ...], served: dict[str, tuple[int, Any]] | None, code: ExitCode
) -> None:
    done = run(*arguments, socket=None if served is None else serve(served))
    assert done.exit_code == code
    if code in {ExitCode.FAILURE, ExitCode.USAGE, ExitCode.NOT_RUNNING, ExitCode.NOT_PERMITTED}:
        assert done.stdout == ""
        assert done.stderr != ""


def test_help_and_manual_list_every_code() -> None:
    told = {int(number) for number in re.findall(r"^  (\d+)  ", EPILOG, flags=re.MULTILINE)}
    assert told == set(ExitCode)
    page = manual.balancerctl_page().partition(".SH EXIT STATUS\n")[2].partition(".SH ")[0]
    assert {int(number) for number in re.findall(r"^\\fB(\d+)\\fR$", page, flags=re.MULTILINE)} == set(ExitCode)
