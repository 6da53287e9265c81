"""What goes to and fro on the control socket when a perf log is imported: pure; the client packs what is taken apart.

The client reads the log, with its own rights, and sends numbers: the daemon opens no path that somebody names, need
not be able to read the caller's files, and parses no text. A log is taken whole, at the end, or not at all.

POST /v1/imports            (202; root and the daemon's user only; 400: not understood, or its times cannot be meant;
                             409: another import is going on)
    takes {name, samples: {pid: n} (at most 64 pids, those with most samples), first_seconds, last_seconds (null without
    times), clock (as perf names it, or null), lost_samples}
    schema, import: {number, wanted: [pid], refused: {pid: why}, is_timed}
POST /v1/imports/N/samples  takes samples of 28 bytes, little-endian: pid, tid, CPU (32 bits each), nanoseconds on the
                            log's clock, address (64 bits each). schema      (409: the import has ended)
POST /v1/imports/N/commit   schema, processes: [{pid, start_ticks, counted_samples, earlier_samples (before the process
                            began), elsewhere_samples (not in memory that is watched), unknown_cpu_samples}]
POST /v1/imports/N/cancel   schema
"""

from collections.abc import Iterable, Mapping
from typing import Any

from balancerd.control.api import SCHEMA, Json
from balancerd.control.import_pieces import LONGEST_NAME, MOST_PIDS, SAMPLE
from balancerd.control.requests import BadRequest, parse_object, whole
from balancerd.kernel.accesses.log_store import Admission, Imported, LogHeader, Sample

_MOST_SAMPLES = (1 << 53) - 1
_MOST_SECONDS = 1e11


def parse_header(body: bytes) -> LogHeader:
    """Parse the body of POST /v1/imports. Raises BadRequest."""
    fields = parse_object(body)
    unknown = sorted(fields.keys() - {"name", "samples", "first_seconds", "last_seconds", "clock", "lost_samples"})
    if unknown:
        raise BadRequest("unknown key for an import")
    name, clock, samples = fields.get("name"), fields.get("clock"), fields.get("samples")
    if not isinstance(name, str) or len(name) > LONGEST_NAME:
        raise BadRequest('"name" must be a text')
    if clock is not None and (not isinstance(clock, str) or len(clock) > LONGEST_NAME):
        raise BadRequest('"clock" must be a text or null')
    if not isinstance(samples, dict) or not 1 <= len(samples) <= MOST_PIDS:
        raise BadRequest(f'"samples" must be an object with 1 to {MOST_PIDS} pids')
    first, last = _seconds(fields, "first_seconds"), _seconds(fields, "last_seconds")
    if (first is None) != (last is None) or (first is not None and last is not None and first > last):
        raise BadRequest('"first_seconds" and "last_seconds" must both be there, in this order, or both be null')
    return LogHeader(
        name=name,
        samples_by_pid={_pid(pid): _count(n, "samples", 1) for pid, n in samples.items()},
        first_seconds=first,
        last_seconds=last,
        clock=clock,
        lost_samples=_count(fields.get("lost_samples", 0), "lost_samples", 0),
    )


def parse_samples(body: bytes) -> Iterable[Sample]:
    """Parse the body of POST /v1/imports/N/samples. Raises BadRequest."""
    if len(body) % SAMPLE.size:
        raise BadRequest(f"a sample has {SAMPLE.size} bytes")
    return SAMPLE.iter_unpack(body)


def begun(admission: Admission) -> Json:
    """Answer POST /v1/imports."""
    return {
        "schema": SCHEMA,
        "import": {
            "number": admission.number,
            "wanted": list(admission.wanted),
            "refused": {str(pid): why for pid, why in sorted(admission.refused.items())},
            "is_timed": admission.is_timed,
        },
    }


def going_on() -> Json:
    """Answer POST /v1/imports/N/samples and /cancel."""
    return {"schema": SCHEMA}


def ended(processes: Iterable[Imported]) -> Json:
    """Answer POST /v1/imports/N/commit."""
    return {
        "schema": SCHEMA,
        "processes": [
            {
                "pid": each.process.pid,
                "start_ticks": each.process.start_ticks,
                "counted_samples": each.hits - each.unknown_cpus,
                "earlier_samples": each.earlier,
                "elsewhere_samples": each.elsewhere,
                "unknown_cpu_samples": each.unknown_cpus,
            }
            for each in processes
        ],
    }


def _pid(text: str) -> int:
    if not text.isdecimal() or not text.isascii() or len(text) > 7 or not 1 <= int(text) <= 1 << 22:
        raise BadRequest('a key of "samples" must be a pid')
    return int(text)


def _count(value: object, key: str, least: int) -> int:
    number = whole(value)
    if number is None or not least <= number <= _MOST_SAMPLES:
        raise BadRequest(f'"{key}" must be a number of samples')
    return number


def _seconds(fields: Mapping[str, Any], key: str) -> float | None:
    value = fields.get(key)
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= _MOST_SECONDS:
        raise BadRequest(f'"{key}" must be a number of seconds, or null')
    return float(value)
