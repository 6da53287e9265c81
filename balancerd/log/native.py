"""A log line as fields of the journal: which value becomes which field, and the MESSAGE_ID of each kind of event.

docs/history.md lists both for the operator. It must not know how entries are sent.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from balancerd.log.journald import Field

IDENTIFIER: Final = "balancerd"

MESSAGE_IDS: Final[Mapping[str, str]] = {
    "started": "1ace0673e42246ac9d1d72ff5345b30e",
    "stopped": "48ac20f511fc44a3a8dcc5b5ef1bb15a",
    "reloaded": "f989f3dfc58d4ff1a6f0c764bd8a5235",
    "configuration": "d498d4fde83046a1ac06cf6e67982b87",
    "configuration refused, the old one stays": "fb484355e7fb40fdaa8693983d8efd44",
    "mode changed": "26ab64772cc64553bad5a134bc1ecc2b",
    "tick": "7c86ab4a772f4145a36af6ba206cfa7a",
    "tick failed": "f9084ffd4d5b42edb4aa2f254f4faadf",
    "decision": "19f287d7276e4e67936be4b1591dd7fd",
    "decision held": "96d21f8c23e24e4dac3244d9a17207db",
    "memory moved": "98dcdad556714b51ad92d15afcf9fb7e",
    "memory evicted": "7ef0a59a9d2746df9f22597569585378",
    "threads moved": "82fef455685b4f4daabd4ec31852787a",
    "move judged": "e6e95ffed01149548e8c2757d2326617",
    "events left out": "0cab72404f954ad2babcbf307cafc034",
    "job ended": "1d1fc3db7717414499bdcbab74d52bd3",
    "policy hangs": "51a21b326dd14fc095c170f07d2e2465",
    "heat": "39ca0eb491884330885aef6c86da3103",
    "threads": "338003405cec459c8bc889546b7faa48",
    "perf log": "b87caa78db7e4fb8b6906ef4ad79f5bc",
    "history": "98ad258314424a249e80cc890cb6b697",
    "http server": "df14cc6d400141729e2ac3f477576391",
    "migration": "baea046b4aaa4ec3a3c00eb112d7bcab",
    "reason changed": "3b77becf9f4246478968ee8263c8c3f6",
}
"""By the phrase of the event. Drawn once, and never changed: catalogues and filters of operators name them."""

FIELDS: Final[Mapping[str, str]] = {
    "number": "BALANCERD_TICK",
    "pid": "BALANCERD_PID",
    "comm": "BALANCERD_COMM",
    "workload": "BALANCERD_WORKLOAD",
    "policy": "BALANCERD_POLICY",
    "decision": "BALANCERD_DECISION_ID",
    "source": "BALANCERD_FROM_NODE",
    "target": "BALANCERD_TO_NODE",
    "bytes": "BALANCERD_BYTES",
    "moved_bytes": "BALANCERD_BYTES",
    "reason": "BALANCERD_REASON",
    "move": "BALANCERD_MOVE_ID",
    "exception": "BALANCERD_EXCEPTION",
}
"""By the keyword of a log line. A list becomes one field for each of its values; None becomes none."""

_PRIORITIES: Final[Mapping[str, str]] = {"debug": "7", "info": "6", "warning": "4", "error": "3", "critical": "2"}
"""See syslog(3)."""

_IN_FIELDS_ONLY: Final = frozenset({"exception"})


def fields(event: Mapping[str, Any], text: str) -> Iterator[Field]:
    """Yield the fields of one event; `text` is what people read of it."""
    yield "MESSAGE", text
    yield "PRIORITY", _PRIORITIES.get(event["level"], "6")
    yield "SYSLOG_IDENTIFIER", IDENTIFIER
    message_id = MESSAGE_IDS.get(event["event"])
    if message_id is not None:
        yield "MESSAGE_ID", message_id
    for key, name in FIELDS.items():
        value = event.get(key)
        for each in value if isinstance(value, list | tuple) else (value,):
            if each is not None:
                yield name, str(each)


def in_text(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of an event belongs on its line for people."""
    return {key: value for key, value in event.items() if key not in _IN_FIELDS_ONLY}
