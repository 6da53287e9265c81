"""The oracle counts what is known: patterns of accesses, page copies, on the right CPU, node and page, all the time."""

import ctypes
import itertools
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.lab import oracle, topology
from tests.lab.conftest import MachinePool
from tests.lab.machine import Machine, Options
from tests.lab.oracle import OracleOptions
from tests.lab.oracle.counters import PAGE_BYTES, Counters, Counts, Reading, difference, read_counters
from tests.lab.state import LabError
from tests.lab.topology import TopologyError

pytestmark = pytest.mark.host

FOUR_NODES = topology.load("four-nodes")
MIB = 1 << 20
LINE_BYTES = 64
PATTERN_BYTES, PASSES = 8 * MIB, 16
N_LINES = PATTERN_BYTES // LINE_BYTES * PASSES
N_PAGES = PATTERN_BYTES // PAGE_BYTES
TOLERANCE = 0.001
PYTHON_MARKER = 99
INTERVAL_SECONDS = 0.02
# Debian's kernel zeroes each page that it hands out, and a batch of targets is zeroed long before it is copied to.
NO_ZEROING = "init_on_alloc=0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """One run of patterns.c: on `cpu`, in memory of `node` and then of `other`; its first marker."""

    first: int
    cpu: int
    node: int
    other: int


LEAVES_HOME = Pattern(first=10, cpu=0, node=0, other=3)
COMES_HOME = Pattern(first=20, cpu=2, node=1, other=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What the oracle wrote, and the address of each pattern's memory by its first marker."""

    counters: Counters
    addresses: dict[int, int]

    def between(self, a: int, b: int) -> Reading:
        first, second = self.counters.mark(a), self.counters.mark(b)
        assert first is not None
        assert second is not None
        return difference(first, second)


@pytest.fixture(scope="module")
def observed(machine_pool: MachinePool) -> Observed:
    """Both patterns in one boot; the machine is gone when the tests look at what it left."""
    machine_pool.shutdown()
    counting = OracleOptions(has_pages=True, interval_ms=round(INTERVAL_SECONDS * 1000))
    machine = Machine(FOUR_NODES, options=Options(oracle=counting, kernel_arguments=NO_ZEROING))
    program = oracle.build_patterns(machine.lab.root / "bin")
    addresses = {}
    with machine:
        for it in (LEAVES_HOME, COMES_HOME):
            numbers = (it.first, it.cpu, it.node, it.other, PATTERN_BYTES // MIB, PASSES)
            ended = machine.run([program, *map(str, numbers)])
            assert (ended.exit_status, ended.stderr) == (0, b"")
            addresses[it.first] = int(ended.stdout, 16)
        script = f"from tests.lab.oracle import mark; mark({PYTHON_MARKER})"
        assert machine.run([sys.executable, "-c", script]).exit_status == 0
    return Observed(counters=read_counters(machine.counters), addresses=addresses)


def expected_on(node: int, n: int) -> pytest.approx:  # type: ignore[valid-type]
    """Nearly all accesses on one node, nearly nothing on the others: both to a thousandth of `n`."""
    return pytest.approx([n if it == node else 0 for it in FOUR_NODES.node_ids], abs=TOLERANCE * n)


@pytest.mark.parametrize(
    ("pattern", "step", "node", "is_write"),
    [
        pytest.param(LEAVES_HOME, 0, 0, False, id="local reads"),
        pytest.param(LEAVES_HOME, 2, 3, False, id="remote reads after the move"),
        pytest.param(LEAVES_HOME, 3, 3, True, id="remote writes after the move"),
        pytest.param(COMES_HOME, 0, 1, False, id="remote reads"),
        pytest.param(COMES_HOME, 2, 2, False, id="local reads after the move"),
        pytest.param(COMES_HOME, 3, 2, True, id="local writes after the move"),
    ],
)
def test_a_known_pattern_is_counted_to_the_thousandth(
    observed: Observed, pattern: Pattern, step: int, node: int, is_write: bool
) -> None:
    marker = pattern.first + step
    user = observed.between(marker, marker + 1).counts[pattern.cpu, False]
    expected, nothing = expected_on(node, N_LINES), pytest.approx([0] * 4, abs=TOLERANCE * N_LINES)
    assert user.writes_by_node == (expected if is_write else nothing)
    assert user.reads_by_node == (nothing if is_write else expected)
    assert user.accesses == pytest.approx(N_LINES, rel=0.01)
    assert user.unknown == user.io == 0


@pytest.mark.parametrize("pattern", [LEAVES_HOME, COMES_HOME])
def test_a_page_copy_is_a_page_of_reads_and_a_page_of_writes_in_the_kernel(
    observed: Observed, pattern: Pattern
) -> None:
    kernel = observed.between(pattern.first + 1, pattern.first + 2).counts[pattern.cpu, True]
    copied = PATTERN_BYTES // LINE_BYTES
    assert kernel.reads_by_node[pattern.node] == pytest.approx(copied, rel=0.1)
    assert kernel.writes_by_node[pattern.other] == pytest.approx(copied, rel=0.1)


def test_the_kernel_does_not_copy_byte_by_byte(observed: Observed) -> None:
    kernel = observed.between(LEAVES_HOME.first + 1, LEAVES_HOME.first + 2).counts[LEAVES_HOME.cpu, True]
    assert kernel.accesses < PATTERN_BYTES  # by the byte it is twice that


@pytest.mark.parametrize("pattern", [LEAVES_HOME, COMES_HOME])
def test_accesses_are_counted_on_the_cpu_that_made_them(observed: Observed, pattern: Pattern) -> None:
    between = observed.between(pattern.first + 2, pattern.first + 3)
    others = [counts for (cpu, is_kernel), counts in between.counts.items() if cpu != pattern.cpu and not is_kernel]
    assert len(others) == 3
    assert sum(sum(it.reads_by_node) + sum(it.writes_by_node) for it in others) < 0.01 * N_LINES


def flat(counts: Counts) -> list[int]:
    return [counts.accesses, counts.lookups, *counts.reads_by_node, *counts.writes_by_node]


def test_the_time_series_leads_from_the_first_marker_to_the_last(observed: Observed) -> None:
    readings = observed.counters.readings
    first, last = observed.counters.mark(LEAVES_HOME.first), observed.counters.mark(LEAVES_HOME.first + 4)
    assert first is not None
    assert last is not None
    part = readings[readings.index(first) : readings.index(last) + 1]
    n_ticks = sum(it.kind == "tick" for it in part)
    assert n_ticks == pytest.approx((last.at_seconds - first.at_seconds) / INTERVAL_SECONDS, abs=2)
    assert n_ticks > 0
    source = LEAVES_HOME.cpu, False
    steps = [difference(a, b).counts[source] for a, b in itertools.pairwise(part)]
    assert all(n >= 0 for step in steps for n in flat(step))
    assert [sum(column) for column in zip(*map(flat, steps), strict=True)] == flat(
        difference(first, last).counts[source]
    )
    assert any(0 < step.reads_by_node[LEAVES_HOME.node] < N_LINES for step in steps)


@pytest.mark.parametrize("pattern", [LEAVES_HOME, COMES_HOME])
def test_pages_are_counted_by_the_node_of_the_cpu_wherever_they_are(observed: Observed, pattern: Pattern) -> None:
    start = observed.addresses[pattern.first]
    between = observed.between(pattern.first + 2, pattern.first + 3)
    assert between.pages_lost == 0
    pages = {at: n for at, n in between.pages.items() if start <= at < start + PATTERN_BYTES}
    assert len(pages) == N_PAGES
    whole = PAGE_BYTES // LINE_BYTES * PASSES
    on_cpu = expected_on(FOUR_NODES.nodes[pattern.cpu].id, whole * N_PAGES)
    assert [sum(column) for column in zip(*pages.values(), strict=True)] == on_cpu
    assert min(n[pattern.cpu] for n in pages.values()) > 0.9 * whole


def test_a_file_says_what_machine_it_is_of_and_ends_with_the_machine(observed: Observed) -> None:
    header = observed.counters.header
    assert (header.node_of_cpu, header.distances) == ((0, 1, 2, 3), FOUR_NODES.distances)
    assert (header.l1_kib, header.llc_kib) == (32, 1024)
    assert observed.counters.readings[-1].kind == "exit"
    assert not observed.counters.is_cut


def test_python_marks_as_c_does(observed: Observed) -> None:
    marks = [it.number for it in observed.counters.readings if it.kind == "mark"]
    firsts = (LEAVES_HOME.first, COMES_HOME.first)
    assert marks == [*(first + step for first in firsts for step in range(5)), PYTHON_MARKER]


# Without a machine


def test_a_marker_without_the_plugin_does_nothing() -> None:
    oracle.mark(1)
    with pytest.raises(ValueError, match="0 to 65535"):
        oracle.mark(1 << 16)


@pytest.mark.parametrize(
    ("release", "number"), [((6, 0), 1), ((7, 2), 1), ((8, 2), 1), ((9, 0), 2), ((9, 1), 3), ((10, 0), 3)]
)
def test_the_plugin_says_the_interface_that_qemu_takes(release: tuple[int, int], number: int) -> None:
    assert oracle.api_number(release) == number


def test_a_qemu_before_plugins_is_refused() -> None:
    with pytest.raises(LabError, match=r"QEMU 5\.2"):
        oracle.api_number((5, 2))


def words(name: str) -> dict[str, str]:
    text = oracle.arguments(topology.load(name), Path("/a,b.so"), Path("/out"), OracleOptions(llc_kib=0))
    assert text.startswith("file=/a,,b.so,out=/out,")
    return dict(word.split("=") for word in text.split(",") if "=" in word)


def test_the_plugin_is_told_the_topology() -> None:
    tier = words("memory-only-tier")
    assert (tier["cpus"], tier["mem"], tier["low"]) == ("0.1", "768.768.1024", "2560")
    assert (tier["distances"], tier["l1"], tier["llc"]) == ("10.20.40.20.10.60.40.60.10", "32", "0")
    assert words("four-nodes")["low"] == "2048"


@pytest.mark.parametrize(("name", "what"), [("sparse-nodes", "gaps"), ("removable-node", "DIMMs")])
def test_memory_that_lies_in_other_ways_is_refused(name: str, what: str) -> None:
    with pytest.raises(TopologyError, match=what):
        words(name)


def test_what_was_compiled_is_taken_again(tmp_path: Path) -> None:
    first = oracle.build(tmp_path)
    made = first.stat().st_mtime_ns
    assert oracle.build(tmp_path) == first
    assert first.stat().st_mtime_ns == made
    assert list(tmp_path.iterdir()) == [first]


# memory.c beside a QEMU of our own, since only one is installed: word 1 is what memory_word() reads, word 2 the address
FAKE_QEMU = """
#include "memory.h"
uint64_t qemu_plugin_hwaddr_phys_addr(const struct qemu_plugin_hwaddr *where) { return ((const uint64_t *)where)[2]; }
struct memory memory;
void lay_out(const uint64_t *bytes, unsigned int n, uint64_t low) { memory_lay_out(bytes, n, low, &memory); }
long find(uint64_t word, uint64_t address, int is_quick, uint64_t *offset)
{
	uint64_t where[] = { 0, word, address };
	unsigned int hint = 0;
	struct range *range;

	if (is_quick)
		range = memory_find_quickly(&memory, (void *)where, &hint, offset);
	else
		range = memory_find(&memory, (void *)where, offset);
	*offset += range ? (range->first_line << 6) : 0;
	return range ? (long)range->node : -1;
}
"""


class FakeQemu:
    """memory.c with three nodes of 1 GiB; places are (node, offset in all memory), or None."""

    def __init__(self, folder: Path) -> None:
        source, library = folder / "fake.c", folder / "fake.so"
        source.write_text(FAKE_QEMU)
        files = [str(source), str(oracle.SOURCES / "memory.c"), "-I", str(oracle.SOURCES)]
        subprocess.run(
            ["gcc", *oracle.FLAGS, *oracle.PLUGIN_FLAGS[:2], "-DORACLE_API=1", "-o", library, *files], check=True
        )
        self._library = ctypes.CDLL(str(library))
        self._library.find.restype = ctypes.c_long
        self._library.lay_out((ctypes.c_uint64 * 3)(*[1 << 30] * 3), 3, ctypes.c_uint64(2 << 30))

    def find(self, word: int, address: int = 0, *, is_quick: bool = False) -> tuple[int, int] | None:
        offset = ctypes.c_uint64()
        words = ctypes.c_uint64(word), ctypes.c_uint64(address)
        node = self._library.find(*words, int(is_quick), ctypes.byref(offset))
        return None if node < 0 else (node, offset.value)


GIB = 1 << 30


@pytest.mark.parametrize(
    ("address", "place"),
    [
        (5, (0, 5)),
        (2 * GIB - 1, (1, 2 * GIB - 1)),
        (2 * GIB, None),
        (4 * GIB - 1, None),
        (4 * GIB + 7, (2, 2 * GIB + 7)),
        (5 * GIB, None),
    ],
)
def test_a_guest_physical_address_is_found_on_either_side_of_the_hole(
    tmp_path: Path, address: int, place: tuple[int, int] | None
) -> None:
    qemu = FakeQemu(tmp_path)
    assert qemu.find(address, address) == place
    assert qemu.find(address, is_quick=True) is None


def test_where_memory_lies_on_the_host_is_learned_from_two_accesses_far_apart(tmp_path: Path) -> None:
    qemu = FakeQemu(tmp_path)
    host, rom, node_1 = 0x7F0000000000, 0x7E0000000000, 2 * GIB  # before QEMU 8.2 a node is at twice its offset
    assert qemu.find(rom, node_1 + MIB) == (1, GIB + MIB)  # looks like node 1, and stays alone
    assert qemu.find(host, node_1) == (1, GIB)
    assert qemu.find(host + 4096, node_1 + 4096) == (1, GIB + 4096)
    assert qemu.find(host + 8192, is_quick=True) is None
    assert qemu.find(host + 2 * MIB, node_1 + 2 * MIB) == (1, GIB + 2 * MIB)
    assert qemu.find(host + 8192, is_quick=True) == (1, GIB + 8192)
    assert qemu.find(host + GIB, is_quick=True) is None
    assert qemu.find(rom, is_quick=True) is None
