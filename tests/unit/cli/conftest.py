"""balancerctl run against a server with canned documents, or against a daemon that does jobs, on a unix socket."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer
from typing import Any

import click.testing
import pytest

from balancerd.cli.control import group
from balancerd.cli.schemas import SHAPES, build_schema
from tests.unit.cli.validation import faults
from tests.unit.control.daemon import Room, running

Answers = Mapping[str, tuple[int, Any]]
Serve = Callable[[Answers], str]
Run = Callable[..., click.testing.Result]

SCHEMAS: dict[str, Any] = build_schema()["$defs"]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Start a server that answers each path with its code and document (bytes go as they are); returns its socket."""
    servers: list[tuple[ThreadingUnixStreamServer, threading.Thread]] = []

    def start(answers: Answers) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                code, document = answers[self.path]
                body = document if isinstance(document, bytes) else json.dumps(document).encode("ascii")
                self.send_response(code)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.do_GET()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the name in the base class
                """Say nothing."""

        path = str(tmp_path / f"s{len(servers)}")
        server = ThreadingUnixStreamServer(path, Handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        servers.append((server, thread))
        return path

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run balancerctl in this process; without `socket`, nobody listens. Every JSON document is held to its schema."""

    def invoke(
        *arguments: str, socket: str | None = None, env: Mapping[str, str | None] | None = None
    ) -> click.testing.Result:
        chosen = socket or str(tmp_path / "nobody")
        runner = click.testing.CliRunner()
        done = runner.invoke(
            group, ["--socket", chosen, *arguments], prog_name="balancerctl", env=env, catch_exceptions=False
        )
        check_document(arguments, done)
        return done

    return invoke


def check_document(arguments: Sequence[str], done: click.testing.Result) -> None:
    """Hold what a command with --json printed to the schema of that command; nothing is printed when it failed."""
    if not {"--json", "--format=json"} & set(arguments) or not done.stdout:
        return
    words = " ".join(arguments[:2]) if " ".join(arguments[:2]) in SHAPES else arguments[0]
    found = list(faults(SCHEMAS[words], json.loads(done.stdout)))
    assert not found, (words, found)


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    """A daemon whose loop does nothing but work on jobs."""
    room = Room(socket=tmp_path / "control.sock")
    stop = threading.Event()

    def loop() -> None:
        while not stop.wait(0.001):
            room.now = room.world.clock.now()
            room.world.step()

    with running(room.server()):
        thread = threading.Thread(target=loop)
        thread.start()
        yield room
        stop.set()
        thread.join()
