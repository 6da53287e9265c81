"""What is told of the machine in more than one answer of the control socket. Pure."""

from typing import Any

from balancerd.model.copying import Copying


def copying(told: Copying) -> dict[str, Any]:
    """Return how fast the kernel copies, for GET /v1/status; see api.py."""
    return {
        "bytes_per_second": None if told.bytes_per_second is None else round(told.bytes_per_second),
        "measured_bytes": round(told.copied_bytes),
        "pairs": [
            {
                "from": pair.source,
                "to": pair.target,
                "bytes_per_second": round(pair.copied_bytes / pair.seconds),
                "measured_bytes": round(pair.copied_bytes),
            }
            for pair in told.pairs
            if pair.seconds > 0
        ],
    }
