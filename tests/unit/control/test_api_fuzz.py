"""The control API asked at random by schemathesis, as its document allows and otherwise: answers are as told there.

Held to the document are status codes, content types and bodies; what it allows is taken, and all else is refused.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case, CheckFunction, GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from balancerd.control.app import PEER_KEY
from balancerd.control.operations import EVENTS_TYPE, OPERATIONS, Operation
from tests.unit.cli.validation import faults
from tests.unit.control.busy import NUMBERS, ROOT, a_busy_room, a_full_room
from tests.unit.control.daemon import Room

EXAMPLES: Final = 12

ASKED: Final = [each for each in OPERATIONS if each.answered.content_type != EVENTS_TYPE]
"""A stream does not end."""

TAKEN: Final = [each for each in ASKED if each.query or each.body or "{" in each.path]
"""Those that can be asked wrongly."""

SAYS_TOO_MUCH: Final = frozenset({"submitJob", "beginImport", "importSamples"})
"""What the schemas of these allow may be refused: nodes that are not there, times out of order, half a sample."""


@dataclass
class Door:
    """Where the daemon of the day is asked, as root."""

    app: WSGIApplication

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        environ[PEER_KEY] = ROOT
        return self.app(environ, start_response)

    def lead_to(self, room: Room) -> None:
        self.app = room.app()


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Door:
    return Door(a_full_room(tmp_path_factory.mktemp("door")).app())


@pytest.fixture(scope="module")
def api(door: Door) -> Any:
    """The API as schemathesis knows it from the document that is served."""
    return schemathesis.openapi.from_wsgi("/v1/openapi.json", door)


def ask_at_random(api: Any, operation: Operation, mode: GenerationMode, **given_values: Any) -> Counter[int]:
    """Ask some times, hold every answer to the document, and count the status codes."""
    codes: Counter[int] = Counter()
    strategy = api[operation.path][operation.method].as_strategy(generation_mode=mode, **given_values)
    excluded: list[CheckFunction] | None = [positive_data_acceptance] if operation.name in SAYS_TOO_MUCH else []
    told = api.raw_schema["components"]["schemas"]

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=strategy)
    def ask(case: Case[Any]) -> None:
        response = case.call_and_validate(excluded_checks=excluded)
        codes[response.status_code] += 1
        name = operation.answered.name if response.status_code < HTTPStatus.BAD_REQUEST else "Error"
        assert list(faults(told[name], response.json())) == []

    run: Callable[[], None] = ask
    run()
    return codes


def test_the_document_is_openapi(api: Any) -> None:
    api.validate()


@pytest.mark.parametrize("operation", ASKED, ids=lambda each: each.name)
def test_a_daemon_that_has_just_started_answers_as_its_document_tells(
    api: Any, door: Door, tmp_path: Path, operation: Operation
) -> None:
    door.lead_to(a_full_room(tmp_path))
    assert ask_at_random(api, operation, GenerationMode.POSITIVE)


@pytest.mark.parametrize("operation", ASKED, ids=lambda each: each.name)
def test_a_daemon_at_work_answers_as_its_document_tells(
    api: Any, door: Door, tmp_path: Path, operation: Operation
) -> None:
    room = a_busy_room(tmp_path)
    door.lead_to(room)
    numbers = {name: int(number) for name, number in NUMBERS.items() if f"{{{name}}}" in operation.path}
    codes = ask_at_random(api, operation, GenerationMode.POSITIVE, path_parameters=numbers or None)
    wanted = HTTPStatus.CONFLICT if operation.name in {"beginImport", "beginRecording"} else operation.answered.code
    assert codes[wanted] or operation.name in SAYS_TOO_MUCH, codes


@pytest.mark.parametrize("operation", TAKEN, ids=lambda each: each.name)
def test_what_the_document_does_not_allow_is_refused(
    api: Any, door: Door, tmp_path: Path, operation: Operation
) -> None:
    door.lead_to(a_busy_room(tmp_path))
    codes = ask_at_random(api, operation, GenerationMode.NEGATIVE)
    assert codes.keys() & {HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND}, codes
