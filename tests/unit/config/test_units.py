import json
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancerd.config import units


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2s", 2.0),
        ("500ms", 0.5),
        ("5m", 300.0),
        ("1h", 3600.0),
        ("1h30m", 5400.0),
        ("1.5s", 1.5),
        ("100us", 0.0001),
        ("1d2h3m4s5ms6us", 93784.005006),
        ("0s", 0.0),
    ],
)
def test_a_duration_is_read_as_seconds(text: str, seconds: float) -> None:
    assert units.parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2", "a duration needs a unit: write 2s"),
        ("0", "a duration needs a unit: write 0s"),
        ("1.5", "a duration needs a unit: write 1.5s"),
        ("abc", "expected a duration such as 2s, 500ms or 1h30m, got 'abc'"),
        ("", "expected a duration such as 2s, 500ms or 1h30m, got ''"),
        ("-2s", "expected a duration such as 2s, 500ms or 1h30m, got '-2s'"),
        ("2 s", "expected a duration such as 2s, 500ms or 1h30m, got '2 s'"),
        ("1:30", "expected a duration such as 2s, 500ms or 1h30m, got '1:30'"),
        ("2s\n", "expected a duration such as 2s, 500ms or 1h30m, got '2s\\n'"),
        ("\u0662s", "expected a duration such as 2s, 500ms or 1h30m, got '\u0662s'"),
        ("30m1h", "the units of a duration go from large to small, each once, as in 1h30m, got '30m1h'"),
        ("1s1s", "the units of a duration go from large to small, each once, as in 1h30m, got '1s1s'"),
    ],
)
def test_what_is_no_duration_says_what_to_write(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        units.parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0s"),
        (-0.0, "0s"),
        (2.0, "2s"),
        (0.5, "500ms"),
        (0.0025, "2.5ms"),
        (0.0001, "100us"),
        (0.0000001, "0s"),
        (59.999999, "59.999999s"),
        (60.0, "1m"),
        (90.0, "1m30s"),
        (5400.0, "1h30m"),
        (90061.5, "1d1h1m1.5s"),
        (-2.5, "-2.5s"),
    ],
)
def test_a_duration_is_shown_in_the_largest_units_that_fit(seconds: float, text: str) -> None:
    assert units.format_duration(seconds) == text


@given(st.integers(min_value=0, max_value=10**14))
def test_durations_survive_the_round_trip_to_the_microsecond(microseconds: int) -> None:
    seconds = microseconds / 1_000_000
    assert units.parse_duration(units.format_duration(seconds)) == seconds


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("64MiB", 64 * 2**20),
        ("1GiB", 2**30),
        ("512KiB", 512 * 2**10),
        ("2TiB", 2 * 2**40),
        ("100MB", 100_000_000),
        ("4kB", 4000),
        ("4KB", 4000),
        ("4096B", 4096),
        ("1.5GiB", 3 * 2**29),
        ("0", 0),
        ("0B", 0),
    ],
)
def test_a_byte_size_is_read_as_bytes(text: str, count: int) -> None:
    assert units.parse_bytes(text) == count


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("64", "a byte size needs a unit: write 64MiB or 64B"),
        ("64M", "expected a byte size such as 64MiB or 1GiB, got '64M': write 64MiB"),
        ("64mb", "expected a byte size such as 64MiB or 1GiB, got '64mb': write 64MiB"),
        ("64 GiB", "expected a byte size such as 64MiB or 1GiB, got '64 GiB': write 64GiB"),
        ("-1B", "expected a byte size such as 64MiB or 1GiB, got '-1B'"),
        ("lots", "expected a byte size such as 64MiB or 1GiB, got 'lots'"),
        ("8EiB", "8EiB is more than any machine has: the largest size is 8EiB less one byte"),
    ],
)
def test_what_is_no_byte_size_says_what_to_write(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        units.parse_bytes(text)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0B"),
        (1023, "1023B"),
        (1024, "1KiB"),
        (1536, "1.5KiB"),
        (64 * 2**20, "64MiB"),
        (100_000_000, "95.4MiB"),
        (2**30 - 1, "1GiB"),
        (2**63 - 1, "8EiB"),
        (-(2**20), "-1MiB"),
    ],
)
def test_a_byte_size_is_shown_with_one_digit_after_the_point(count: int, text: str) -> None:
    assert units.format_bytes(count) == text
    assert units.format_rate(count) == f"{text}/s"


@given(st.integers(min_value=0, max_value=units.LARGEST_BYTES))
def test_byte_sizes_and_rates_survive_the_round_trip_exactly(count: int) -> None:
    assert units.parse_bytes(units.spell_bytes(count)) == count
    assert units.parse_rate(units.spell_rate(count)) == count


@pytest.mark.parametrize(
    ("count", "text"), [(64 * 2**20, "64MiB"), (100_000_000, "100MB"), (4097, "4097B"), (0, "0B"), (2**30, "1GiB")]
)
def test_a_byte_size_is_spelled_as_an_operator_would(count: int, text: str) -> None:
    assert units.spell_bytes(count) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("5", "a byte rate needs a unit: write 5MiB/s or 5B/s"),
        ("0", "a byte rate needs a unit: write 0MiB/s or 0B/s"),
        ("1GiB", "a byte rate is per second: write 1GiB/s"),
        ("1G/s", "expected a byte rate such as 1GiB/s or 200MiB/s, got '1G/s': write 1GiB/s"),
        ("fast", "expected a byte rate such as 1GiB/s or 200MiB/s, got 'fast'"),
    ],
)
def test_what_is_no_byte_rate_says_what_to_write(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        units.parse_rate(text)


@pytest.mark.parametrize(
    ("text", "ratio"),
    [("5%", 0.05), ("0.05", 0.05), ("0.5%", 0.005), ("100%", 1.0), ("1", 1.0), ("0", 0.0), (".5", 0.5)],
)
def test_a_share_is_read_from_percent_or_fraction(text: str, ratio: float) -> None:
    assert units.parse_ratio(text) == ratio


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("5", "a share lies between 0% and 100%, got '5': write 5% or 0.05"),
        ("150%", "a share lies between 0% and 100%, got '150%'"),
        ("1000", "a share lies between 0% and 100%, got '1000'"),
        ("-1%", "expected a share such as 5% or 0.05, got '-1%'"),
        ("half", "expected a share such as 5% or 0.05, got 'half'"),
        ("nan", "expected a share such as 5% or 0.05, got 'nan'"),
    ],
)
def test_what_is_no_share_says_what_to_write(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        units.parse_ratio(text)


@given(st.integers(min_value=0, max_value=10**9))
def test_shares_survive_the_round_trip(billionths: int) -> None:
    ratio = billionths / 10**9
    assert units.parse_ratio(units.format_ratio(ratio)) == ratio


@pytest.mark.parametrize(("text", "cores"), [("0.05", 0.05), ("2", 2.0), (".5", 0.5), ("0", 0.0)])
def test_busy_cores_are_a_plain_number(text: str, cores: float) -> None:
    assert units.parse_cores(text) == cores


@pytest.mark.parametrize("text", ["5%", "-1", "inf", "", "1e3"])
def test_what_is_no_number_of_cores_says_what_to_write(text: str) -> None:
    with pytest.raises(ValueError, match=f"^expected a number of cores such as 0.05, got {re.escape(repr(text))}$"):
        units.parse_cores(text)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:9923", ("127.0.0.1", 9923)),
        ("localhost:0", ("localhost", 0)),
        ("node-1.example:65535", ("node-1.example", 65535)),
        ("[::1]:9923", ("::1", 9923)),
        ("[::ffff:10.0.0.1]:1", ("::ffff:10.0.0.1", 1)),
    ],
)
def test_a_listen_address_is_host_and_port_and_is_shown_as_written(text: str, address: tuple[str, int]) -> None:
    assert units.parse_listen(text) == address
    assert str(units.parse_listen(text)) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (":9923", "a listen address needs a host: write 127.0.0.1:9923, or 0.0.0.0:9923 for every interface"),
        ("9923", "expected host:port such as 127.0.0.1:9923 or \"[::1]:9923\", got '9923'"),
        ("::1:9923", "expected host:port such as 127.0.0.1:9923 or \"[::1]:9923\", got '::1:9923'"),
        ("http://localhost:1", "expected host:port such as 127.0.0.1:9923 or \"[::1]:9923\", got 'http://localhost:1'"),
        ("localhost:65536", "a port lies between 0 and 65535, got 65536"),
        ("127.0.0.256:1", "'127.0.0.256' is no IP address: expected one such as 127.0.0.1 or [::1]"),
        ("[:::]:1", "':::' is no IP address: expected one such as 127.0.0.1 or [::1]"),
    ],
)
def test_what_is_no_listen_address_says_what_to_write(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        units.parse_listen(text)


def test_quoted_texts_are_short_printable_and_on_one_line() -> None:
    assert units.shorten("a\nb") == r"'a\nb'"
    assert units.shorten("x" * 100) == "'" + "x" * 39 + "…'"
    assert units.ascii_safe("caf\u00e9 \udcff") == "caf\u00e9 \\udcff"


def test_units_cost_a_command_line_neither_pydantic_nor_yaml() -> None:
    program = "import sys, json, balancerd.config.units; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert {"pydantic", "yaml"}.isdisjoint(json.loads(done.stdout))
