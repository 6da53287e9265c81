from pathlib import Path

import pytest

from balancerd.kernel.errors import ParseError
from tests.bench.locality.latencies import gaps_of, joined, parse_pgbench_log, parse_redis_benchmark
from tests.bench.victim import Gaps

CAPTURED = Path(__file__).parent / "captured"


def read_redis_benchmark() -> str:
    return (CAPTURED / "redis-benchmark-7.0.15.txt").read_text(encoding="ascii")


def test_the_requests_of_each_test_of_redis_benchmark_are_counted_up_to_their_latencies() -> None:
    found = parse_redis_benchmark(read_redis_benchmark(), "out")
    assert set(found) == {"set", "get"}
    assert found["set"].n == found["get"].n == 2000
    assert found["set"].longest_ns == 4_079_000
    assert found["get"].longest_ns == 119_000
    assert found["set"].percentile_ns(0.98) == 399_001
    assert found["set"].percentile_ns(0.99) == 4_031_001
    assert found["get"].percentile_ns(0.999) == 119_000


def test_a_line_of_redis_benchmark_that_reads_otherwise_is_named() -> None:
    text = read_redis_benchmark().replace("87.500% <= 0.135 milliseconds", "87.500% <= 0.135 seconds")
    with pytest.raises(ParseError, match=r"out:17: .*0\.135 seconds"):
        parse_redis_benchmark(text, "out")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Connection refused\n",
        *(cut(read_redis_benchmark(), "99.219%")[0] for cut in (str.partition, str.rpartition)),
    ],
    ids=["nothing", "an error", "cut short in the first", "cut short in the last"],
)
def test_output_of_redis_benchmark_without_a_whole_table_is_an_error(text: str) -> None:
    with pytest.raises(ParseError):
        parse_redis_benchmark(text, "out")


def test_a_log_of_pgbench_tells_each_latency() -> None:
    text = (CAPTURED / "pgbench-15.20.log").read_text(encoding="ascii")
    found = parse_pgbench_log(text, "log")
    assert found.n == 40
    assert found.longest_ns == 8_315_000
    assert found.percentile_ns(0.5) == 64_001
    assert found.percentile_ns(1.0) == found.longest_ns


@pytest.mark.parametrize("line", ["0 1 failed 0 1795292817 92345", "0 1 932", ""])
def test_a_transaction_that_was_not_made_is_an_error(line: str) -> None:
    with pytest.raises(ParseError, match="log:2: "):
        parse_pgbench_log(f"0 1 932 0 1795292817 92345\n{line}\n", "log")


def test_single_times_keep_their_longest_and_their_percentiles() -> None:
    gaps = gaps_of([5, 100, 7, 6])
    assert (gaps.n, gaps.longest_ns) == (4, 100)
    assert gaps.percentile_ns(0.75) == 8
    assert gaps_of([]) == Gaps()


def test_the_gaps_of_several_runs_are_joined_by_name() -> None:
    found = joined([{"set": gaps_of([1, 2]), "get": gaps_of([9])}, {"set": gaps_of([3])}])
    assert found == {"set": gaps_of([1, 2, 3]), "get": gaps_of([9])}
