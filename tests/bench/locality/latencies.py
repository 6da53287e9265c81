"""How long programs took, as they tell it themselves, in the form of a thread's gaps.

Owns reading what clients print. Here a gap is the time from a request to its reply, or of one unit of a loop.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from balancerd.kernel.errors import ParseError
from tests.bench.victim import Gaps

_TEST = re.compile(r"====== (\w+) ======")
_AT_MOST = re.compile(r"[0-9.]+% <= ([0-9.]+) milliseconds \(cumulative count ([0-9]+)\)")
_PERCENTILES = "Latency by percentile distribution:"


def gaps_of(times_ns: Iterable[int]) -> Gaps:
    """Return single times as gaps, each in a bucket of its own."""
    below = Counter(time_ns + 1 for time_ns in times_ns)
    return Gaps(longest_ns=max(below, default=1) - 1, below=below)


def parse_redis_benchmark(text: str, path: str) -> Mapping[str, Gaps]:
    """Return the latencies of requests by test, lower case, from the output of redis-benchmark without --csv or -q.

    Each line counts the requests up to a time, so that percentiles are at most one line too large. The client counts
    what took longer than 3 s as 3 s.
    """
    found: dict[str, Gaps] = {}
    test, is_table, counted = "", False, 0
    below: Counter[int] = Counter()
    for number, line in enumerate(text.splitlines(), 1):
        if title := _TEST.search(line):
            test, counted, below = title[1].lower(), 0, Counter()
        elif line == _PERCENTILES:
            is_table = True
        elif is_table and line:
            row = _AT_MOST.fullmatch(line)
            if row is None or not test:
                raise ParseError(path, number, line.encode(), "no share of requests of a test")
            time_ns, total = round(float(row[1]) * 1e6), int(row[2])
            if total > counted:
                below[time_ns + 1] += total - counted
            counted = total
        elif is_table and below:
            is_table = False
            found[test] = Gaps(longest_ns=max(below) - 1, below=below)
    if not found or is_table:
        raise ParseError(path, 0, text[-200:].encode(), "the table of latencies is missing or cut short")
    return found


def parse_pgbench_log(text: str, path: str) -> Gaps:
    """Return the latencies of transactions from a log of pgbench --log, which tells microseconds in its third field."""
    times_ns = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if len(words) < 6 or not words[2].isdigit():
            raise ParseError(path, number, line.encode(), "no transaction that was made")
        times_ns.append(1000 * int(words[2]))
    return gaps_of(times_ns)


def joined(parts: Iterable[Mapping[str, Gaps]]) -> dict[str, Gaps]:
    """Return the gaps of several runs as those of one, by name."""
    found: dict[str, Gaps] = {}
    for part in parts:
        for name, gaps in part.items():
            found[name] = found.get(name, Gaps()) + gaps
    return found
