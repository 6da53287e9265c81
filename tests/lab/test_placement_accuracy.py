"""Estimated placements against a kernel with several nodes: random ones, with huge pages and holes, and hugetlb pages.

Inside the guest. The truth comes from numa_maps, never from move_pages. `random_placement` runs in a child, which makes
one placement after another and stands still in between.
"""

import ctypes
import math
import mmap
import os
import random
import re
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from balancerd import native
from balancerd.kernel.clock import MonotonicClock
from balancerd.kernel.placement.reader import PlacementReader
from balancerd.kernel.processes.identity import read_start_ticks
from balancerd.model.ids import NodeId, ProcessId, parse_id_list
from balancerd.model.placement_method import PlacementMethod
from balancerd.model.sample import VmaKind
from tests.lab.native_targets import (
    HUGE,
    MADV_HUGEPAGE,
    MADV_NOHUGEPAGE,
    MAP_HUGETLB,
    MAP_NORESERVE,
    MIB,
    PAGE,
    SET_MEMPOLICY,
    bind_new_pages_to,
    child,
    fill,
    huge_page_pool,
    libc,
    map_aligned,
)

MADV_POPULATE_WRITE = 23  # include/uapi/asm-generic/mman-common.h
MPOL_INTERLEAVE = 3
PLACEMENTS = 67  # on each of three machines: two hundred in all
SAMPLES = 2048


def online_nodes() -> list[int]:
    return sorted(parse_id_list(Path("/sys/devices/system/node/has_memory").read_text()))


def populate(address: int, length: int) -> None:
    assert libc.madvise(address, length, MADV_POPULATE_WRITE) == 0, os.strerror(ctypes.get_errno())


def interleave_new_pages() -> None:
    mask = ctypes.c_ulong(sum(1 << node for node in online_nodes()))
    assert libc.syscall(SET_MEMPOLICY, MPOL_INTERLEAVE, ctypes.byref(mask), 64) == 0


def random_placement(chance: random.Random) -> list[tuple[int, int]]:
    """Mappings of 16 to 40 MiB in all; their addresses and lengths."""
    nodes = online_nodes()
    weights = [chance.expovariate(1) ** chance.choice([1, 3]) + 1e-3 for _ in nodes]
    left = chance.randrange(8, 20) * HUGE
    mappings = []
    while left > 0:
        length = min(left, chance.choice([1, 1, 2, 4, 8]) * HUGE)
        left -= length
        address = map_aligned(length)
        mappings.append((address, length))
        is_huge = chance.random() < 0.4
        libc.madvise(address, length, MADV_HUGEPAGE if is_huge else MADV_NOHUGEPAGE)
        if chance.random() < 0.2:
            interleave_new_pages()
            populate(address, length)
            continue
        present_ratio = chance.choice([1.0, 1.0, 0.5, 0.1])
        run_pages = 512 if is_huge else chance.choice([16, 64, 300, 1000])
        at = 0
        while at < length:
            run = min(length - at, PAGE * (run_pages if is_huge else chance.randrange(1, 2 * run_pages)))
            if chance.random() < present_ratio:
                bind_new_pages_to(chance.choices(nodes, weights)[0])
                populate(address + at, run)
            at += run
    bind_new_pages_to(None)
    if chance.random() < 0.3:  # a reservation that nobody touches
        length = 1 << chance.randrange(30, 41)
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
        mappings.append((int(libc.mmap(None, length, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0)), length))
    return mappings


@contextmanager
def placements(count: int) -> Iterator[tuple[ProcessId, Iterator[int]]]:
    """A child, and its placements, made one by one as the iterator goes on."""
    command_read, command_write = os.pipe()
    answer_read, answer_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            mappings: list[tuple[int, int]] = []
            while command := os.read(command_read, 16):
                for address, length in mappings:
                    libc.munmap(ctypes.c_void_p(address), ctypes.c_size_t(length))
                mappings = random_placement(random.Random(int(command)))  # noqa: S311 the same in every run
                os.write(answer_write, b"made\n")
        finally:
            os._exit(1)

    def made() -> Iterator[int]:
        for number in range(count):
            os.write(command_write, b"%d\n" % number)
            assert os.read(answer_read, 16) == b"made\n", "the child failed: see its standard error"
            yield number

    os.close(answer_write)
    os.close(command_read)
    try:
        yield ProcessId(pid, read_start_ticks(pid)), made()
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(command_write)
        os.close(answer_read)


def pages_by_node(pid: int) -> dict[int, int]:
    """Base pages of a process on each node, as numa_maps counts them."""
    pages: dict[int, int] = {}
    for line in Path(f"/proc/{pid}/numa_maps").read_text().splitlines():
        size = re.search(r"kernelpagesize_kB=(\d+)", line)
        for node, count in re.findall(r" N(\d+)=(\d+)", line):
            pages[int(node)] = pages.get(int(node), 0) + int(count) * (int(size[1]) // 4 if size else 1)
    return pages


def assert_exact_is_true(reader: PlacementReader, process: ProcessId, *, n_nodes: int) -> None:
    """Every page asked is what numa_maps counts; tried again, as khugepaged may bring pages together in between."""
    tries = 5
    while True:
        truth = pages_by_node(process.pid)
        exact = reader.read(process, n_nodes=n_nodes, rss_bytes=sum(truth.values()) * PAGE, exact=True)
        assert exact.exact
        expected = {node: pages * PAGE for node, pages in sorted(truth.items()) if pages}
        tries -= 1
        if exact.bytes_by_node == expected or not tries:
            break
    assert exact.bytes_by_node == expected


@pytest.mark.topology("two-nodes", "four-nodes")
@pytest.mark.timeout(300)
def test_intervals_hold_the_truth_and_errors_are_small_over_random_placements() -> None:
    n_nodes = max(online_nodes()) + 1
    chance = random.Random(1)  # noqa: S311 the same in every run
    clock = MonotonicClock()
    reader = PlacementReader(native, clock, chance=chance.random, samples=SAMPLES)
    inside, errors = [], []
    with placements(PLACEMENTS) as (process, made):
        for number in made:
            truth = pages_by_node(process.pid)
            present = sum(truth.values())
            sample = reader.read(process, n_nodes=n_nodes, rss_bytes=present * PAGE)
            assert sample.method is PlacementMethod.SAMPLE
            assert sample.queried_pages <= 8 * SAMPLES
            total = sum(sample.bytes_by_node.values())
            for node, pages in truth.items():
                share, interval = pages / present, sample.intervals[NodeId(node)]
                inside.append(interval.low <= share <= interval.high)
                errors.append(abs(sample.bytes_by_node.get(NodeId(node), 0) / total - share))
            if number % 10 == 0:
                assert_exact_is_true(reader, process, n_nodes=n_nodes)
    clock.close()
    covered, errors = statistics.mean(inside), sorted(errors)
    tail = errors[math.ceil(0.95 * len(errors)) - 1]
    rms = math.sqrt(statistics.mean(error * error for error in errors))
    print(f"{n_nodes} nodes: {len(inside)} shares, {sum(inside)} inside, 95 % error {tail:.4f}, rms {rms:.4f}")
    # shares of one placement err together, so there are as many cases as placements: three standard deviations
    assert covered >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / PLACEMENTS)
    assert tail <= 0.015
    assert rms <= 0.011


def test_a_process_at_home_is_recognised_by_few_pages_and_elsewhere_it_is_sampled() -> None:
    code = (
        "import mmap, sys\n"
        "area = mmap.mmap(-1, 64 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)\n"
        f"area.madvise({MADV_NOHUGEPAGE})\narea.madvise({MADV_POPULATE_WRITE})\n"
        "print('ready', flush=True)\nsys.stdin.read()\n"
    )
    argv = ["numactl", "--membind=2", sys.executable, "-ISE", "-c", code]
    clock = MonotonicClock()
    reader = PlacementReader(native, clock)
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as target:
        assert target.stdout is not None
        assert target.stdout.readline() == "ready\n"
        process = ProcessId(target.pid, read_start_ticks(target.pid))
        rss_bytes = sum(pages_by_node(target.pid).values()) * PAGE
        at_home = reader.read(process, n_nodes=4, rss_bytes=rss_bytes, home=NodeId(2))
        elsewhere = reader.read(process, n_nodes=4, rss_bytes=rss_bytes, home=NodeId(1))
        target.communicate()
    clock.close()
    assert (at_home.method, elsewhere.method) == (PlacementMethod.TEST, PlacementMethod.SAMPLE)
    assert at_home.queried_pages <= 200
    share = elsewhere.bytes_by_node[NodeId(2)] / sum(elsewhere.bytes_by_node.values())
    assert at_home.intervals[NodeId(2)].low <= share <= at_home.intervals[NodeId(2)].high


def test_hugetlb_pages_are_asked_once_each_and_told_exactly() -> None:
    pools = [huge_page_pool(node) for node in (0, 2)]

    def hugetlb_pages(length: int) -> int:
        address = map_aligned(length, MAP_HUGETLB)
        fill(address, length // 2, node=0)
        fill(address + length // 2, length // 4, node=2)
        fill(address, PAGE)  # what the caller sums is there already
        return address

    clock = MonotonicClock()
    try:
        for pool in pools:
            pool.write_text("8")
            assert pool.read_text() == "8\n"
        with child(16 * MIB, hugetlb_pages) as target:
            process = ProcessId(target.pid, read_start_ticks(target.pid))
            reader = PlacementReader(native, clock)
            sample = reader.read(process, n_nodes=4, rss_bytes=1 << 40)
            counted = reader.read(process, n_nodes=4, rss_bytes=1 << 40, read_mempolicies=True)
        expected = {0: 8 * MIB, 2: 8 * MIB}  # summing touches the last quarter, on the node where the child ran
        assert sum(sample.bytes_by_kind[VmaKind.HUGETLB].values()) == sum(expected.values())
        assert sample.bytes_by_kind[VmaKind.HUGETLB] == counted.bytes_by_kind[VmaKind.HUGETLB]
        assert counted.method is PlacementMethod.NUMA_MAPS
    finally:
        clock.close()
        for pool in pools:
            pool.write_text("0")
