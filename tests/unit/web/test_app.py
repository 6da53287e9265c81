"""Paths, methods, hosts and headers of the page, asked as a server asks it."""

from collections.abc import Callable
from typing import Any

import pytest

from balancerd.web.app import FILES, PATHS, PageApp
from balancerd.web.live import Live
from tests.unit.reports import a_moving_report
from tests.unit.web.pages import Times, a_memory

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)


class Asked:
    """An application and what it answered last."""

    def __init__(self, *, most_clients: int = 2, hosts: tuple[str, ...] = ("db-7",)) -> None:
        self.times = Times()
        self.memory = a_memory(self.times)
        self.live = Live(most_clients=most_clients)
        self.app = PageApp(memory=self.memory, live=self.live, now=self.times.now, hosts=hosts, take_key="take")
        self.taken: list[Any] = []

    def ask(self, path: str = "/", method: str = "GET", host: str | None = "127.0.0.1:9923", **more: Any) -> bytes:
        environ: dict[str, Any] = {"REQUEST_METHOD": method, "PATH_INFO": path, **more}
        if host is not None:
            environ["HTTP_HOST"] = host

        def start_response(status: str, headers: list[tuple[str, str]], *_: object) -> Callable[[bytes], object]:
            self.code, self.headers = int(status[:3]), dict(headers)
            assert len(self.headers) == len(headers)
            return lambda _body: None

        return b"".join(self.app(environ, start_response))

    def stream(self, **more: Any) -> int:
        self.ask("/events", take=self.taken.append, **more)
        return self.code


@pytest.mark.parametrize("path", sorted(PATHS))
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_every_answer_has_the_headers_that_keep_a_browser_in_check(path: str, method: str) -> None:
    asked = Asked()
    asked.ask(path, method, take=asked.taken.append)
    assert asked.headers["Content-Security-Policy"] == CSP
    assert asked.headers["X-Content-Type-Options"] == "nosniff"
    assert asked.headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert asked.headers["Referrer-Policy"] == "no-referrer"
    assert not {"Set-Cookie", "Access-Control-Allow-Origin"} & asked.headers.keys()


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "get"])
@pytest.mark.parametrize("path", ["/", "/events", "/page.js"])
def test_it_only_reads(path: str, method: str) -> None:
    asked = Asked()
    asked.ask(path, method, take=asked.taken.append)
    assert (asked.code, asked.headers["Allow"], asked.taken) == (405, "GET, HEAD", [])


@pytest.mark.parametrize("path", ["/", *sorted(FILES)])
def test_head_is_get_without_the_body(path: str) -> None:
    asked = Asked()
    body = asked.ask(path)
    headers = asked.headers
    assert (asked.code, headers["Content-Length"]) == (200, str(len(body)))
    assert asked.ask(path, "HEAD") == b""
    assert (asked.code, asked.headers) == (200, headers)


@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("127.0.0.1:9923", True),
        ("127.0.0.1", True),
        ("[::1]:9923", True),
        ("192.0.2.7:80", True),  # an attacker's name can point here, an address cannot be one
        ("localhost:9923", True),
        ("LOCALHOST", True),
        ("db-7:9923", True),
        ("db-7.:9923", True),
        ("evil.example:9923", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("db-7.evil.example", False),
        ("2130706433", False),
        ("127.0.0.1, evil.example", False),
        ("localhost@evil.example", False),
        ("[::1", False),
        ("localhost:80:80", False),
        ("", False),
        (None, False),
    ],
)
@pytest.mark.parametrize("path", ["/", "/events", "/page.js"])
def test_only_addresses_and_names_of_this_machine_are_answered(host: str | None, known: bool, path: str) -> None:
    asked = Asked()
    body = asked.ask(path, host=host, take=asked.taken.append)
    assert asked.code == (200 if known else 421)
    assert bool(asked.taken) == (known and path == "/events")
    assert known or b"balancerd" not in body


def test_the_page_is_made_once_for_a_tick_and_a_second() -> None:
    asked = Asked()
    first = asked.ask()
    assert asked.ask() == first
    asked.memory.emit(a_moving_report())
    second = asked.ask()
    assert b"tick 1 ended 0s ago" in second
    asked.times.time += 1.0
    assert b"tick 1 ended 1s ago" in asked.ask()


@pytest.mark.parametrize(
    ("site", "code"), [("same-origin", 200), ("none", 200), ("same-site", 403), ("cross-site", 403)]
)
def test_a_page_from_elsewhere_gets_no_stream(site: str, code: int) -> None:
    asked = Asked()
    assert asked.stream(HTTP_SEC_FETCH_SITE=site) == code
    assert len(asked.taken) == (code == 200)


def test_a_stream_is_taken_over_and_has_no_length() -> None:
    asked = Asked()
    assert asked.stream() == 200
    assert asked.taken == [asked.live.join]
    assert asked.headers["Content-Type"] == "text/event-stream"
    assert "Content-Length" not in asked.headers


def test_a_server_that_hands_nothing_over_has_no_streams() -> None:
    asked = Asked()
    asked.ask("/events")
    assert asked.code == 503


def test_a_head_of_the_stream_takes_nothing() -> None:
    asked = Asked()
    asked.ask("/events", "HEAD", take=asked.taken.append)
    assert (asked.code, asked.taken) == (200, [])
