"""What goes to and fro on the control socket when the daemon is recorded: pure.

The client asks for pieces and writes the file, with its own rights: the daemon opens no path that somebody names. What
waits for a client has bounds; one that is too slow loses its recording, see trace/recorder.py.

POST /v1/recordings          (202; root and the daemon's user only; 400: not understood; 409: another one is going on)
    takes {seconds}: how long, up to 24 hours. It begins with the next tick
    schema, recording: {number}
POST /v1/recordings/N/fetch  schema, recording: {number, ticks (fetched so far, with these), ended (why no more will
                             come, null while there may)}, lines: [object], each to be a line of the file, in order
                             (409: there is no such recording)
POST /v1/recordings/N/stop   schema: what has come can still be fetched                  (409: there is no such one)
"""

import json

from balancerd.control.api import SCHEMA, Json
from balancerd.control.requests import BadRequest, parse_object
from balancerd.trace.form import LONGEST_SECONDS
from balancerd.trace.recorder import Piece

MOST_BODY_BYTES = 1024


def parse_seconds(body: bytes) -> float:
    """Parse the body of POST /v1/recordings. Raises BadRequest."""
    fields = parse_object(body)
    seconds = fields.get("seconds")
    if fields.keys() != {"seconds"} or isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise BadRequest('a recording takes "seconds", a number')
    if not 0 < seconds <= LONGEST_SECONDS:
        raise BadRequest(f'"seconds" must be above 0, and at most {LONGEST_SECONDS:.0f}')
    return float(seconds)


def begun(number: int) -> Json:
    """Answer POST /v1/recordings."""
    return {"schema": SCHEMA, "recording": {"number": number}}


def fetched(piece: Piece) -> bytes:
    """Answer POST /v1/recordings/N/fetch. The lines are JSON already, and are put in as they are."""
    told = {"number": piece.number, "ticks": piece.ticks, "ended": piece.ended}
    head = json.dumps({"schema": SCHEMA, "recording": told})
    return f'{head[:-1]}, "lines": [{",".join(piece.lines)}]}}\n'.encode("ascii")


def stopped() -> Json:
    """Answer POST /v1/recordings/N/stop."""
    return {"schema": SCHEMA}
