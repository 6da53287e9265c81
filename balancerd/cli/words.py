"""How what the daemon tells is said to people: states, next steps, page statuses, shares and ages.

Pure. It must not know documents, tables or terminals.
"""

from collections.abc import Mapping
from typing import Final

from balancerd.cli.screen import UNKNOWN
from balancerd.config.units import format_bytes, format_duration
from balancerd.model.decision import Reason
from balancerd.model.page_status import STATUS_TEXT, PageStatus
from balancerd.model.placement_method import PlacementMethod
from balancerd.model.states import SKIPPED_STATES, STATES

NEXT: Final[Mapping[Reason, str]] = {
    Reason.RULE: "The move goes on at the next tick until its memory is where the rule wants it.",
    Reason.CPUSET: "The move goes on at the next tick until its memory is on the nodes of its cpuset.",
    Reason.MISPLACED: "The move goes on at the next tick until what is misplaced has moved.",
    Reason.SPREAD: "The move goes on at the next tick until what is shared is spread.",
    Reason.PACKING: "The move goes on at the next tick until its node has enough free memory.",
    Reason.DEMOTION: "The move goes on at the next tick until what is hardly used is in slower memory.",
    Reason.PROMOTION: "The move goes on at the next tick until what is used much is in faster memory.",
    Reason.DRAIN: "The move goes on at the next tick until the node is empty.",
    Reason.EVICT: "The eviction goes on at the next tick until as much has gone as was asked for.",
    Reason.COMMAND: "The operator's command goes on until it is done: see balancerctl moves.",
    Reason.ROLLBACK: "Its memory goes back, and the policy leaves it alone for a while, twice as long each time.",
    Reason.STEER: "Its memory stays where it is for a while; then it is judged where its threads are.",
    Reason.NOT_RECORDED: "Nothing: only a replay says so.",
    Reason.KERNEL_THREAD: "Nothing: kernel threads are never moved.",
    Reason.SELF: "Nothing: the daemon never moves itself.",
    Reason.BELOW_MIN_RSS: "Nothing, until it holds as much memory as select.min_rss.",
    Reason.BELOW_MIN_AGE: "It becomes a candidate once it is as old as select.min_age.",
    Reason.BELOW_MIN_CPU: "Nothing, until it uses as much CPU as select.min_cpu.",
    Reason.FIRST_SIGHT: "The next tick knows how much CPU it uses and judges it.",
    Reason.SCAN_BUDGET: "It is sampled at one of the next ticks, before those that had their turn.",
    Reason.EXCLUDED: "Nothing, while select.exclude in the configuration matches it.",
    Reason.NOT_INCLUDED: "Nothing, until a rule of select.include in the configuration matches it.",
    Reason.OPTED_OUT: "Nothing, until its owner takes that back.",
    Reason.MANAGED: "Nothing, while that stands: see yield_to in the configuration.",
    Reason.BLOCKED: "It is looked at again after a while.",
    Reason.NO_ACCESS: "Nothing, until the daemon gets CAP_SYS_PTRACE over it: see balancerctl doctor.",
    Reason.VANISHED: "Nothing: it is gone.",
    Reason.NOTHING_PRESENT: "It is sampled again; with no page in memory there is nothing to move.",
    Reason.UNREADABLE: "It is read again at the next tick; if this stays, please report it.",
    Reason.NOT_SAMPLED: "It is sampled at one of the next ticks.",
    Reason.NO_HOME: "As soon as it runs, its home is known and it is judged again.",
    Reason.SEVERAL_HOMES: "Nothing, until its threads gather on one node.",
    Reason.HOME_WITHOUT_MEMORY: "Nothing, until its threads run on a node that has memory.",
    Reason.WELL_PLACED: "Nothing: it is where it should be. It is judged again at every tick.",
    Reason.HOME_TOO_YOUNG: "It moves if it stays on its present node for long enough.",
    Reason.LOSS_BELOW_COST: "It moves once its losses have grown past the cost of the move.",
    Reason.COMING_HOME: "It moves if that stops before all of it is home.",
    Reason.ROOMY: "Nothing by this policy, until a node that holds its memory becomes short of it.",
    Reason.SPARED: "It moves if its node is still short when they have moved.",
    Reason.KEPT_AWAY: "It may go back once that node has room for it beside what is to stay free.",
    Reason.GAIN_BELOW_COST: "Nothing, unless it becomes busier or stays longer, so that the move pays.",
    Reason.ONE_HOME: "Nothing by this policy: follow-cpu moves a process with one home.",
    Reason.NOT_WATCHED: "It is judged once its accesses are watched: see balancerctl doctor and accesses.",
    Reason.TOO_FEW_SAMPLES: "It is judged again at every tick, as more of its accesses are seen.",
    Reason.SAMPLES_LOST: "It is judged by the next samples; while these are lost, too, accesses.table_size may help.",
    Reason.SHARED_ACCESS: "Nothing, while threads on several nodes go on using the same memory.",
    Reason.NOT_SHARED: "Nothing by this policy: what belongs to one node is for access or follow-cpu.",
    Reason.BALANCED: "Nothing: it is judged again at every tick.",
    Reason.NOT_MATCHED: "Nothing by this policy, while none of its rules matches it.",
    Reason.NEVER: "Nothing, while that rule matches it: no policy moves it. An operator's command does.",
    Reason.AS_RULED: "Nothing: the rule is judged again at every tick, and no other policy moves it.",
    Reason.INSIDE_CPUSET: "Nothing by this policy, until its cpuset or its affinity changes.",
    Reason.DRAINED: "Nothing by this policy, unless it gets memory on these nodes again.",
    Reason.ONE_TIER: "Nothing by this policy, on this machine.",
    Reason.HEAT_UNKNOWN: "It is judged once its heat is known: see accesses.heat and accesses.max_processes.",
    Reason.IN_ITS_TIER: "Nothing: it is judged again at every tick.",
    Reason.NOTHING_COLD: "Nothing by this policy: it is judged again at every tick.",
    Reason.NODE_MISSING: "It moves once that node is online and has memory; or correct the configuration.",
    Reason.NO_MAIN_NODE: "Nothing by this policy, until most of its memory is on one node.",
    Reason.MEMORY_CHEAPER: "Nothing by this policy: its memory may follow its threads instead.",
    Reason.NODE_BUSY: "Its threads move once that node has enough idle CPU.",
    Reason.UNBALANCED: "Its threads move once that makes the load of the nodes no less even.",
    Reason.OUTSIDE_AFFINITY: "Nothing by this policy, until it may run on that node: see its cpuset and affinity.",
    Reason.COOLDOWN: "It is judged again when its cooldown is over.",
    Reason.QUARANTINE: "It is tried again when its quarantine is over; each failure doubles that.",
    Reason.PING_PONG: "It is judged again after a while, twice as long each time: find who moves it back.",
    Reason.NOT_TRUSTED: "It is tried again after a while, twice as long each time: find who moves its memory.",
    Reason.HALTED: "It is judged again once the pause is over, or after balancerctl resume.",
    Reason.PAUSED: "All moves go on after a while, twice as long each time; balancerctl moves tells what failed.",
    Reason.STALLED: "It is tried again after a while, twice as long each time its calls take too long.",
    Reason.OUTSIDE_CPUSET: "Nothing, until its cpuset allows memory on the target node (cpuset.mems).",
    Reason.MEMPOLICY: "Nothing: whoever set the mempolicy decides where this memory lies.",
    Reason.MEMPOLICY_UNREAD: "Its mempolicies are read again at the next tick.",
    Reason.TARGET_FULL: "It moves once the target node has enough free memory.",
    Reason.NODE_CLOSED: "Nothing, while a policy of kind drain names that node.",
    Reason.MIGRATION_BUDGET: "It comes again at the next tick, with a new budget.",
    Reason.PROCESS_BUDGET: "It comes again at one of the next ticks; migrate.process_rate_limit says how much.",
    Reason.NODE_PAIR_BUDGET: "It comes again at one of the next ticks; migrate.node_pair_rate_limit says how much.",
    Reason.PRESSURE: "It moves once the machine has room to breathe: see /proc/pressure.",
    Reason.OTHER_MANAGER: "It moves once the other manager is gone: see balancerctl doctor, and yield_to.",
    Reason.CLAIMED: "Nothing by this policy, while another one's decision stands.",
    Reason.CHANGED: "It is looked at again at the next tick, and moves if that is still right.",
    Reason.NO_SWAP: "Nothing, until there is swap space, or less of it is used than evict.max_swap_used.",
    Reason.THREADS_MOVED: "Its memory is judged again when that time is over.",
    Reason.MEMORY_MOVED: "Its threads are judged again when that time is over.",
    Reason.THREADS_RETURNED: "Its threads are judged again after a while, twice as long each time they come back.",
    Reason.OBSERVE_MODE: "Nothing: set mode: enforce in the configuration to have it moved.",
    Reason.EXITED: "Nothing: it is gone.",
    Reason.STOPPING: "The daemon judges it again after its next start.",
    Reason.NO_MEMORY: "It is tried again after a pause, when the target node may have memory.",
    Reason.CALL_FAILED: "It is tried again after a pause; balancerctl doctor tries the system call itself.",
    Reason.OWN_AFFINITY: "Nothing by this policy, unless its option own_affinity says so.",
    Reason.AFFINITY_REFUSED: "It is tried again after a pause; sched_setaffinity(2) needs CAP_SYS_NICE.",
    Reason.NO_JOURNAL: "It is tried again after a pause: see state_directory in the configuration.",
}
"""What happens next to a process whose last word was this reason."""


def state(reason: str) -> str:
    """Return the state of a process for the reason that counts; "unknown" for one from a newer daemon."""
    try:
        return STATES[Reason(reason)]
    except ValueError:
        return "unknown"


def is_skipped(process_state: str) -> bool:
    """Whether a process in this state is no candidate: small, idle, excluded, unreadable and the like."""
    return process_state in SKIPPED_STATES


def next_step(reason: str) -> str:
    """Return what happens next, a sentence; for a reason from a newer daemon, that it is not known."""
    try:
        return NEXT[Reason(reason)]
    except ValueError:
        return "Not known to this version of balancerctl."


def status_text(status: str) -> str:
    """Return what became of pages of this status; "" for one from a newer daemon."""
    try:
        return STATUS_TEXT[PageStatus(status)]
    except ValueError:
        return ""


def method(name: str, queried_pages: int) -> str:
    """Return how a placement was found, with the number of pages that were asked for where that says something."""
    asked = count(queried_pages, "page")
    known = {
        PlacementMethod.TEST.value: f"a first test of {asked}",
        PlacementMethod.SAMPLE.value: f"a sample of {asked}",
        PlacementMethod.EVERY_PAGE.value: f"asking for every page, {asked}",
        PlacementMethod.NUMA_MAPS.value: "numa_maps",
    }
    return known.get(name, name)


def percent(ratio: float | None) -> str:
    """Return whole percents, rounded down, so that 100% means all of it."""
    return UNKNOWN if ratio is None else f"{int(ratio * 100 + 1e-9)}%"


def cores(busy: float | None) -> str:
    """Return how many CPUs' worth of time something uses, to the hundredth."""
    return UNKNOWN if busy is None else f"{busy:.2f}"


def size(count_bytes: int | None) -> str:
    """Return a byte size to read."""
    return UNKNOWN if count_bytes is None else format_bytes(count_bytes)


def age(seconds: float | None) -> str:
    """Return a time span to read: to the millisecond below one second, then to the tenth, then to the second."""
    if seconds is None:
        return UNKNOWN
    return format_duration(round(seconds, 3 if seconds < 1 else 1 if seconds < 60 else 0))


def by_node(shares: Mapping[str, float] | None) -> str:
    """Return shares by node, largest first: "0" when it is all of it, "0:75% 2:25%" otherwise."""
    if not shares:
        return UNKNOWN
    ranked = sorted(shares.items(), key=lambda item: (-item[1], int(item[0])))
    if ranked[0][1] >= 0.995:
        return ranked[0][0]
    return " ".join(f"{node}:{share * 100:.0f}%" for node, share in ranked if share >= 0.005)


def count(number: int, thing: str) -> str:
    """Return "1 page", "2 pages", "2 processes"."""
    return f"{number} {thing}{'' if number == 1 else 'es' if thing.endswith('s') else 's'}"
