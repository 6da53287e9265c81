"""Quantities as people write them: durations, byte sizes, byte rates, ratios and listen addresses, both ways.

Owns the spelling of units, for the configuration and for whatever is shown to a person. Pure, and free of pydantic,
so that commands which only talk to the daemon can import it cheaply. It must not know which settings exist. Every
`parse_x` takes the text of one value and raises ValueError with a complete sentence; every `format_x` is its inverse.
"""

import ipaddress
import itertools
import re
from decimal import Decimal
from typing import Final, NamedTuple

from balancerd.model.printable import printable

DURATION_PATTERN: Final = r"^([0-9]{1,12}(\.[0-9]{1,6})?(d|h|m|s|ms|us))+$"
BYTES_PATTERN: Final = r"^(0|[0-9]{1,19}(\.[0-9]{1,6})?([KMGTPE]iB|[kKMGTPE]B|B))$"
RATE_PATTERN: Final = r"^[0-9]{1,19}(\.[0-9]{1,6})?([KMGTPE]iB|[kKMGTPE]B|B)/s$"
RATIO_PATTERN: Final = r"^([0-9]{1,12}(\.[0-9]{1,12})?|\.[0-9]{1,12})%?$"
LISTEN_PATTERN: Final = r"^([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}$"

LARGEST_BYTES: Final = 2**63 - 1  # what the kernel's off_t holds
_MICROSECONDS: Final = {"d": 86_400_000_000, "h": 3_600_000_000, "m": 60_000_000, "s": 1_000_000, "ms": 1_000, "us": 1}
_BINARY: Final = {f"{prefix}iB": 1024**power for power, prefix in enumerate("KMGTPE", start=1)}
_DECIMAL: Final = {f"{prefix}B": 1000**power for power, prefix in enumerate("KMGTPE", start=1)}
_BYTES: Final = {"B": 1, "kB": 1000} | _BINARY | _DECIMAL


class ListenAddress(NamedTuple):
    """Where a TCP server listens: a host name or an address without brackets, and a port of 0 to 65535."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_duration(text: str) -> float:
    """Seconds of a duration such as "2s", "500ms", "1.5s" or "1h30m", whose units must fall in size."""
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
        raise ValueError(f"a duration needs a unit: write {text}s")
    if not re.fullmatch(DURATION_PATTERN, text):
        raise ValueError(f"expected a duration such as 2s, 500ms or 1h30m, got {shorten(text)}")
    parts = [(Decimal(number), unit) for number, unit in re.findall(r"([0-9.]+)([a-z]+)", text)]
    sizes = [_MICROSECONDS[unit] for _, unit in parts]
    if any(later >= earlier for earlier, later in itertools.pairwise(sizes)):
        raise ValueError(f"the units of a duration go from large to small, each once, as in 1h30m, got {shorten(text)}")
    return float(sum(number * _MICROSECONDS[unit] for number, unit in parts) / 1_000_000)


def format_duration(seconds: float) -> str:
    """The shortest spelling exact to the microsecond: "0s", "500us", "5ms", "2.5s", "1h30m", "-1s"."""
    rest = round(abs(seconds) * 1_000_000)
    sign = "-" if seconds < 0 and rest else ""
    for unit, below in (("us", 1_000), ("ms", 1_000_000), ("s", 60_000_000)):
        if 0 < rest < below:
            return f"{sign}{_trim(Decimal(rest) / _MICROSECONDS[unit])}{unit}"
    words = []
    for unit in ("d", "h", "m"):
        count, rest = divmod(rest, _MICROSECONDS[unit])
        if count:
            words.append(f"{count}{unit}")
    if rest or not words:
        words.append(f"{_trim(Decimal(rest) / 1_000_000)}s")
    return sign + "".join(words)


def parse_bytes(text: str) -> int:
    """Bytes of a size such as "64MiB" (1024-based) or "100MB" (1000-based); only 0 goes without a unit."""
    if text == "0":
        return 0
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
        raise ValueError(f"a byte size needs a unit: write {text}MiB or {text}B")
    if not re.fullmatch(BYTES_PATTERN, text):
        raise ValueError(f"expected a byte size such as 64MiB or 1GiB, got {shorten(text)}{_unit_hint(text)}")
    return _count_bytes(text)


def parse_rate(text: str) -> int:
    """Bytes per second of a rate such as "1GiB/s"."""
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
        raise ValueError(f"a byte rate needs a unit: write {text}MiB/s or {text}B/s")
    if re.fullmatch(BYTES_PATTERN, text):
        raise ValueError(f"a byte rate is per second: write {text}/s")
    if not re.fullmatch(RATE_PATTERN, text):
        hint = f"{hint}/s" if (hint := _unit_hint(text.removesuffix("/s"))) else ""
        raise ValueError(f"expected a byte rate such as 1GiB/s or 200MiB/s, got {shorten(text)}{hint}")
    return _count_bytes(text.removesuffix("/s"))


def format_bytes(count: int) -> str:
    """A size to read, at most one digit after the point: "0B", "512B", "1.5GiB". Negative keeps its sign."""
    sign, rest = ("-", -count) if count < 0 else ("", count)
    units = list(_BINARY.items())
    for (unit, size), (_, above) in zip(units, [*units[1:], ("", LARGEST_BYTES * 1024)], strict=True):
        if rest >= 1024 and round(Decimal(rest) / size, 1) < above // size:
            return f"{sign}{_trim(round(Decimal(rest) / size, 1))}{unit}"
    return f"{sign}{rest}B"


def spell_bytes(count: int) -> str:
    """The shortest spelling that parse_bytes reads back to exactly this count: "64MiB", "100MB", "4097B", "0B"."""
    exact = [f"{count // size}{unit}" for unit, size in _BYTES.items() if count and count % size == 0 and unit != "kB"]
    return min(exact, key=len, default="0B")


def format_rate(bytes_per_second: int) -> str:
    """A rate to read: "1GiB/s"."""
    return f"{format_bytes(bytes_per_second)}/s"


def spell_rate(bytes_per_second: int) -> str:
    """The spelling that parse_rate reads back exactly."""
    return f"{spell_bytes(bytes_per_second)}/s"


def parse_ratio(text: str) -> float:
    """A share of 0 to 1, written "5%" or "0.05"."""
    if not re.fullmatch(RATIO_PATTERN, text):
        raise ValueError(f"expected a share such as 5% or 0.05, got {shorten(text)}")
    ratio = float(Decimal(text.removesuffix("%")) / (100 if text.endswith("%") else 1))
    if ratio > 1:
        percent = "" if text.endswith("%") or ratio > 100 else f": write {text}% or {_trim(Decimal(text) / 100)}"
        raise ValueError(f"a share lies between 0% and 100%, got {shorten(text)}{percent}")
    return ratio


def format_ratio(ratio: float) -> str:
    """Percent, exact: 0.005 gives "0.5%"."""
    return f"{_trim(Decimal(repr(ratio)) * 100)}%"


def parse_cores(text: str) -> float:
    """Busy cores, a plain number: "0.05" is 5 % of one core, "2" is two cores."""
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,12})?|\.[0-9]{1,12}", text):
        raise ValueError(f"expected a number of cores such as 0.05, got {shorten(text)}")
    return float(text)


def parse_listen(text: str) -> ListenAddress:
    """Host and port of "127.0.0.1:9923", "localhost:9923" or "[::1]:9923"."""
    if re.fullmatch(r":[0-9]{1,5}", text):
        raise ValueError(f"a listen address needs a host: write 127.0.0.1{text}, or 0.0.0.0{text} for every interface")
    if not re.fullmatch(LISTEN_PATTERN, text):
        raise ValueError(f'expected host:port such as 127.0.0.1:9923 or "[::1]:9923", got {shorten(text)}')
    host, _, port = text.rpartition(":")
    if int(port) > 65535:
        raise ValueError(f"a port lies between 0 and 65535, got {port}")
    host = host.strip("[]")
    if ":" in host or re.fullmatch(r"[0-9.]+", host):
        try:
            ipaddress.ip_address(host)
        except ValueError:
            raise ValueError(f"{shorten(host)} is no IP address: expected one such as 127.0.0.1 or [::1]") from None
    return ListenAddress(host, int(port))


def shorten(text: str) -> str:
    """The text quoted on one line, at most 40 characters of it, unprintable ones escaped."""
    return printable(repr(text if len(text) <= 40 else text[:39] + "…"))


def ascii_safe(text: str) -> str:
    """The text with everything that no terminal or UTF-8 stream can print, such as lone surrogates, escaped."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _count_bytes(text: str) -> int:
    number, unit = re.findall(r"([0-9.]+)([A-Za-z]+)", text)[0]
    count = int((Decimal(number) * _BYTES[unit]).to_integral_value())
    if count > LARGEST_BYTES:
        raise ValueError(f"{text} is more than any machine has: the largest size is 8EiB less one byte")
    return count


def _unit_hint(text: str) -> str:
    """Point to the unit that was probably meant: 64M, 64mb and "64 MiB" are all common."""
    match = re.fullmatch(r"([0-9]{1,19}(?:\.[0-9]{1,6})?)\s*([kmgtpe])(i?b?)", text, re.IGNORECASE)
    return f": write {match[1]}{match[2].upper()}iB" if match else ""


def _trim(number: Decimal) -> str:
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
