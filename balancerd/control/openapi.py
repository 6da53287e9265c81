"""The OpenAPI document of the control API, made of the table of its operations. Pure.

The daemon answers GET /v1/openapi.json with it, and deploy/schemas/control-api.openapi.json is the same. It must not
know what any operation does.
"""

import re
from http import HTTPStatus
from typing import Any, Final

from balancerd.control import order_shapes
from balancerd.control.api import SCHEMA
from balancerd.control.asked_schemas import PATH_PARAMETERS
from balancerd.control.operations import JSON, OPERATIONS, Body, Operation
from balancerd.control.shapes import Schema, schema_of

OPENAPI_VERSION: Final = "3.1.0"

READERS: Final = "readers"
OWNERS: Final = "owners"
"""Values of x-balancerd-allowed."""

_ABOUT: Final = """\
How balancerd is asked and told, on the unix socket of control.socket. The kernel vouches for who asks: root, the
daemon's user and members of control.change_group may do everything (x-balancerd-allowed: owners), members of
control.group may ask where it says readers, and everybody else is answered 403. Methods that are not named here are
answered 405 with Allow, paths 404. Requests that are no HTTP, or far too long, are answered 400 or 413 in plain text.
Every document but this one has "schema": within one number keys and paths are added, never renamed or removed. Unknown
is null, never 0; units stand in the key.
"""

_ALWAYS: Final = {HTTPStatus.FORBIDDEN: "who asks may not"}
_WITH_BODY: Final = {
    HTTPStatus.LENGTH_REQUIRED: "a body is sent without Content-Length",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "the body is too long",
}


def build_openapi() -> dict[str, Any]:
    """Return the whole document."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": OPENAPI_VERSION,
        "info": {"title": "balancerd control API", "version": str(SCHEMA), "description": " ".join(_ABOUT.split())},
        "servers": [{"url": "http://localhost", "description": "any host name: the socket tells who is meant"}],
        "paths": paths,
        "components": {"schemas": _schemas()},
    }


def _schemas() -> dict[str, Schema]:
    told = {operation.answered.name: schema_of(operation.answered.shape) for operation in OPERATIONS}
    return {**told, "Error": schema_of(order_shapes.ERROR)}


def _operation(operation: Operation) -> dict[str, Any]:
    answered = operation.answered
    refusals = {**_ALWAYS, **({} if operation.body is None else _WITH_BODY), **operation.refusals}
    parameters = [_parameter(name, "path") for name in re.findall(r"{(\w+)}", operation.path)]
    parameters += [_parameter(name, "query", schema) for name, schema in operation.query.items()]
    told: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "x-balancerd-allowed": OWNERS if operation.changes else READERS,
        "parameters": parameters,
        "responses": {
            str(answered.code.value): {
                "description": answered.code.phrase,
                "content": {answered.content_type: _content(answered.name, answered.content_type)},
            },
            **{
                str(code.value): {"description": text, "content": {JSON: _content("Error")}}
                for code, text in sorted(refusals.items())
            },
        },
    }
    if operation.body is not None:
        told["requestBody"] = _body(operation.body)
    return told


def _parameter(name: str, place: str, schema: Schema | None = None) -> dict[str, Any]:
    required = {"required": True} if place == "path" else {}
    return {"name": name, "in": place, **required, "schema": PATH_PARAMETERS[name] if schema is None else schema}


def _content(name: str, content_type: str = JSON) -> dict[str, Any]:
    """Return how a document is told; of a stream OpenAPI has no word for what its events are."""
    reference = {"$ref": f"#/components/schemas/{name}"}
    return {"schema": reference} if content_type == JSON else {"schema": {"type": "string"}, "x-event-data": reference}


def _body(body: Body) -> dict[str, Any]:
    return {
        "required": body.is_required,
        "description": f"at most {body.most_bytes} bytes",
        "content": {body.content_type: {"schema": body.schema}},
    }
