"""Bodies of POST /v1/jobs: what is understood, and a clear sentence for everything else."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancerd.control.requests import BadRequest, parse_job
from balancerd.jobs.record import EvictRequest, JobRequest, MoveRequest, UndoRequest
from tests.unit.fakes import N0, N1, N2, N3


@pytest.mark.parametrize(
    ("body", "request_"),
    [
        ({"kind": "move", "pid": 7, "to": "2"}, MoveRequest(pid=7, targets=frozenset({N2}))),
        (
            {"kind": "move", "pid": 7, "to": "2-3", "from": "0,1", "move_all": True, "ignore_mempolicy": True},
            MoveRequest(
                pid=7,
                targets=frozenset({N2, N3}),
                sources=frozenset({N0, N1}),
                move_all=True,
                ignore_mempolicy=True,
            ),
        ),
        (
            {"kind": "move", "pid": 7, "to": "2", "from": None, "whole": True, "move_all": False},
            MoveRequest(pid=7, targets=frozenset({N2}), whole=True),
        ),
        ({"kind": "evict", "pid": 4194304}, EvictRequest(pid=4194304)),
        ({"kind": "evict", "pid": 7.0}, EvictRequest(pid=7)),
        ({"kind": "evict", "pid": 7, "cold_only": True}, EvictRequest(pid=7, cold_only=True)),
        ({"kind": "undo", "move": 12}, UndoRequest(move_id=12)),
    ],
)
def test_a_good_body_becomes_a_request(body: object, request_: JobRequest) -> None:
    assert parse_job(json.dumps(body).encode()) == request_


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the body is no JSON"),
        (b"\xff", "the body is no JSON"),
        (b"{", "the body is no JSON"),
        (b"[" * 4000, "the body is no JSON"),
        (b"[]", "the body must be a JSON object"),
        (b'{"kind": "undo", "move": 1, "move": 2}', "the body has a key twice"),
        (b"{}", '"kind" must be one of "move", "evict", "undo"'),
        (b'{"kind": ["move"]}', '"kind" must be one of "move", "evict", "undo"'),
        (b'{"kind": "mvoe"}', '"kind" must be one of "move", "evict", "undo"'),
        (b'{"kind": "undo", "move": 1, "pid": 7}', 'unknown key "pid" for a job of kind undo'),
        (b'{"kind": "undo", "move": 1, "\\u001b[2J": 7}', 'unknown key "\\u001b[2J" for a job of kind undo'),
        (b'{"kind": "evict"}', '"pid" is missing'),
        (b'{"kind": "undo"}', '"move" is missing'),
        (b'{"kind": "evict", "pid": "7"}', '"pid" must be a number from 1 to 4194304'),
        (b'{"kind": "evict", "pid": true}', '"pid" must be a number from 1 to 4194304'),
        (b'{"kind": "evict", "pid": 7.5}', '"pid" must be a number from 1 to 4194304'),
        (b'{"kind": "evict", "pid": 1e400}', '"pid" must be a number from 1 to 4194304'),
        (b'{"kind": "evict", "pid": 0}', '"pid" must be a number from 1 to 4194304'),
        (b'{"kind": "evict", "pid": 4194305}', '"pid" must be a number from 1 to 4194304'),
        (b'{"kind": "evict", "pid": 7, "cold_only": 1}', '"cold_only" must be true or false'),
        (b'{"kind": "evict", "pid": 7, "cold_only": null}', '"cold_only" must be true or false'),
        (b'{"kind": "move", "pid": 7}', '"to" is missing: the nodes to move to, such as "2-3"'),
        (b'{"kind": "move", "pid": 7, "to": 2}', '"to" must be a list of nodes as a text, such as "2-3" or "0,2"'),
        (b'{"kind": "move", "pid": 7, "to": ""}', '"to" names no node'),
        (
            b'{"kind": "move", "pid": 7, "to": "2-"}',
            '"to" is no list of nodes such as "2-3" or "0,2": \'2-\' is not a number or a range such as 0-3',
        ),
        (
            b'{"kind": "move", "pid": 7, "to": "0", "from": "3-1"}',
            '"from" is no list of nodes such as "2-3" or "0,2": the range \'3-1\' runs backwards',
        ),
        (b'{"kind": "move", "pid": 7, "to": "0-99999999999"}', '"to" names node 99999999999: there are at most 1024'),
        (
            '{"kind": "move", "pid": 7, "to": "0-\u0669\u0669\u0669\u0669\u0669\u0669\u0669\u0669\u0669"}'.encode(),
            '"to" must be a list of nodes as a text, such as "2-3" or "0,2"',
        ),
        (
            b'{"kind": "move", "pid": 7, "to": "2", "whole": true, "move_all": true}',
            '"whole" moves pages of several processes anyway: leave "move_all" out',
        ),
    ],
)
def test_anything_else_is_refused_with_a_sentence(body: bytes, message: str) -> None:
    with pytest.raises(BadRequest) as wrong:
        parse_job(body)
    assert str(wrong.value) == message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(st.sampled_from(["kind", "pid", "to", "from", "move", "whole", "x"]), JSON),
    st.sampled_from(["move", "evict", "undo", 3]),
)
def test_no_body_raises_anything_else(fields: dict[str, object], kind: object) -> None:
    with contextlib.suppress(BadRequest):
        parse_job(json.dumps({**fields, "kind": kind}).encode())
