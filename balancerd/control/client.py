"""The other end of the control socket: asks the daemon, and tells apart why there is no answer.

Owns the exit codes of those failures. Standard library only, and nothing of balancerd that imports more: commands that
merely ask start fast and run without the daemon's dependencies. It must not know what the answers mean.
"""

import contextlib
import http.client
import json
import socket
import struct
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

TIMEOUT_SECONDS = 5.0


class ControlFailure(Exception):  # noqa: N818 -- it also stands for refusals that are no errors of anyone
    """The daemon answered, but not what was asked for. `code` is the HTTP status, None when there was no answer."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class NotRunning(ControlFailure):
    """Nobody listens on the socket."""

    exit_code: ClassVar[int] = 3


class NotPermitted(ControlFailure):
    """The socket may not be opened, or the daemon refuses this user."""

    exit_code: ClassVar[int] = 4


class ControlClient:
    """Asks the daemon that listens on `socket_path`; each request has a connection of its own."""

    def __init__(self, socket_path: str, *, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self._socket_path = socket_path
        self._timeout_seconds = timeout_seconds

    def get(self, path: str) -> dict[str, Any]:
        """Return the answer to GET `path`, such as "/v1/status". Raises ControlFailure or one of its kinds."""
        return self._ask("GET", path)

    def post(self, path: str, document: Mapping[str, object] | None = None) -> dict[str, Any]:
        """Return the answer to POST `path`, such as "/v1/reload", with `document` as its JSON body when there is one.

        Raises ControlFailure or one of its kinds.
        """
        return self._ask("POST", path, None if document is None else json.dumps(document).encode("ascii"))

    def post_bytes(self, path: str, body: bytes) -> dict[str, Any]:
        """Return the answer to POST `path` with a body that is no JSON. Raises ControlFailure or one of its kinds."""
        return self._ask("POST", path, body)

    def _ask(self, method: str, path: str, body: bytes | None = None) -> dict[str, Any]:
        connection = UnixConnection(self._socket_path, self._timeout_seconds)
        try:
            with telling_apart(self._socket_path):
                connection.request(method, path, body)
                response = connection.getresponse()
                code, body = response.status, response.read()
        finally:
            connection.close()
        return judge(code, body)


@contextlib.contextmanager
def telling_apart(socket_path: str) -> Iterator[None]:
    """Turn the ways in which asking fails into ControlFailure and its kinds."""
    try:
        yield
    except (FileNotFoundError, ConnectionRefusedError):
        raise NotRunning(f"balancerd is not running: nobody listens on {socket_path}") from None
    except PermissionError:
        raise NotPermitted(f"you may not open {socket_path}: be root or a member of control.group") from None
    except (OSError, http.client.HTTPException) as error:
        raise ControlFailure(f"no answer on {socket_path}: {str(error) or type(error).__name__}") from error


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, socket_path: str, timeout_seconds: float) -> None:
        super().__init__("localhost", timeout=timeout_seconds)
        self._socket_path = socket_path
        self._timeout_seconds = timeout_seconds

    def connect(self) -> None:
        """Connect, and wait where many do: with a timeout of Python's own, connecting would fail at once then."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        seconds = self._timeout_seconds
        self.sock.setsockopt(
            socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
        )
        self.sock.connect(self._socket_path)
        self.sock.settimeout(seconds)


def judge(code: int, body: bytes) -> dict[str, Any]:
    """Return the document of an answer. Raises ControlFailure or one of its kinds when the code says no."""
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise ControlFailure(f"the daemon answered {code} and no JSON object", code=code)
    if code < http.client.BAD_REQUEST:
        return answer
    message = str(answer.get("error", f"the daemon answered {code}"))
    if code == http.client.FORBIDDEN:
        raise NotPermitted(message, code=code)
    raise ControlFailure(message, code=code)
