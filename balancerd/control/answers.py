"""Answers as HTTP has them: code, body and headers, and how they are sent. Must not know what is asked."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from wsgiref.types import StartResponse

from balancerd.control import api


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One response: JSON unless a content type says otherwise."""

    code: HTTPStatus
    body: bytes
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


def as_json(code: HTTPStatus, data: api.Json, headers: Mapping[str, str] | None = None) -> Answer:
    """Return a document."""
    return Answer(code=code, body=json.dumps(data).encode("ascii") + b"\n", headers=headers or {})


def refuse(code: HTTPStatus, text: str) -> Answer:
    """Return an error with a sentence about it."""
    return as_json(code, api.error(text))


def not_allowed(allowed: str) -> Answer:
    """Return that another method is asked for."""
    return as_json(HTTPStatus.METHOD_NOT_ALLOWED, api.error(f"only {allowed} is allowed here"), {"Allow": allowed})


def send(answer: Answer, start_response: StartResponse) -> Iterable[bytes]:
    """Begin the response of an answer, and return its body (PEP 3333)."""
    headers = {
        "Content-Type": answer.content_type,
        "Content-Length": str(len(answer.body)),
        "Cache-Control": "no-store",
        **answer.headers,
    }
    start_response(f"{answer.code.value} {answer.code.phrase}", list(headers.items()))
    return [answer.body]
