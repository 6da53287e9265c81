"""What should happen to a process, or why nothing should. Every decision and every skip carries a Reason."""

import enum
from dataclasses import dataclass

from balancerd.model.ids import NodeId, ProcessId


class Reason(enum.StrEnum):
    """Why something was done or left alone: the metric label, and the first word of `explain`.

    The text behind each value, for people, is REASON_TEXT.
    """

    # done, or wanted
    MISPLACED = "misplaced"
    # selection
    KERNEL_THREAD = "kernel-thread"
    SELF = "self"
    BELOW_MIN_RSS = "below-min-rss"
    BELOW_MIN_AGE = "below-min-age"
    BELOW_MIN_CPU = "below-min-cpu"
    FIRST_SIGHT = "first-sight"
    SCAN_BUDGET = "scan-budget"
    # observation
    NO_ACCESS = "no-access"
    VANISHED = "vanished"
    NOTHING_PRESENT = "nothing-present"
    UNREADABLE = "unreadable"
    # policy
    NOT_SAMPLED = "not-sampled"
    NO_HOME = "no-home"
    SEVERAL_HOMES = "several-homes"
    HOME_WITHOUT_MEMORY = "home-without-memory"
    WELL_PLACED = "well-placed"
    HOME_TOO_YOUNG = "home-too-young"
    LOSS_BELOW_COST = "loss-below-cost"
    GAIN_BELOW_COST = "gain-below-cost"
    # plan
    COOLDOWN = "cooldown"
    QUARANTINE = "quarantine"
    CPUSET = "cpuset"
    MEMPOLICY = "mempolicy"
    MEMPOLICY_UNREAD = "mempolicy-unread"
    TARGET_FULL = "target-full"
    MIGRATION_BUDGET = "migration-budget"
    CLAIMED = "claimed"
    # migration
    OBSERVE_MODE = "observe-mode"
    EXITED = "exited"
    STOPPING = "stopping"
    NO_MEMORY = "no-memory"
    CALL_FAILED = "call-failed"


REASON_TEXT: dict[Reason, str] = {
    Reason.MISPLACED: "its memory is away from the node where its threads run",
    Reason.KERNEL_THREAD: "a kernel thread has no memory of its own",
    Reason.SELF: "the daemon does not move itself",
    Reason.BELOW_MIN_RSS: "it holds less memory than select.min_rss",
    Reason.BELOW_MIN_AGE: "it is younger than select.min_age",
    Reason.BELOW_MIN_CPU: "it uses less CPU than select.min_cpu, so remote memory costs it little",
    Reason.FIRST_SIGHT: "its CPU use is known only from the second survey on",
    Reason.SCAN_BUDGET: "select.scan_budget was used up before its turn; it comes first next time",
    Reason.NO_ACCESS: "the daemon may not look at it: it lacks CAP_SYS_PTRACE over this process",
    Reason.VANISHED: "it exited while it was being looked at",
    Reason.NOTHING_PRESENT: "no page of it was found in memory",
    Reason.UNREADABLE: "a file of it in /proc could not be understood",
    Reason.NOT_SAMPLED: "which node holds its pages is not known yet",
    Reason.NO_HOME: "it has not run since it was first seen",
    Reason.SEVERAL_HOMES: "its threads run on several nodes, so no single node is its home",
    Reason.HOME_WITHOUT_MEMORY: "the node where it runs has no memory",
    Reason.WELL_PLACED: "its memory is where its threads run",
    Reason.HOME_TOO_YOUNG: "it came to its present node too recently",
    Reason.LOSS_BELOW_COST: "what it has lost to remote accesses does not yet justify the move",
    Reason.GAIN_BELOW_COST: "the move would cost more than it can win back",
    Reason.COOLDOWN: "it was moved a moment ago",
    Reason.QUARANTINE: "the pages left over could not be moved last time",
    Reason.CPUSET: "its cpuset does not allow memory on the target node",
    Reason.MEMPOLICY: "its memory has an explicit mempolicy, which is respected",
    Reason.MEMPOLICY_UNREAD: "its mempolicies could not be read, and without them nothing is moved",
    Reason.TARGET_FULL: "the target node has too little free memory",
    Reason.MIGRATION_BUDGET: "this tick's migration budget was used up before its turn",
    Reason.CLAIMED: "another policy's decision for it came first",
    Reason.OBSERVE_MODE: "it would be moved, but the mode is observe",
    Reason.EXITED: "it exited, or its pid was taken by another process, before the move",
    Reason.STOPPING: "the daemon is stopping",
    Reason.NO_MEMORY: "the target node ran out of memory during the move",
    Reason.CALL_FAILED: "move_pages(2) refused the call",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A policy wants the pages of `process` on `target`.

    `misplaced_bytes` is what would move, `gain_cores` the CPU seconds won per second once moved,
    `cost_seconds` the CPU seconds that moving costs.
    """

    policy: str
    process: ProcessId
    target: NodeId
    misplaced_bytes: int
    gain_cores: float
    cost_seconds: float
    reason: Reason = Reason.MISPLACED
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Skip:
    """Nothing is done with `process`, for `reason`; `by` names the policy or the stage that says so."""

    by: str
    process: ProcessId
    reason: Reason
    detail: str = ""


Verdict = Decision | Skip
