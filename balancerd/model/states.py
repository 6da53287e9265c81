"""The states of processes: one word for what is done about one, the same in metrics, in the API and in every command.

Owns which reason means which state. It must not know who tells it.
"""

from collections.abc import Mapping
from typing import Final

from balancerd.model.decision import ACTION_REASONS, Reason

STATES: Final[Mapping[Reason, str]] = {
    Reason.KERNEL_THREAD: "kernel-thread",
    **dict.fromkeys((Reason.SELF, Reason.BELOW_MIN_AGE, Reason.BELOW_MIN_CPU, Reason.FIRST_SIGHT), "unselected"),
    **dict.fromkeys((Reason.EXCLUDED, Reason.NOT_INCLUDED, Reason.OPTED_OUT, Reason.MANAGED), "excluded"),
    Reason.NEVER: "excluded",
    Reason.BELOW_MIN_RSS: "small",
    **dict.fromkeys((Reason.SCAN_BUDGET, Reason.NOT_SAMPLED), "unsampled"),
    **dict.fromkeys(
        (Reason.NO_ACCESS, Reason.VANISHED, Reason.UNREADABLE, Reason.NOTHING_PRESENT, Reason.BLOCKED), "unreadable"
    ),
    **dict.fromkeys(
        (
            *(Reason.WELL_PLACED, Reason.BALANCED, Reason.AS_RULED, Reason.INSIDE_CPUSET, Reason.DRAINED),
            *(Reason.IN_ITS_TIER, Reason.ONE_TIER, Reason.NOTHING_COLD, Reason.ROOMY),
        ),
        "well-placed",
    ),
    **dict.fromkeys(
        (
            *(Reason.NO_HOME, Reason.ONE_HOME, Reason.SEVERAL_HOMES, Reason.HOME_WITHOUT_MEMORY),
            *(Reason.HOME_TOO_YOUNG, Reason.SHARED_ACCESS, Reason.NOT_SHARED, Reason.NOT_MATCHED),
            Reason.NO_MAIN_NODE,
        ),
        "no-home",
    ),
    **dict.fromkeys(
        (Reason.NOT_WATCHED, Reason.TOO_FEW_SAMPLES, Reason.SAMPLES_LOST, Reason.HEAT_UNKNOWN), "unsampled"
    ),
    **dict.fromkeys((Reason.LOSS_BELOW_COST, Reason.GAIN_BELOW_COST, Reason.MEMORY_CHEAPER), "not-worth"),
    **dict.fromkeys(ACTION_REASONS, "moving"),
    **dict.fromkeys(
        (
            *(Reason.COOLDOWN, Reason.QUARANTINE, Reason.PING_PONG, Reason.STALLED, Reason.OUTSIDE_CPUSET),
            *(Reason.MEMPOLICY, Reason.MEMPOLICY_UNREAD, Reason.TARGET_FULL, Reason.MIGRATION_BUDGET),
            *(Reason.NODE_MISSING, Reason.NODE_CLOSED),
            *(Reason.PROCESS_BUDGET, Reason.NODE_PAIR_BUDGET, Reason.PRESSURE, Reason.CLAIMED, Reason.CHANGED),
            *(Reason.NO_SWAP, Reason.OBSERVE_MODE, Reason.EXITED, Reason.STOPPING, Reason.NO_MEMORY),
            Reason.CALL_FAILED,
            Reason.NOT_RECORDED,  # in replay only
            Reason.OTHER_MANAGER,
            *(Reason.COMING_HOME, Reason.NOT_TRUSTED, Reason.PAUSED, Reason.HALTED),
            *(Reason.NODE_BUSY, Reason.UNBALANCED, Reason.OUTSIDE_AFFINITY, Reason.THREADS_MOVED),
            *(Reason.MEMORY_MOVED, Reason.THREADS_RETURNED, Reason.OWN_AFFINITY, Reason.AFFINITY_REFUSED),
            Reason.NO_JOURNAL,
            *(Reason.SPARED, Reason.KEPT_AWAY),
        ),
        "held",
    ),
}
"""The state of a process by the reason of its last verdict: each has exactly one."""

SKIPPED_STATES: Final = frozenset({"kernel-thread", "unselected", "excluded", "small", "unreadable"})
"""Those of processes that are not looked at closely, or could not be; in any other state one is a candidate."""
