"""What operators switch, and advice on placement: these paths of the control API, with their answers.

GET /v1/advice              schema, leases: [lease], the oldest first
POST /v1/advice             takes {cpus, memory_bytes, lease_seconds (null: no lease)}
                            (400: not understood; 409: before the first tick, or too many leases are open)
    schema, advice: {nodes ("0-1"; "" when there is none), fits (whether idle CPUs and free memory suffice), detail,
            cpus, memory_bytes, shares: [{node, cpus, memory_bytes}], age_seconds (of the figures), source ("daemon";
            "machine" where the command has looked itself)}, lease: null or as below, lease_detail (why there is none)
    A lease is given where it fits, and to root and the daemon's user only: what is leased is not advised again.
    lease   {id, nodes, cpus, memory_bytes, age_seconds, left_seconds}
POST /v1/advice/ID/release  schema, released (true)     (root and the daemon's user only; 404: no such lease)

POST /v1/pause              takes {seconds (null: until resumed)}: nothing begins to move from now on, what moves ends
                            after the call at hand, and jobs wait    (202; root and the daemon's user only)
    schema, pause: {since_seconds, left_seconds (null: no end)}
POST /v1/resume             schema, was_paused          (202; root and the daemon's user only)
GET /v1/status has besides  pause: null or as above; paused and paused_detail tell of it, too
POST /v1/mode               takes {mode: "enforce" or "observe"}: in effect from the next tick until the next reload or
                            restart (202; root and the daemon's user only)
    schema, mode
GET /v1/config              what is in effect: schema, path (null: built-in defaults), origins: {key:
                            "FILE:LINE:COLUMN"}, config: every key, as `balancerctl config show --json` tells it

It must not know sockets, nor what is done with the switches.
"""

import re
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Final
from wsgiref.types import WSGIEnvironment

from balancerd.control.access import Access, Peer
from balancerd.control.advice_facts import tell_advice, tell_lease
from balancerd.control.answers import Answer, as_json, not_allowed, refuse
from balancerd.control.api import SCHEMA, Json, rounded_seconds
from balancerd.control.bodies import read_body
from balancerd.control.lease_book import LeaseBook, TooManyLeasesError
from balancerd.control.requests import MOST_BODY_BYTES, BadRequest, Fields, parse_object
from balancerd.control.state import View
from balancerd.engine.advice import Demand
from balancerd.jobs.switches import LONGEST_SECONDS, Halt, Switches

MOST_CPUS: Final = 65_536.0
MOST_MEMORY_BYTES: Final = 1 << 50
LONGEST_LEASE_SECONDS: Final = 3600.0

CHANGES: Final = "only root, the daemon's user and control.change_group may do that"

_RELEASE_PATH = re.compile(r"/v1/advice/([1-9][0-9]{0,14})/release", re.ASCII)


class Operator:
    """Answers these paths. `config()` returns path, configuration and origins that are in effect."""

    def __init__(
        self,
        *,
        switches: Switches,
        leases: LeaseBook,
        access: Access,
        view: Callable[[], View],
        now: Callable[[], float],
        config: Callable[[], Json],
    ) -> None:
        self._switches = switches
        self._leases = leases
        self._access = access
        self._view = view
        self._now = now
        self._config = config

    def answer(self, method: str, path: str, peer: Peer, environ: WSGIEnvironment) -> Answer | None:
        """Return the answer to a peer who may read; None for a path that is not one of these. Raises BodyRefused."""
        try:
            return self._answer(method, path, peer, environ)
        except BadRequest as wrong:
            return refuse(HTTPStatus.BAD_REQUEST, str(wrong))

    def complete(self, status: Json) -> Json:
        """Return the answer to GET /v1/status with the pause in it, which the last tick may not know of yet."""
        halt = self._switches.halt()
        if halt is None:
            return {**status, "pause": None}
        told = {"pause": self._halt(halt), "paused": True}
        return {**status, **told, "paused_detail": status["paused_detail"] or self._switches.tell()}

    def _answer(self, method: str, path: str, peer: Peer, environ: WSGIEnvironment) -> Answer | None:
        if path == "/v1/config":
            return (
                as_json(HTTPStatus.OK, {"schema": SCHEMA, **self._config()}) if method == "GET" else not_allowed("GET")
            )
        if path == "/v1/advice":
            return self._advice(method, peer, environ)
        release = _RELEASE_PATH.fullmatch(path)
        posts: Mapping[str, Callable[[Fields], Answer]] = {
            "/v1/pause": self._pause,
            "/v1/resume": self._resume,
            "/v1/mode": self._mode,
        }
        if release is None and path not in posts:
            return self._refuse_recording(method, path)
        if method != "POST":
            return not_allowed("POST")
        if not self._access.may_change(peer):
            return refuse(HTTPStatus.FORBIDDEN, CHANGES)
        fields = _read(environ)
        return posts[path](fields) if release is None else self._release(int(release[1]))

    def _advice(self, method: str, peer: Peer, environ: WSGIEnvironment) -> Answer:
        if method == "GET":
            now = self._now()
            return as_json(
                HTTPStatus.OK, {"schema": SCHEMA, "leases": [tell_lease(each, now) for each in self._leases.all()]}
            )
        if method != "POST":
            return not_allowed("GET, POST")
        fields = _read(environ)
        _allow(fields, {"cpus", "memory_bytes", "lease_seconds"})
        demand = Demand(
            cpus=_amount(fields, "cpus", MOST_CPUS),
            memory_bytes=int(_amount(fields, "memory_bytes", MOST_MEMORY_BYTES)),
        )
        wanted = fields.get("lease_seconds")
        seconds = None if wanted is None else _amount(fields, "lease_seconds", LONGEST_LEASE_SECONDS)
        refused = (
            ""
            if seconds is None or self._access.may_change(peer)
            else "only root, the daemon's user and control.change_group get one"
        )
        view = self._view()
        if view.report is None or view.told_at is None:
            return refuse(HTTPStatus.CONFLICT, "there was no tick yet: ask again in a moment")
        try:
            advice, lease = self._leases.advise(view.report, demand, None if refused else seconds or None)
        except TooManyLeasesError as full:
            return refuse(HTTPStatus.CONFLICT, str(full))
        now = self._now()
        told = {
            "schema": SCHEMA,
            "advice": tell_advice(advice, demand, age_seconds=now - view.told_at, source="daemon"),
            "lease": None if lease is None else tell_lease(lease, now),
            "lease_detail": refused or ("it does not fit" if seconds and not advice.fits else ""),
        }
        return as_json(HTTPStatus.OK, told)

    def _release(self, lease_id: int) -> Answer:
        if not self._leases.release(lease_id):
            return refuse(HTTPStatus.NOT_FOUND, f"there is no lease {lease_id}, or it has ended")
        return as_json(HTTPStatus.OK, {"schema": SCHEMA, "released": True})

    def _pause(self, fields: Fields) -> Answer:
        _allow(fields, {"seconds"})
        seconds = None if fields.get("seconds") is None else _amount(fields, "seconds", LONGEST_SECONDS)
        if seconds == 0:
            raise BadRequest('"seconds" must be more than 0')
        halt = self._switches.pause(seconds)
        return as_json(HTTPStatus.ACCEPTED, {"schema": SCHEMA, "pause": self._halt(halt)})

    def _resume(self, fields: Fields) -> Answer:
        _allow(fields, set())
        return as_json(HTTPStatus.ACCEPTED, {"schema": SCHEMA, "was_paused": self._switches.resume()})

    def _mode(self, fields: Fields) -> Answer:
        _allow(fields, {"mode"})
        match fields.get("mode"):
            case "enforce" | "observe" as mode:
                self._switches.order_mode(mode)
                return as_json(HTTPStatus.ACCEPTED, {"schema": SCHEMA, "mode": mode})
            case _:
                raise BadRequest('"mode" must be "enforce" or "observe"')

    def _refuse_recording(self, method: str, path: str) -> Answer | None:
        """A replay knows of no pause: what was recorded in one would not be decided again as it was."""
        if path == "/v1/recordings" and method == "POST" and self._switches.is_halted():
            return refuse(HTTPStatus.CONFLICT, "balancerd is paused: nothing can be recorded until it is resumed")
        return None

    def _halt(self, halt: Halt) -> Json:
        now = self._now()
        left = halt.left_seconds(now)
        return {
            "since_seconds": rounded_seconds(now - halt.begun_at),
            "left_seconds": None if left is None else rounded_seconds(left),
        }


def _read(environ: WSGIEnvironment) -> Fields:
    return parse_object(read_body(environ, most_bytes=MOST_BODY_BYTES) or b"{}")


def _allow(fields: Fields, keys: set[str]) -> None:
    unknown = sorted(fields.keys() - keys)
    if unknown:
        raise BadRequest(f'unknown key "{unknown[0][:64]}"')


def _amount(fields: Fields, key: str, largest: float) -> float:
    value = fields.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= largest:
        raise BadRequest(f'"{key}" must be a number from 0 to {largest:g}')
    return float(value)
