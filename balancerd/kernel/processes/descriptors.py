"""How many descriptors this process may hold open, and how many of them a survey may keep."""

import resource

_RESERVED = 256
"""For connections, pidfds, the log and what else the daemon opens."""

_ENOUGH = 16384
"""Each kept descriptor of a procfs file costs 4 KiB and some of kernel memory, charged to our cgroup."""


def raise_descriptor_limit() -> int:
    """Raise the soft limit of open files (RLIMIT_NOFILE, often 1024) as far as we can use it; return what it is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _ENOUGH if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


def keepable_descriptors() -> int:
    """Return how many a survey may keep open: three quarters of what the soft limit leaves beside a reserve."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    usable = _ENOUGH if soft == resource.RLIM_INFINITY else min(soft, _ENOUGH)
    return max(0, usable * 3 // 4 - _RESERVED)
