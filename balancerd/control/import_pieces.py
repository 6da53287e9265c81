"""How samples of a log are packed for the control socket; import_api.py documents it. Standard library only."""

import struct
from collections.abc import Sequence
from typing import Any, Final

from balancerd.kernel.accesses.perf_log import LogSample, LogTally

MOST_BODY_BYTES: Final = 64 * 1024
MOST_PIDS: Final = 64
LONGEST_NAME: Final = 255
SAMPLE: Final = struct.Struct("<IIIQQ")
PIECE_SAMPLES: Final = MOST_BODY_BYTES // SAMPLE.size


def header_document(tally: LogTally) -> dict[str, Any]:
    """Return the body of POST /v1/imports; of very many pids those with most samples."""
    return {
        "name": tally.path[-LONGEST_NAME:],
        "samples": {str(pid): n for pid, n in tally.samples_by_pid.most_common(MOST_PIDS)},
        "first_seconds": tally.first_seconds,
        "last_seconds": tally.last_seconds,
        "clock": tally.clock,
        "lost_samples": tally.lost_samples,
    }


def pack_samples(samples: Sequence[LogSample]) -> bytes:
    """Return the body of POST /v1/imports/N/samples, for at most PIECE_SAMPLES samples."""
    return b"".join(SAMPLE.pack(*sample.in_nanoseconds()) for sample in samples)
