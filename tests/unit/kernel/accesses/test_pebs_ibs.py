"""Which events are asked for on which machine, and what is said where they cannot be had."""

import errno
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

import pytest

from balancerd import native
from balancerd.kernel.accesses import ibs, pebs
from balancerd.kernel.accesses.pmu import DEVICES
from balancerd.kernel.accesses.pmu_source import openable
from balancerd.model.access import Obstacle
from balancerd.native import MemoryEvent
from tests.unit.kernel.accesses import pmu_trees
from tests.unit.kernel.trees import write_tree

Tree = Mapping[str, str]


def event(
    config: int, *, latency: int = 0, pmu_type: int = 4, precise: int = 2, is_stores: bool = False
) -> MemoryEvent:
    return MemoryEvent(pmu_type=pmu_type, configs=(config, latency, 0), precise=precise, is_stores=is_stores)


AUXILIARY = MemoryEvent(pmu_type=4, configs=(0x8203, 0, 0), is_auxiliary=True)
GLC = (AUXILIARY, event(0x1CD, latency=64), event(0x2CD, is_stores=True))


@pytest.mark.parametrize(
    ("module", "tree", "expected"),
    [
        pytest.param(pebs, pmu_trees.SKYLAKE, (event(0x1CD, latency=64), event(0x82D0, is_stores=True)), id="Skylake"),
        pytest.param(pebs, pmu_trees.SAPPHIRE_RAPIDS, GLC, id="Sapphire Rapids: loads behind the auxiliary event"),
        pytest.param(
            pebs,
            pmu_trees.ALDER_LAKE,
            (
                *GLC,
                event(0x5D0, latency=64, pmu_type=10),
                event(0x6D0, pmu_type=10, is_stores=True),
            ),
            id="Alder Lake: both sorts of cores",
        ),
        pytest.param(pebs, pmu_trees.WITHOUT_PEBS, (), id="a virtual PMU without PEBS"),
        pytest.param(pebs, pmu_trees.ZEN_3, (), id="AMD has no mem-loads"),
        pytest.param(ibs, pmu_trees.ZEN_1, (event(0, pmu_type=9, precise=0),), id="Zen 1: counts cycles"),
        pytest.param(ibs, pmu_trees.ZEN_3, (event(1 << 19, pmu_type=9, precise=0),), id="Zen 3: counts instructions"),
        pytest.param(
            ibs,
            pmu_trees.ZEN_4,
            (event(1 << 19 | 1 << 16, pmu_type=11, precise=0),),
            id="Zen 4: leaves out what caches answer",
        ),
        pytest.param(ibs, pmu_trees.SKYLAKE, (), id="Intel has no ibs_op"),
    ],
)
def test_the_events_of_a_machine(
    tmp_path: Path, module: ModuleType, tree: Tree, expected: tuple[MemoryEvent, ...]
) -> None:
    assert module.find_events(write_tree(tmp_path, tree)) == expected


@pytest.mark.parametrize(("offered", "asked"), [("1\n", 1), ("2\n", 2), ("3\n", 2), (None, 2)])
def test_no_more_precision_than_there_is(tmp_path: Path, offered: str | None, asked: int) -> None:
    path = f"{DEVICES}/cpu/caps/max_precise"
    tree = {name: text for name, text in pmu_trees.SKYLAKE.items() if name != path}
    write_tree(tmp_path, tree if offered is None else {**tree, path: offered})
    assert {each.precise for each in pebs.find_events(tmp_path)} == {asked}


@pytest.mark.parametrize(
    ("tree", "least"), [(pmu_trees.ZEN_3, ibs.OPS.least), (pmu_trees.ZEN_4, ibs.MISSES.least), ({}, ibs.OPS.least)]
)
def test_where_the_cpu_filters_the_period_may_be_shorter(tmp_path: Path, tree: Tree, least: int) -> None:
    assert ibs.find_bounds(write_tree(tmp_path, tree)).least == least


def without(tree: Tree, *parts: str) -> dict[str, str]:
    return {name: text for name, text in tree.items() if not any(part in name for part in parts)}


@pytest.mark.parametrize(
    ("module", "tree", "seen", "fix"),
    [
        (
            pebs,
            pmu_trees.AMD_GUEST,
            "only Intel's CPUs have PEBS, and this one is of AuthenticAMD",
            "name ibs in place",
        ),
        (pebs, pmu_trees.ZEN_4, "only Intel's CPUs have PEBS, and this one is of AuthenticAMD", "name ibs in place"),
        (pebs, pmu_trees.ARM, "this one is of no x86 kind", "none: take pebs out of accesses.sources"),
        (pebs, {}, "this one is of no x86 kind", "none: take pebs out of accesses.sources"),
        (pebs, pmu_trees.INTEL_GUEST, "there is no PMU: neither of cpu, cpu_core, cpu_atom", "QEMU: -cpu host,pmu=on"),
        (pebs, pmu_trees.INTEL, "there is no PMU: neither of cpu, cpu_core, cpu_atom", "dmesg | grep -i pebs"),
        (pebs, pmu_trees.WITHOUT_PEBS, "no PEBS: 0 in /sys/bus/event_source/devices/cpu/caps/max_precise", "libvirt"),
        (
            pebs,
            without(pmu_trees.ALDER_LAKE, "mem-loads"),
            "there is no /sys/bus/event_source/devices/cpu_core/events/mem-loads",
            "dmesg | grep -i pebs",
        ),
        (ibs, pmu_trees.SKYLAKE, "only AMD's CPUs have IBS, and this one is of GenuineIntel", "name pebs in place"),
        (ibs, pmu_trees.ARM, "this one is of no x86 kind", "none: take ibs out of accesses.sources"),
        (ibs, pmu_trees.AMD_GUEST, "hypervisors do not pass IBS on", "run balancerd on the host"),
        (ibs, without(pmu_trees.ZEN_3, "ibs_op"), "though the CPU has IBS", "CONFIG_CPU_SUP_AMD=y"),
        (
            ibs,
            pmu_trees.cpuinfo("AuthenticAMD", "perfctr_core"),
            "there is no ibs_op in /sys/bus/event_source/devices, and no ibs among the flags",
            "firmware's setup",
        ),
    ],
)
def test_what_is_missing_is_told_with_the_exact_fix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: ModuleType, tree: Tree, seen: str, fix: str
) -> None:
    monkeypatch.setattr(native, "probe", lambda *_args, **_options: pytest.fail("there is nothing to try"))
    found = module.find_obstacle(write_tree(tmp_path, tree))
    assert found is not None
    assert seen in found.seen
    assert fix in found.fix


Probe = Callable[..., None]


def refusing(
    number: int, *, only_with_stores: bool = False, tried: list[tuple[MemoryEvent, ...]] | None = None
) -> Probe:
    def probe(kind: native.PerfKind, *, events: tuple[MemoryEvent, ...]) -> None:
        assert kind is native.PerfKind.MEMORY
        if tried is not None:
            tried.append(events)
        if not only_with_stores or any(each.is_stores for each in events):
            raise OSError(number, os.strerror(number))

    return probe


@pytest.mark.parametrize(
    ("module", "tree", "number", "seen", "fix"),
    [
        (pebs, pmu_trees.SKYLAKE, errno.EACCES, "kernel.perf_event_paranoid=2 without CAP_PERFMON", "CAP_PERFMON"),
        (ibs, pmu_trees.ZEN_4, errno.EACCES, "kernel.perf_event_paranoid=2 without CAP_PERFMON", "CAP_PERFMON"),
        (pebs, pmu_trees.SKYLAKE, errno.ENOSYS, "ENOSYS", "CONFIG_PERF_EVENTS=y"),
        (pebs, pmu_trees.SAPPHIRE_RAPIDS, errno.ENODATA, "of mem-loads: ENODATA", "dmesg | grep -i pebs"),
        (
            pebs,
            {**pmu_trees.SKYLAKE, **pmu_trees.INTEL_GUEST},
            errno.EOPNOTSUPP,
            "of mem-loads: ENOTSUP (Operation not supported)",
            "host,pmu=on",
        ),
        (ibs, pmu_trees.ZEN_3, errno.EINVAL, "it cannot watch single threads", "boot Linux 6.2 or newer"),
        (ibs, pmu_trees.ZEN_3, errno.EBUSY, "of ibs_op: EBUSY", "dmesg | grep -i ibs"),
    ],
)
def test_events_that_cannot_be_opened_are_told_with_the_exact_fix(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: ModuleType,
    tree: Tree,
    number: int,
    seen: str,
    fix: str,
) -> None:
    monkeypatch.setattr(native, "probe", refusing(number))
    monkeypatch.setattr(os, "geteuid", lambda: 998)
    status = {"proc/self/status": "CapEff:\t0000000000000000\n", "proc/sys/kernel/perf_event_paranoid": "2\n"}
    found = module.find_obstacle(write_tree(tmp_path, {**tree, **status}))
    assert found is not None
    assert seen in found.seen
    assert fix in found.fix


@pytest.mark.parametrize(("module", "tree"), [(pebs, pmu_trees.SAPPHIRE_RAPIDS), (ibs, pmu_trees.ZEN_4)])
def test_events_that_open_are_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: ModuleType, tree: Tree
) -> None:
    monkeypatch.setattr(native, "probe", lambda *_args, **_options: None)
    write_tree(tmp_path, tree)
    assert module.find_obstacle(tmp_path) is None
    assert module.look(tmp_path) == module.find_events(tmp_path)


def test_loads_are_sampled_where_stores_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[tuple[MemoryEvent, ...]] = []
    monkeypatch.setattr(native, "probe", refusing(errno.EINVAL, only_with_stores=True, tried=tried))
    assert openable(GLC) == GLC[:2]
    assert tried == [GLC, GLC[:2]]


def test_where_loads_cannot_be_sampled_they_are_tried_once_more_without_stores(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[tuple[MemoryEvent, ...]] = []
    monkeypatch.setattr(native, "probe", refusing(errno.ENODATA, tried=tried))
    with pytest.raises(OSError, match="No data available"):
        openable(GLC)
    with pytest.raises(OSError, match="No data available"):
        openable(GLC[:2])
    assert tried == [GLC, GLC[:2], GLC[:2]]


@pytest.mark.parametrize("module", [pebs, ibs])
def test_the_probe_says_of_this_machine_what_its_files_say(module: ModuleType) -> None:
    found = module.find_obstacle()
    names = pebs.NAMES if module is pebs else (ibs.NAME,)
    is_offered = any((Path("/") / DEVICES / name / "type").exists() for name in names)
    vendor = "GenuineIntel" if module is pebs else "AuthenticAMD"
    is_of_vendor = vendor in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    if not (is_offered and is_of_vendor):
        assert isinstance(found, Obstacle)
        assert ("there is no" if is_of_vendor else "only ") in found.seen
        assert found.fix
