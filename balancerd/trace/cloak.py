"""The names under which a trace tells of a machine: nobody learns from it what runs there, or where.

Owns the salt, which is drawn for each trace and kept nowhere. Texts become hashes: equal ones stay equal. Processes are
numbered in the order of their pids, users as they are met. Addresses of a process are shifted by a secret of its own, a
multiple of 2 MiB, so that pages, regions and the order stay. It must not know records; the codec asks it.

Rules of the configuration match names, and would match no hash. So each pattern is tried here, at recording, and the
hash carries the numbers of those that matched: "x3fa91c20be1,0,2,". In the configuration that the trace tells, pattern
2 is ".*,2,.*": rules can be moved about, combined and left out in replay, and neither a name nor a pattern is in the
file. A pattern that is not one of these cannot be replayed. Digests of patterns, by which another configuration could
name them, are not in the file: whoever has it could try likely names on them.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Final

from balancerd.engine.rules import Rule
from balancerd.model.access import REGION_BYTES
from balancerd.model.ids import ProcessId
from balancerd.model.sample import ProcessSample

OWN_NUMBER: Final = 1
_FIRST_NUMBER: Final = 100_000
_STRIDE: Final = 100
"""Between two processes there is room for others whose pids lie between theirs."""
_SPARE_NUMBER: Final = 1 << 40

MOST_NAMES: Final = 100_000
"""So many hashes are kept to be used again; they can be made anew at any time."""

_REGIONS: Final = 1 << 36
"""Of 2 MiB: shifts are so many times larger than an address space has that an address tells nothing by its size."""

_STEP: Final = 0x9E3779B97F4A7C15
_CIRCLE: Final = 1 << 64
_CLOSE: Final = _CIRCLE >> 16
"""How near a shifted region stays to its place in the pattern of `engine.interleaving`, whose step this is."""


class Cloak:
    """Hides the names of one machine. `patterns` are those of the configuration by key, each as a rule of its own.

    With `keep_pattern` the nodes on which interleaving places regions stay, up to few of a thousand: the shift is then
    one of fewer, and less of the addresses is secret.
    """

    def __init__(
        self, *, salt: bytes, own_pid: int, patterns: Mapping[str, Sequence[Rule]], keep_pattern: bool = False
    ) -> None:
        self._salt = salt
        self._own_pid = own_pid
        self._patterns = {key: tuple(rules) for key, rules in patterns.items()}
        self._keep_pattern = keep_pattern
        self._names: dict[str, str] = {}
        self._numbers: dict[ProcessId, int] = {}
        self._sorted: list[ProcessId] = []
        self._last_number = _FIRST_NUMBER
        self._last_spare = _SPARE_NUMBER
        self._users: dict[int, int] = {}
        self._shifts: dict[ProcessId, int] = {}
        self._shift = 0

    def name(self, text: str) -> str:
        """Return the hash of a text; nothing stays nothing."""
        if not text:
            return ""
        known = self._names.get(text)
        if known is None:
            if len(self._names) >= MOST_NAMES:
                self._names.clear()
            digest = blake2b(text.encode("utf-8", "surrogateescape"), key=self._salt, digest_size=6)
            known = self._names[text] = f"x{digest.hexdigest()[1:]}"
        return known

    def matched(self, process: ProcessSample) -> Mapping[str, str]:
        """Return, by key, the numbers of the patterns that match the process, as they stand behind a hash."""
        found: dict[str, str] = {}
        for key, rules in self._patterns.items():
            numbers = [str(number) for number, rule in enumerate(rules) if rule.matches(process)]
            if numbers:
                found[key] = f",{','.join(numbers)},"
        return found

    def user(self, uid: int) -> int:
        """Return the number of a user."""
        return self._users.setdefault(uid, len(self._users) + 1)

    def meet(self, processes: Iterable[ProcessId]) -> None:
        """Number those that are new; what is met together is numbered in order."""
        for process in sorted(process for process in processes if process not in self._numbers):
            self._numbers[process] = self._number_new(process)

    def number(self, process: ProcessId) -> int:
        """Return the number of a process."""
        known = self._numbers.get(process)
        if known is None:
            self.meet((process,))
            known = self._numbers[process]
        return known

    def enter(self, process: ProcessId) -> None:
        """Shift addresses as those of this process from now on."""
        self._shift = self.shift_bytes(process)

    def address(self, address: int) -> int:
        """Return an address of the process that was entered."""
        return address + self._shift

    def shift_bytes(self, process: ProcessId) -> int:
        """Return how far the addresses of a process are shifted."""
        known = self._shifts.get(process)
        if known is None:
            digest = blake2b(f"{process.pid}/{process.start_ticks}".encode("ascii"), key=self._salt, digest_size=8)
            regions = int.from_bytes(digest.digest(), "big") % _REGIONS
            known = self._shifts[process] = (near_pattern(regions) if self._keep_pattern else regions) * REGION_BYTES
        return known

    def _number_new(self, process: ProcessId) -> int:
        if process.pid == self._own_pid:
            return OWN_NUMBER
        at = bisect_left(self._sorted, process)
        insort(self._sorted, process)
        if at == len(self._sorted) - 1:
            self._last_number += _STRIDE
            return self._last_number
        above = self._numbers[self._sorted[at + 1]]
        below = self._numbers[self._sorted[at - 1]] if at else OWN_NUMBER
        if above - below > 1:
            return (above + below) // 2
        self._sorted.remove(process)  # no room is left between the two: it is numbered behind all others
        self._last_spare += 1
        return self._last_spare


def near_pattern(regions: int) -> int:
    """Return the next larger shift, by less than 2**18 regions, that hardly turns the pattern of interleaving.

    Steps of Fibonacci numbers turn it less and less, forth and back (Knuth, TAOCP 3, 6.4).
    """
    turned = _signed(regions * _STEP)
    step, following = 1, 2
    while abs(turned) > _CLOSE:
        while abs(turned + _signed(step * _STEP)) < abs(turned):
            regions += step
            turned += _signed(step * _STEP)
        step, following = following, step + following
    return regions


def _signed(turn: int) -> int:
    """Return a turn of the circle as the shorter way round."""
    turn %= _CIRCLE
    return turn - _CIRCLE if turn > _CIRCLE // 2 else turn
