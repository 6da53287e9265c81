"""The native core: where pages are, moving them, and reading all of /proc, in C.

Stateless functions over the caller's buffers; the only code that ever holds one address per page. C sources lie beside
this file: cdef.h is the whole interface, placement.c counts, migrate.c and submit.c move,
idle.c tells what moving nothing costs, survey.c reads procfs.
backend.py builds them. After editing C, the editable installation is rebuilt by

    pip install --no-build-isolation --no-deps -e .

Must not know the model, policies, or when anything should move.
"""

from balancerd.native.binding import HUGE_BYTES, PAGE_BYTES, RangeArray, idle_call, migrate, placement, survey, threads
from balancerd.native.records import (
    Counts,
    Cursor,
    Migration,
    Placement,
    ProcessRow,
    ProcessSurvey,
    RangePlacement,
    ThreadRow,
    ThreadSurvey,
)

__all__ = [
    "HUGE_BYTES",
    "PAGE_BYTES",
    "Counts",
    "Cursor",
    "Migration",
    "Placement",
    "ProcessRow",
    "ProcessSurvey",
    "RangeArray",
    "RangePlacement",
    "ThreadRow",
    "ThreadSurvey",
    "idle_call",
    "migrate",
    "placement",
    "survey",
    "threads",
]
