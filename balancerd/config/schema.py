"""The settings: their keys, types, bounds, defaults and descriptions, as frozen records.

Owns what an operator may set; the descriptions become the JSON schema and the manual. Attributes carry their unit
(`config.select.min_rss_bytes`), keys in the file do not (`min_rss`). Pure, so that decisions may import it; it must
not know files, positions, or what the options of a policy are (the policy's plugin owns those).
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Final, Literal, Self, TypeVar

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from balancerd.config.fields import (
    Bytes,
    Cores,
    Duration,
    Listen,
    Rate,
    Ratio,
    Section,
    between,
    describe,
    or_null,
)
from balancerd.config.id_lists import Cpus
from balancerd.config.names import Directory, Group, Name, SocketPath, names_differ
from balancerd.config.patterns import LONGEST_PATTERN, check_pattern
from balancerd.config.telling import HistoryConfig, LogConfig
from balancerd.config.units import ListenAddress, format_duration, format_rate, format_ratio, shorten, spell_bytes

Mode = Literal["enforce", "observe"]
ManagerName = Literal[
    "numad",
    "memtierd",
    "katalyst",
    "damos",
    "kernel-balancing",
    "kubelet-cpu",
    "kubelet-memory",
    "libvirt",
    "numa-policy",
    "affinity",
]
"""Every manager but "mempolicy", which is always respected."""
SourceName = Literal["registers", "hint-faults", "kernel-counters", "pebs", "ibs"]
HeatName = Literal["damon", "soft-dirty"]
MIB: Final = 1024**2
GIB: Final = 1024**3
STALL_FACTOR: Final = 4.0
"""migrate.stall_limit over migrate.stall_target, unless it is set."""
_LARGEST_UID: Final = 2**32 - 2  # uid_t, less (uid_t) -1, which stands for no user


def _read_uid(value: object) -> object:
    """Names of users were replaced when the file was loaded; one that is still here has no user."""
    if isinstance(value, str):
        raise ValueError(  # noqa: TRY004 -- pydantic collects ValueError only
            f"there is no user {shorten(value)} on this machine: write a name that `getent passwd` lists, or a number"
        )
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _LARGEST_UID:
        raise ValueError(f"expected a user's name or number, got {describe(value)}")
    return value


def _read_uids(value: object) -> object:
    """One user may stand without a list around it."""
    if isinstance(value, list | tuple) and not value:
        raise ValueError("an empty list matches nobody: name a user, or remove this key")
    return value if value is None or isinstance(value, list | tuple) else (value,)


_UID_SCHEMA: Final = {"anyOf": [{"type": "integer", "minimum": 0, "maximum": _LARGEST_UID}, {"type": "string"}]}
Pattern = Annotated[
    str, AfterValidator(check_pattern), WithJsonSchema({"type": "string", "maxLength": LONGEST_PATTERN})
]
Uid = Annotated[int, BeforeValidator(_read_uid), WithJsonSchema(_UID_SCHEMA)]
Uids = Annotated[
    tuple[Uid, ...] | None,
    BeforeValidator(_read_uids),
    WithJsonSchema(
        {"anyOf": [*_UID_SCHEMA["anyOf"], {"type": "array", "items": _UID_SCHEMA, "minItems": 1}, {"type": "null"}]}
    ),
]


class RuleConfig(Section):
    """Which processes are meant: those that all its keys match. Texts are regular expressions, matched whole."""

    workload: Pattern | None = Field(
        default=None, description="Name of the workload, as `balancerctl ps --workloads` lists it."
    )
    cgroup: Pattern | None = Field(default=None, description="Path of the cgroup, such as /system.slice/ssh.service.")
    comm: Pattern | None = Field(
        default=None, description="Name of the process, of which the kernel keeps 15 characters."
    )
    exe: Pattern | None = Field(default=None, description="Path of the program that runs.")
    uid: Uids = Field(default=None, description="User that the process runs as: a name, a number, or a list of them.")
    cmdline: Pattern | None = Field(
        default=None, description="Command line, its arguments with spaces between; the first 4096 characters count."
    )

    @model_validator(mode="after")
    def _check_not_empty(self) -> Self:
        keys = tuple(type(self).model_fields)
        if all(getattr(self, key) is None for key in keys):
            raise ValueError(f"a rule without a key would match everything: write one of {', '.join(keys)}")
        return self


class SelectConfig(Section):
    """Which processes are worth a closer look."""

    min_rss_bytes: Bytes = Field(
        default=64 * MIB,
        description="Leave processes alone whose resident memory is smaller: moving so little gains nothing.",
    )
    min_cpu_cores: Cores = Field(
        default=0.05,
        description="Leave processes alone that keep fewer cores busy than this: who hardly runs hardly reads memory.",
    )
    min_age_seconds: Annotated[Duration, between(0.0, 86_400.0, format_duration)] = Field(
        default=5.0,
        description="Leave processes alone that are younger: many end before a move would pay.",
    )
    scan_budget_ratio: Annotated[Ratio, between(0.0001, 1.0, format_ratio)] = Field(
        default=0.005,
        description="Share of one core that looking at processes may cost. Under pressure fewer are looked at.",
    )
    read_timeout_seconds: Annotated[Duration, between(0.001, 10.0, format_duration)] = Field(
        default=0.1,
        description="How long a look at a process whose address space is locked may take before it is given up.",
    )
    include: tuple[RuleConfig, ...] = Field(
        default=(),
        description="Leave processes alone that no rule of this list matches; an empty list takes all.",
    )
    exclude: tuple[RuleConfig, ...] = Field(
        default=(),
        description="Leave processes alone that a rule of this list matches, also when they are included.",
    )


class MigrateConfig(Section):
    """How fast and how gently memory moves."""

    rate_limit_bytes_per_second: Annotated[Rate, between(MIB, 1024 * GIB, format_rate)] = Field(
        default=GIB,
        description="Bytes per second that may be moved on the whole machine.",
    )
    process_rate_limit_bytes_per_second: Annotated[Rate, between(MIB, 1024 * GIB, format_rate)] = Field(
        default=512 * MIB,
        description="Bytes per second that may be moved of one process.",
    )
    node_pair_rate_limit_bytes_per_second: Annotated[Rate, between(MIB, 1024 * GIB, format_rate)] = Field(
        default=GIB,
        description="Bytes per second that may be moved from one node to one other, whose link applications use, too.",
    )
    stall_target_seconds: Annotated[Duration, between(0.0001, 1.0, format_duration)] = Field(
        default=0.005,
        description="How long one call to the kernel, in which a process may wait for its memory, should last.",
    )
    stall_limit_seconds: Annotated[
        Annotated[Duration, between(0.0001, 60.0, format_duration)] | None, or_null(format_duration)
    ] = Field(
        default=None,
        description="A longer call is a stall; after two of them a process is left alone, at first for a minute. "
        "null: four times stall_target.",
    )
    duty_cycle_ratio: Annotated[Ratio, between(0.01, 1.0, format_ratio)] = Field(
        default=0.5,
        description="Share of its time that a process may lose to calls while its memory moves. They count whole "
        "until its CPU time has told how much they hold it up. Between them memory of another may move.",
    )
    cooldown_seconds: Annotated[Duration, between(0.0, 86_400.0, format_duration)] = Field(
        default=20.0,
        description="How long a process rests after a move before it may be moved again.",
    )
    watermark_ratio: Annotated[Ratio, between(0.0, 0.9, format_ratio)] = Field(
        default=0.02,
        description="Share of the target node's memory that must remain free after a move.",
    )
    max_memory_pressure_ratio: Annotated[Ratio | None, or_null(format_ratio)] = Field(
        default=0.1,
        description="Nothing moves while tasks wait for memory for more than this share of the time (PSI, some avg10); "
        "null never waits.",
    )
    max_cpu_pressure_ratio: Annotated[Ratio | None, or_null(format_ratio)] = Field(
        default=0.4,
        description="Nothing moves while tasks wait for a CPU for more than this share of the time (PSI, some avg10); "
        "null never waits.",
    )
    move_all: bool = Field(
        default=False,
        description="Move pages that several processes map, too (MPOL_MF_MOVE_ALL): "
        "they become remote for the others, of whom no policy asks.",
    )
    move_shared: bool = Field(
        default=True,
        description="Move shared memory without a name (MAP_ANONYMOUS, memfd) once all watched processes that map it "
        "run where it goes; needs CAP_SYS_NICE.",
    )
    copy_on: Cpus | None = Field(
        default=None,
        description="CPUs that may copy memory, such as 0-31: an idle one of the node that pages go to does, or else "
        "of the node they come from, or else any of the daemon's own. null: only those that the daemon may run on.",
    )

    @model_validator(mode="after")
    def _check_stall_limit(self) -> Self:
        limit, target = self.stall_limit_seconds, self.stall_target_seconds
        if limit is not None and limit < target:
            message = (
                f"must not be below stall_target ({format_duration(target)}), got {format_duration(limit)}: "
                f"write null for {format_duration(STALL_FACTOR * target)}"
            )
            raise PydanticCustomError("stall_limit", "{message}", {"message": message, "at": ("stall_limit",)})
        return self

    @property
    def effective_stall_limit_seconds(self) -> float:
        """What counts as a stall: stall_limit, or what null stands for."""
        return (
            STALL_FACTOR * self.stall_target_seconds if self.stall_limit_seconds is None else self.stall_limit_seconds
        )


class PlanConfig(Section):
    """How much moves are trusted."""

    canary: bool = Field(
        default=True,
        description="The first move of a process by a policy begins with 5% of what is misplaced (64 MiB at least), "
        "then 25%, and goes on when that has stayed at the target; else it goes back. Rules, cpusets and drain are not "
        "held up. false: all of it moves at once.",
    )


class AccessesConfig(Section):
    """How it is found out which threads touch which memory, of the processes that a policy asks for."""

    sources: tuple[SourceName, ...] = Field(
        default=("registers",),
        description="What to find it out with, first the one to try first. registers: a timer looks at the registers "
        "of running threads. hint-faults: what kernel.numa_balancing makes threads fault on. kernel-counters: how many "
        "of these faults were local, which tells no addresses and moves nothing. pebs: loads and stores that Intel's "
        "PMU samples. ibs: those that AMD's CPUs sample.",
    )
    max_processes: Annotated[int, between(1, 64, str)] = Field(
        default=4, description="Watch no more processes at once."
    )
    budget_ratio: Annotated[Ratio, between(0.0001, 1.0, format_ratio)] = Field(
        default=0.01,
        description="Share of one core that samples may cost, in the daemon and in the processes that are watched.",
    )
    table_size_bytes: Annotated[Bytes, between(MIB, 16 * GIB, spell_bytes)] = Field(
        default=32 * MIB,
        description="Memory for the counts of one process, at some 40 bytes for each page that was seen in use. "
        "Once it is full, pages that were seen seldom are forgotten.",
    )
    log_directory: Directory | None = Field(
        default=None,
        description="Directory whose files, output of `perf script`, are imported as they appear; null: none. It must "
        "belong to root or the daemon's user, and nobody else may write to it.",
    )
    heat: HeatName | None = Field(
        default=None,
        description="How it is found out how much memory is used, whoever uses it: of the processes that a policy asks "
        "for, and if max_processes allows, of the busiest others. damon: threads of the kernel look, which needs DAMON "
        "(6.12 of Debian) and CAP_DAC_OVERRIDE. soft-dirty: pages are marked, and those written since are hot, which "
        "works on 6.1, and takes the marks from CRIU. null: not at all.",
    )


class EvictConfig(Section):
    """How fast memory that is hardly used goes to swap, when a policy or `balancerctl evict` asks for it."""

    rate_limit_bytes_per_second: Annotated[Rate, between(MIB, 1024 * GIB, format_rate)] = Field(
        default=64 * MIB,
        description="Bytes per second that may be evicted on the whole machine, for the disk behind swap to write.",
    )
    max_swap_used_ratio: Ratio = Field(
        default=0.8,
        description="Nothing is evicted to swap while more than this share of it is used.",
    )


class MetricsConfig(Section):
    """The Prometheus endpoint."""

    listen: Listen = Field(
        default=ListenAddress("127.0.0.1", 9923),
        description="host:port where /metrics answers, [::1]:9923 for IPv6 (in quotes); null switches it off.",
    )


class PageConfig(Section):
    """The page for people, on the address of metrics.listen."""

    enabled: bool = Field(
        default=True,
        description="Whether there is one. It shows names and pids of processes to whoever reaches the address.",
    )


class ControlConfig(Section):
    """The socket that balancerctl talks to."""

    socket: SocketPath = Field(
        default="/run/balancerd/control.sock",
        description="Absolute path of the Unix socket.",
    )
    group: Group | None = Field(
        default=None,
        description="Its members may look, beside root and the daemon's own user; null means nobody else.",
    )
    change_group: Group | None = Field(
        default=None,
        description="Its members may change things, too; null: only root and the daemon's own user. The socket belongs "
        "to `group` where both are set, so they must be members of that one, too.",
    )


SectionT = TypeVar("SectionT", bound=Section)


def at_least_one(rules: tuple[SectionT, ...]) -> tuple[SectionT, ...]:
    """Refuse an empty list of rules."""
    if not rules:
        raise ValueError("without a rule no process belongs to it: write at least one")
    return rules


class WorkloadConfig(Section):
    """A group of processes with a name of its own."""

    name: Name = Field(description="What metrics, commands and rules call it; unique among the workloads.")
    match: Annotated[tuple[RuleConfig, ...], AfterValidator(at_least_one)] = Field(
        description="Its processes: those that at least one rule of this list matches.",
        json_schema_extra={"minItems": 1},
    )


class PolicyConfig(Section):
    """One policy at work. Every key beside name, kind, mode and match is an option of its kind."""

    model_config = ConfigDict(extra="allow")

    name: Name = Field(description="What logs, metrics and commands call it; unique among the policies.")
    kind: Name = Field(description="Which policy it is, as `balancerctl policies` lists them.")
    mode: Mode | None = Field(
        default=None,
        description="observe: this policy decides and explains but never acts; null follows the daemon's mode.",
    )
    match: tuple[RuleConfig, ...] = Field(
        default=(),
        description="It judges processes that a rule of this list matches; an empty list takes all. Of several "
        "policies of one kind the first that takes a process judges it, and the others leave it alone.",
    )

    @property
    def options(self) -> Mapping[str, object]:
        """The options as plain data, keys as written; `loader.validate_policies` checks them for the plugin."""
        return MappingProxyType(self.model_extra or {})


class Config(Section):
    """Everything that can be set. Config() are the defaults, and a good choice on most machines."""

    mode: Mode = Field(
        default="enforce",
        description="enforce: move memory. observe: decide, explain and report, never act.",
    )
    tick_interval_seconds: Annotated[Duration, between(0.1, 300.0, format_duration)] = Field(
        default=2.0,
        description="How often the daemon looks, decides and moves.",
    )
    select: SelectConfig = Field(default=SelectConfig(), description="Which processes are worth a closer look.")
    migrate: MigrateConfig = Field(default=MigrateConfig(), description="How fast and how gently memory moves.")
    plan: PlanConfig = Field(default=PlanConfig(), description="How much moves are trusted.")
    evict: EvictConfig = Field(
        default=EvictConfig(),
        description="How fast memory that is hardly used goes to swap, when something asks for it.",
    )
    accesses: AccessesConfig = Field(
        default=AccessesConfig(),
        description="How it is found out which threads touch which memory, when a policy asks for it.",
    )
    yield_to: tuple[ManagerName, ...] = Field(
        default=("numad", "memtierd", "katalyst", "damos", "kubelet-cpu", "kubelet-memory", "libvirt", "numa-policy"),
        description="Whom to yield to. While numad, memtierd, katalyst, damos or kernel-balancing is at work, "
        "nothing moves; processes that one of the others has placed are left alone.",
    )
    metrics: MetricsConfig = Field(default=MetricsConfig(), description="The Prometheus endpoint.")
    page: PageConfig = Field(default=PageConfig(), description="The page for people, on the address of metrics.listen.")
    control: ControlConfig = Field(default=ControlConfig(), description="The socket that balancerctl talks to.")
    state_directory: Directory | None = Field(
        default=None,
        description="Directory for what must outlive the daemon: the history, and the journal of threads that a policy "
        "of kind threads has moved. null: what systemd gives it (StateDirectory=), else /var/lib/balancerd.",
    )
    history: HistoryConfig = Field(default=HistoryConfig(), description="What was decided and done, kept in a file.")
    log: LogConfig = Field(default=LogConfig(), description="What is logged, and in which form.")
    workloads: Annotated[tuple[WorkloadConfig, ...], names_differ("workload")] = Field(
        default=(),
        description="Groups of processes with names of their own; the first that matches a process names it, "
        "whatever its cgroup is called.",
    )
    policies: Annotated[tuple[PolicyConfig, ...], names_differ("policy")] = Field(
        default=(PolicyConfig(name="home", kind="follow-cpu"),),
        description="The policies at work, most important first; those of kind rule and cpuset-follow are before all "
        "others wherever they stand. When two want to move a process, the first has it.",
    )
