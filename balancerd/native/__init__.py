"""The native core: where pages are, moving them, and reading all of /proc, in C.

Stateless functions over the caller's buffers; the only code that ever holds one address per page. C sources lie beside
this file: cdef.h is the whole interface, maps.c reads mappings, sample.c asks for pages by chance, numa_maps.c and
placement.c count, migrate.c, submit.c and account.c move, whole.c moves a whole process, evict.c gives memory back,
idle.c tells what moving nothing costs; survey.c goes over all processes, threads.c over the threads of one, procfs.c
reads for both; access.c counts who accesses which page, judge.c says where such pages belong, perf.c samples threads,
drain.c reads their samples, and decode.c the code that they stood at. backend.py builds them. After editing C, the
editable installation is rebuilt by

    pip install --no-build-isolation --no-deps -e .

Must not know the model, policies, or when anything should move.
"""

from balancerd.native.access_records import (
    AccessRegion,
    AccessRegions,
    AccessRun,
    AccessTotals,
    Judgement,
    JudgeRule,
    MemoryEvent,
    PageAccesses,
    PerfKind,
    PerfReading,
)
from balancerd.native.accessing import REGION_BYTES, AccessNodes, AccessTable
from balancerd.native.binding import PAGE_BYTES, RangeArray, placement
from balancerd.native.looking import MalformedTextError, VmaTable, count_numa_maps, parse_maps, sample
from balancerd.native.moving import HUGE_BYTES, evict, idle_call, migrate, migrate_process
from balancerd.native.perf import AddressRanges, ThreadRings, probe
from balancerd.native.records import (
    VMA_KINDS,
    Counts,
    Cursor,
    Device,
    Eviction,
    Migration,
    Placement,
    ProcessRow,
    ProcessSurvey,
    RangePlacement,
    Run,
    Stratum,
    SurveyRules,
    Tally,
    ThreadSurvey,
    VmaRow,
    VmaTally,
)
from balancerd.native.surveying import NodeOfCpu, ProcessSeats, ThreadSeats, survey, threads

__all__ = [
    "HUGE_BYTES",
    "PAGE_BYTES",
    "REGION_BYTES",
    "VMA_KINDS",
    "AccessNodes",
    "AccessRegion",
    "AccessRegions",
    "AccessRun",
    "AccessTable",
    "AccessTotals",
    "AddressRanges",
    "Counts",
    "Cursor",
    "Device",
    "Eviction",
    "JudgeRule",
    "Judgement",
    "MalformedTextError",
    "MemoryEvent",
    "Migration",
    "NodeOfCpu",
    "PageAccesses",
    "PerfKind",
    "PerfReading",
    "Placement",
    "ProcessRow",
    "ProcessSeats",
    "ProcessSurvey",
    "RangeArray",
    "RangePlacement",
    "Run",
    "Stratum",
    "SurveyRules",
    "Tally",
    "ThreadRings",
    "ThreadSeats",
    "ThreadSurvey",
    "VmaRow",
    "VmaTable",
    "VmaTally",
    "count_numa_maps",
    "evict",
    "idle_call",
    "migrate",
    "migrate_process",
    "parse_maps",
    "placement",
    "probe",
    "sample",
    "survey",
    "threads",
]
