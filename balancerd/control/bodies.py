"""How the body of a request is read: whole, and within bounds. It must not know what stands in it."""

from http import HTTPStatus
from wsgiref.types import WSGIEnvironment


class BodyRefused(Exception):  # noqa: N818 -- an answer like any other, no error of the daemon
    """The body is not read; the message is a sentence for whoever sent it, `code` the status that goes with it."""

    def __init__(self, code: HTTPStatus, told: str) -> None:
        super().__init__(told)
        self.code = code


def read_body(environ: WSGIEnvironment, *, most_bytes: int, is_required: bool = False) -> bytes:
    """Return the body, which may be missing unless it `is_required`. Raises BodyRefused."""
    length = str(environ.get("CONTENT_LENGTH") or "")
    if not length and is_required:
        raise BodyRefused(HTTPStatus.LENGTH_REQUIRED, "this needs a body with its Content-Length")
    if not length:
        return b""
    if not (length.isdecimal() and length.isascii()):
        raise BodyRefused(HTTPStatus.BAD_REQUEST, "the Content-Length is no number")
    if len(length) > len(str(most_bytes)) or int(length) > most_bytes:
        raise BodyRefused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a body has at most {most_bytes} bytes here")
    body: bytes = environ["wsgi.input"].read(int(length))
    if len(body) != int(length):
        raise BodyRefused(HTTPStatus.BAD_REQUEST, "the body is shorter than its Content-Length tells")
    return body
