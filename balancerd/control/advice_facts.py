"""How advice on placement and leases are told: to plain dicts, see operator_api.py. Pure, and light to import."""

from typing import Any

from balancerd.engine.advice import Advice, Demand
from balancerd.engine.leases import Lease
from balancerd.model.ids import format_id_list


def tell_advice(advice: Advice, demand: Demand, *, age_seconds: float, source: str) -> dict[str, Any]:
    """Return advice as it is told; `source` is "daemon" or "machine"."""
    return {
        "nodes": format_id_list(advice.nodes),
        "fits": advice.fits,
        "detail": advice.detail,
        "cpus": demand.cpus,
        "memory_bytes": demand.memory_bytes,
        "shares": [
            {"node": share.node, "cpus": round(share.cpus, 3), "memory_bytes": share.memory_bytes}
            for share in advice.shares
        ],
        "age_seconds": round(age_seconds, 6),
        "source": source,
    }


def tell_lease(lease: Lease, now: float) -> dict[str, Any]:
    """Return a lease as it is told at monotonic second `now`."""
    return {
        "id": lease.id,
        "nodes": format_id_list(lease.nodes),
        "cpus": lease.demand.cpus,
        "memory_bytes": lease.demand.memory_bytes,
        "age_seconds": round(now - lease.begun_at, 6),
        "left_seconds": round(max(0.0, lease.ends_at - now), 6),
    }
