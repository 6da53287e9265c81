"""What should happen to a process, or why nothing should. Every decision and every skip carries a Reason."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from balancerd.model.extent import Extent
from balancerd.model.ids import CpuId, NodeId, ProcessId


class Reason(enum.StrEnum):
    """Why something was done or left alone: the metric label, and the first word of `explain`.

    The text behind each value, for people, is REASON_TEXT.
    """

    # done, or wanted: every migration carries one of MIGRATION_REASONS
    RULE = "rule"
    CPUSET = "cpuset"
    MISPLACED = "misplaced"
    SPREAD = "spread"
    PACKING = "packing"
    DEMOTION = "demotion"
    PROMOTION = "promotion"
    DRAIN = "drain"
    EVICT = "evict"
    COMMAND = "command"
    ROLLBACK = "rollback"
    STEER = "steer"
    # selection
    KERNEL_THREAD = "kernel-thread"
    SELF = "self"
    BELOW_MIN_RSS = "below-min-rss"
    BELOW_MIN_AGE = "below-min-age"
    BELOW_MIN_CPU = "below-min-cpu"
    FIRST_SIGHT = "first-sight"
    SCAN_BUDGET = "scan-budget"
    EXCLUDED = "excluded"
    NOT_INCLUDED = "not-included"
    OPTED_OUT = "opted-out"
    MANAGED = "managed"
    # observation
    NO_ACCESS = "no-access"
    VANISHED = "vanished"
    NOTHING_PRESENT = "nothing-present"
    UNREADABLE = "unreadable"
    BLOCKED = "blocked"
    # policy
    NOT_SAMPLED = "not-sampled"
    NO_HOME = "no-home"
    SEVERAL_HOMES = "several-homes"
    HOME_WITHOUT_MEMORY = "home-without-memory"
    WELL_PLACED = "well-placed"
    HOME_TOO_YOUNG = "home-too-young"
    LOSS_BELOW_COST = "loss-below-cost"
    COMING_HOME = "coming-home"
    ROOMY = "roomy"
    SPARED = "spared"
    KEPT_AWAY = "kept-away"
    ONE_HOME = "one-home"
    NOT_WATCHED = "not-watched"
    TOO_FEW_SAMPLES = "too-few-samples"
    SAMPLES_LOST = "samples-lost"
    SHARED_ACCESS = "shared-access"
    NOT_SHARED = "not-shared"
    BALANCED = "balanced"
    GAIN_BELOW_COST = "gain-below-cost"
    NOT_MATCHED = "not-matched"
    NEVER = "never"
    AS_RULED = "as-ruled"
    INSIDE_CPUSET = "inside-cpuset"
    DRAINED = "drained"
    ONE_TIER = "one-tier"
    HEAT_UNKNOWN = "heat-unknown"
    IN_ITS_TIER = "in-its-tier"
    NOTHING_COLD = "nothing-cold"
    NODE_MISSING = "node-missing"
    NO_MAIN_NODE = "no-main-node"
    MEMORY_CHEAPER = "memory-cheaper"
    NODE_BUSY = "node-busy"
    UNBALANCED = "unbalanced"
    OUTSIDE_AFFINITY = "outside-affinity"
    # plan
    COOLDOWN = "cooldown"
    QUARANTINE = "quarantine"
    PING_PONG = "ping-pong"
    NOT_TRUSTED = "not-trusted"
    PAUSED = "paused"
    HALTED = "halted"
    STALLED = "stalled"
    OUTSIDE_CPUSET = "outside-cpuset"
    MEMPOLICY = "mempolicy"
    MEMPOLICY_UNREAD = "mempolicy-unread"
    TARGET_FULL = "target-full"
    NODE_CLOSED = "node-closed"
    MIGRATION_BUDGET = "migration-budget"
    PROCESS_BUDGET = "process-budget"
    NODE_PAIR_BUDGET = "node-pair-budget"
    PRESSURE = "pressure"
    OTHER_MANAGER = "other-manager"
    CLAIMED = "claimed"
    CHANGED = "changed"
    NO_SWAP = "no-swap"
    THREADS_MOVED = "threads-moved"
    MEMORY_MOVED = "memory-moved"
    THREADS_RETURNED = "threads-returned"
    # migration
    OBSERVE_MODE = "observe-mode"
    EXITED = "exited"
    STOPPING = "stopping"
    NO_MEMORY = "no-memory"
    CALL_FAILED = "call-failed"
    OWN_AFFINITY = "own-affinity"
    AFFINITY_REFUSED = "affinity-refused"
    NO_JOURNAL = "no-journal"
    # replay
    NOT_RECORDED = "not-recorded"


MIGRATION_REASONS = (
    *(Reason.RULE, Reason.CPUSET, Reason.MISPLACED, Reason.SPREAD, Reason.PACKING, Reason.DEMOTION),
    *(Reason.PROMOTION, Reason.DRAIN, Reason.EVICT, Reason.COMMAND, Reason.ROLLBACK),
)
"""Why memory is moved, as the kernel's own migrate_reason tells (include/linux/migrate_mode.h)."""

ACTION_REASONS = (*MIGRATION_REASONS, Reason.STEER)
"""Why anything is done with a process: its memory moves, or its threads."""


REASON_TEXT: dict[Reason, str] = {
    Reason.RULE: "a rule of the configuration says where its memory belongs",
    Reason.CPUSET: "its cpuset has changed, and memory follows",
    Reason.MISPLACED: "its memory is away from the node where its threads run",
    Reason.SPREAD: "threads on several nodes use the same memory, which is spread over these",
    Reason.PACKING: "its node is short of memory and another one is not",
    Reason.DEMOTION: "it is hardly used, and goes to slower memory",
    Reason.PROMOTION: "it is used much, and goes to faster memory",
    Reason.DRAIN: "its node is being emptied",
    Reason.EVICT: "it is hardly used, and goes to swap",
    Reason.COMMAND: "an operator asked for it",
    Reason.ROLLBACK: "a part of it that was moved on trial did not stay, and goes back",
    Reason.STEER: "its threads are away from the node that holds its memory, and moving them is cheaper",
    Reason.KERNEL_THREAD: "a kernel thread has no memory of its own",
    Reason.SELF: "the daemon does not move itself",
    Reason.BELOW_MIN_RSS: "it holds less memory than select.min_rss",
    Reason.BELOW_MIN_AGE: "it is younger than select.min_age",
    Reason.BELOW_MIN_CPU: "it uses less CPU than select.min_cpu, so remote memory costs it little",
    Reason.FIRST_SIGHT: "its CPU use is known only from the second survey on",
    Reason.SCAN_BUDGET: "select.scan_budget was used up before its turn; it comes first next time",
    Reason.EXCLUDED: "a rule of select.exclude matches it",
    Reason.NOT_INCLUDED: "no rule of select.include matches it",
    Reason.OPTED_OUT: "its owner asks for it to be left alone",
    Reason.MANAGED: "somebody else has placed it on purpose: libvirt, the kubelet, or its unit's NUMAPolicy=",
    Reason.NO_ACCESS: "the daemon may not look at it: it lacks CAP_SYS_PTRACE over this process",
    Reason.VANISHED: "it exited while it was being looked at",
    Reason.NOTHING_PRESENT: "no page of it was found in memory",
    Reason.UNREADABLE: "a file of it in /proc could not be understood",
    Reason.BLOCKED: "its address space was locked, while it was read for select.read_timeout, or moved for seconds",
    Reason.NOT_SAMPLED: "which node holds its pages is not known yet",
    Reason.NO_HOME: "it has not run since it was first seen",
    Reason.SEVERAL_HOMES: "its threads run on several nodes, so no single node is its home",
    Reason.HOME_WITHOUT_MEMORY: "the node where it runs has no memory",
    Reason.WELL_PLACED: "its memory is where its threads run",
    Reason.HOME_TOO_YOUNG: "it came to its present node too recently",
    Reason.LOSS_BELOW_COST: "what it has lost to remote accesses does not yet justify the move",
    Reason.COMING_HOME: "what is away from home gets less by itself: the kernel or somebody else is moving it",
    Reason.ONE_HOME: "its threads run on one node, and who touches which page makes no difference",
    Reason.NOT_WATCHED: "which of its threads touch which memory is not being watched",
    Reason.TOO_FEW_SAMPLES: "too few of its accesses were seen to judge by",
    Reason.SAMPLES_LOST: "too many of its access samples were lost to judge by the others",
    Reason.SHARED_ACCESS: "threads on several nodes use the same memory",
    Reason.NOT_SHARED: "too little of its memory is shared by threads on several nodes",
    Reason.BALANCED: "the nodes share evenly in serving the memory that its threads share",
    Reason.ROOMY: "none of its memory lies on a node that is short of memory",
    Reason.SPARED: "others that cost less make room on its node, or nothing of it can",
    Reason.KEPT_AWAY: "it has made room on a node that would be short of memory again with it",
    Reason.GAIN_BELOW_COST: "the move would cost more than it can win back",
    Reason.NOT_MATCHED: "this policy is not for it: none of its rules matches it",
    Reason.NEVER: "a rule of the configuration says that it is never moved",
    Reason.AS_RULED: "its memory is where a rule of the configuration wants it",
    Reason.INSIDE_CPUSET: "its memory lies where its cpuset and its affinity want it",
    Reason.DRAINED: "none of its memory is left on the nodes that are being emptied",
    Reason.ONE_TIER: "the machine has no memory-only nodes beside those with CPUs",
    Reason.HEAT_UNKNOWN: "how much its memory is used is not known",
    Reason.IN_ITS_TIER: "no memory that is used much lies on slow nodes, and nothing need leave the fast ones",
    Reason.NOTHING_COLD: "all of its memory was used lately, or is not there",
    Reason.NODE_MISSING: "the node where its memory belongs is offline, or has no memory",
    Reason.NO_MAIN_NODE: "no node holds so much of its memory that its threads belong there",
    Reason.MEMORY_CHEAPER: "moving its memory to its threads costs less than moving its threads to its memory",
    Reason.NODE_BUSY: "the node that holds its memory has too little idle CPU for its threads",
    Reason.UNBALANCED: "with its threads moved, the nodes would be loaded less evenly than now",
    Reason.OUTSIDE_AFFINITY: "it may not run on the CPUs of the node that holds its memory",
    Reason.COOLDOWN: "it was moved a moment ago",
    Reason.QUARANTINE: "the pages left over could not be moved last time",
    Reason.PING_PONG: "memory moved before has come back from where it was moved",
    Reason.NOT_TRUSTED: "what this policy moved of it last did not stay where it was moved",
    Reason.PAUSED: "moving went wrong on this machine a moment ago, and nothing moves for a while",
    Reason.HALTED: "an operator has paused balancerd, and nothing moves until that is over",
    Reason.STALLED: "calls that moved its memory took longer than migrate.stall_limit, twice",
    Reason.OUTSIDE_CPUSET: "its cpuset does not allow memory on the target node",
    Reason.MEMPOLICY: "its memory has an explicit mempolicy, which is respected",
    Reason.MEMPOLICY_UNREAD: "its mempolicies could not be read, and without them nothing is moved",
    Reason.TARGET_FULL: "the target node has too little free memory",
    Reason.NODE_CLOSED: "the target node is being emptied",
    Reason.MIGRATION_BUDGET: "this tick's migration budget was used up before its turn",
    Reason.PROCESS_BUDGET: "it has used up what migrate.process_rate_limit lets move for now",
    Reason.NODE_PAIR_BUDGET: "these two nodes have used up what migrate.node_pair_rate_limit lets move for now",
    Reason.PRESSURE: "the machine is under pressure, and moving memory would add to it",
    Reason.OTHER_MANAGER: "another program that moves memory is at work, and two of them would undo each other",
    Reason.CLAIMED: "somebody else is moving its memory: another policy, a command, or another balancerd",
    Reason.CHANGED: "its mappings changed before the move",
    Reason.NO_SWAP: "there is no swap space for it",
    Reason.THREADS_MOVED: "its threads were moved to its memory, which stays where it is for a while",
    Reason.MEMORY_MOVED: "its memory was moved a moment ago, and its threads stay where they are for a while",
    Reason.THREADS_RETURNED: "its threads were moved to its memory before and did not stay there",
    Reason.OBSERVE_MODE: "it would be moved, but the mode is observe",
    Reason.EXITED: "it exited, or its pid was taken by another process, before the move",
    Reason.STOPPING: "the daemon is stopping",
    Reason.NO_MEMORY: "the target node ran out of memory during the move",
    Reason.CALL_FAILED: "move_pages(2) refused the call",
    Reason.OWN_AFFINITY: "its threads have an affinity that somebody chose, which is respected",
    Reason.AFFINITY_REFUSED: "sched_setaffinity(2) refused every call for its threads",
    Reason.NO_JOURNAL: "what is changed of threads could not be written down first, so nothing is changed",
    Reason.NOT_RECORDED: "the trace that is replayed does not tell: nobody asked when it was recorded",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A policy wants the pages of `process` on `target`.

    `misplaced_bytes` is what would move, `gain_cores` the CPU seconds won per second once moved,
    `cost_seconds` the CPU seconds that moving costs.

    With `extents` (ascending, apart) it is about these parts of the address space and no others, and one policy may
    want several parts of a process on several nodes; `source_bytes` then tells what would move by the node that holds
    it. None means all of its memory, wherever that lies. With `is_pass` the extents are the same in each tick, and the
    move goes on where it stopped, as that of a whole process does; it has one target at a time.

    With `sources` pages on these nodes move, those on others stay; with `most_bytes` no more than that in this tick. A
    decision that `holds` keeps its process from every policy of a later place, even when it is turned down.
    """

    policy: str
    process: ProcessId
    target: NodeId
    misplaced_bytes: int
    gain_cores: float
    cost_seconds: float
    reason: Reason = Reason.MISPLACED
    detail: str = ""
    extents: tuple[Extent, ...] | None = None
    source_bytes: Mapping[NodeId, int] | None = None
    sources: frozenset[NodeId] | None = None
    is_pass: bool = False
    most_bytes: int | None = None
    holds: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Skip:
    """Nothing is done with `process`, for `reason`; `by` names the policy or the stage that says so.

    A skip of a policy that `holds` keeps the process from every policy of a later place. `wanted` is what the policy
    would decide if nothing but the reason spoke against it, as when the gate refuses, and `needs` what would have to
    change for that, in words; both are told and decide nothing.
    """

    by: str
    process: ProcessId
    reason: Reason
    detail: str = ""
    holds: bool = False
    wanted: Decision | None = None
    needs: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Eviction:
    """A policy wants up to `evict_bytes` of the least used memory of `process` out of memory.

    It goes to swap or to its file at once; with `cold_only` it is only the first to go when memory becomes scarce. With
    `extents` (ascending, apart) it is about these parts of the address space and no others.
    """

    policy: str
    process: ProcessId
    evict_bytes: int
    cold_only: bool = False
    reason: Reason = Reason.EVICT
    detail: str = ""
    extents: tuple[Extent, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Steer:
    """A policy wants the threads of `process` to run on `cpus`, those of node `target`, where its memory lies.

    They are moved there and then let go, or with `pin` held there for as long as the policy goes on to want it. Threads
    with an affinity that somebody chose are left alone, unless `own_affinity`. `gain_cores` is the CPU seconds won per
    second, `cost_seconds` the CPU seconds that their cold caches and their queueing cost.
    """

    policy: str
    process: ProcessId
    target: NodeId
    cpus: frozenset[CpuId]
    gain_cores: float
    cost_seconds: float
    pin: bool = False
    own_affinity: bool = False
    reason: Reason = Reason.STEER
    detail: str = ""


Wanted = Decision | Eviction | Steer
"""What a policy wants done."""

Verdict = Wanted | Skip
