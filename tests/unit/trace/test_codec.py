"""Records as JSON: what comes back is what went in, under other names; and no text gets out that nobody has judged."""

import dataclasses
import json
import typing
from dataclasses import replace
from typing import Any

import pytest

from balancerd.model.access import Accesses, AccessMethod, AccessWindow, Obstacle
from balancerd.model.decision import Reason, Skip
from balancerd.model.extent import Extent
from balancerd.model.heat import HeatMethod, HeatRegion, Heats, HeatWindow
from balancerd.model.ids import ProcessId
from balancerd.model.interval import Interval
from balancerd.model.machine import Device, HugetlbPool, Link, Machine, NodeState
from balancerd.model.manager import Manager, ManagerFinding
from balancerd.model.migration import (
    EvictionOutcome,
    EvictionStep,
    MigrationOutcome,
    MigrationStep,
    Range,
    RunsNow,
    VerifyRequest,
)
from balancerd.model.page_status import PageStatus
from balancerd.model.placement_method import PlacementMethod
from balancerd.model.sample import Mempolicy, PlacementSample, SampleRequest, Sampling, Survey, VmaKind, VmaPlacement
from balancerd.model.steering import SteerOutcome, SteerStep
from balancerd.ports import SurveyScope
from balancerd.trace.cloak import Cloak
from balancerd.trace.codec import ADDRESSES, OMITTED, PLAIN, coder_of, decode, decode_fields, encode
from tests.unit.fakes import (
    N0,
    N2,
    VMA_START,
    make_access_run,
    make_access_window,
    make_process,
    make_region,
    make_run,
    make_survey,
    make_verified,
    make_vma,
)
from tests.unit.reports import an_outcome

PID = ProcessId(100, 1)
SHIFTLESS = 0
KINDS: tuple[type, ...] = (
    *(Survey, SurveyScope, Sampling, SampleRequest, VerifyRequest, RunsNow, Skip, Accesses, Heats),
    *(MigrationStep, MigrationOutcome, EvictionStep, EvictionOutcome, SteerStep, SteerOutcome),
)


class Clear(Cloak):
    """A cloak that hides nothing, so that what comes back can be compared."""

    def __init__(self) -> None:
        super().__init__(salt=b"", own_pid=0, patterns={})

    def name(self, text: str) -> str:
        return text

    def user(self, uid: int) -> int:
        return uid

    def number(self, process: ProcessId) -> int:
        return process.pid

    def shift_bytes(self, process: ProcessId) -> int:
        del process
        return SHIFTLESS


def there_and_back(record: Any, cloak: Cloak | None = None) -> Any:
    written = json.dumps(encode(record, cloak or Clear()))
    return decode(type(record), json.loads(written))


def a_machine() -> Machine:
    state = NodeState(
        node=N0,
        load_ratio=0.5,
        free_blocks=(1, 2, 3),
        low_watermark_bytes=4096,
        link=Link(
            read_latency_seconds=1e-7,
            write_latency_seconds=None,
            read_bytes_per_second=1e10,
            write_bytes_per_second=None,
            initiators=frozenset({N0, N2}),
        ),
        tier=4,
        hugetlb=(HugetlbPool(page_bytes=1 << 21, total_pages=3, free_pages=1),),
    )
    return Machine(
        nodes={N0: state},
        devices=(Device(kind="nvme", name="nvme0", node=N0),),
        numa_balancing=1,
        demotion=False,
        transparent_huge_pages="madvise",
    )


def a_placement() -> PlacementSample:
    vma = make_vma(8, kind=VmaKind.HEAP, name="[heap]", mempolicy=Mempolicy(mode="bind", nodes=frozenset({N2})))
    return PlacementSample(
        process=PID,
        taken_at=1.1,
        vmas=(VmaPlacement(vma=vma, pages_by_node={N0: 1.5, N2: 0.1}, absent_pages=2.25, found_pages=7),),
        queried_pages=10,
        present_pages=9,
        exact=True,
        seconds=0.001,
        method=PlacementMethod.TEST,
        intervals={N0: Interval(0.25, 1 / 3)},
        n_vmas=3,
        complete=False,
    )


RECORDS: list[Any] = [
    make_survey(make_process(uid=5, opt_out="x", manager=Manager.LIBVIRT, mems_allowed=None), make_process(7), at=3.3),
    replace(
        make_survey(),
        machine=a_machine(),
        managers=(ManagerFinding(manager=Manager.NUMAD, active=True, detail="pid 9"),),
        workload_bytes={"/a": {N0: 4096}},
    ),
    SurveyScope(min_rss_bytes=5, min_cpu_cores=0.5, read_exe=True),
    a_placement(),
    Sampling(placements=(a_placement(),), missed=(Skip(by="kernel", process=PID, reason=Reason.BLOCKED, detail="x"),)),
    SampleRequest(process=PID, rss_bytes=7, home=N2),
    VerifyRequest(process=PID, runs=(make_run(VMA_START, 4),), asked_pages=64),
    RunsNow(process=PID, runs=(make_verified(5, 1),), total=make_verified(5, 1)),
    make_access_window(
        make_access_run(4, 2, {0: 1.0}),
        make_access_run(4, 2, None, at_mib=8.0),
        regions=(make_region(3, n0=1.5, n2=0.25),),
        huge=(Extent(VMA_START, VMA_START + (2 << 20)),),
        local_ratio=0.5,
    ),
    Accesses(windows={PID: make_access_window(huge=None)}, missed={}),
    Heats(
        method=HeatMethod.DAMON,
        windows={
            PID: HeatWindow(
                process=PID,
                taken_at=1.0,
                seconds=2.0,
                watched_seconds=3.0,
                method=HeatMethod.DAMON,
                regions=(HeatRegion(start=VMA_START, end=VMA_START + 4096, ratio=0.5, age_seconds=1.5),),
            )
        },
        missed={ProcessId(7, 1): "no room"},
        obstacle=Obstacle(seen="a", fix="b"),
    ),
    MigrationStep(
        policy="home",
        process=PID,
        target=N2,
        ranges=(Range(start=VMA_START, end=VMA_START + 4096, page_bytes=4096),),
        resume_at=0,
        budget_bytes=1 << 30,
        budget_seconds=1.25,
        reason=Reason.MISPLACED,
        target_of={N0: N2},
    ),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_a_record_comes_back_as_it_was(record: Any) -> None:
    assert there_and_back(record) == record


def test_an_outcome_comes_back_beside_its_step() -> None:
    outcome = replace(
        an_outcome(PID, pages={PageStatus.MOVED: 5, PageStatus.SHARED: 2}), moved_runs=(make_run(VMA_START, 4),)
    )
    told = json.loads(json.dumps(encode(outcome, Clear())))
    assert "step" not in told
    assert MigrationOutcome(step=outcome.step, **decode_fields(MigrationOutcome, told)) == outcome


def test_under_a_cloak_the_order_of_addresses_and_all_sizes_stay() -> None:
    cloak = Cloak(salt=b"s", own_pid=1, patterns={})
    window = make_access_window(make_access_run(4, 2, {0: 1.0}), make_access_run(4, 2, {0: 1.0}, at_mib=8.0))
    told: AccessWindow = there_and_back(window, cloak)
    shift = cloak.shift_bytes(PID)
    assert shift
    assert [(run.start - shift, run.end - shift) for run in told.runs] == [(run.start, run.end) for run in window.runs]
    assert told.method is AccessMethod.REGISTERS
    assert told.process == ProcessId(cloak.number(PID), 1)


def test_no_resume_at_stays_none_and_zero() -> None:
    cloak = Cloak(salt=b"s", own_pid=1, patterns={})
    step: MigrationStep = RECORDS[-1]
    assert there_and_back(step, cloak).resume_at == 0
    assert there_and_back(replace(step, resume_at=4096), cloak).resume_at == 4096 + cloak.shift_bytes(PID)


def classes_within(kind: Any, found: set[type]) -> set[type]:
    """Every dataclass that a record of this type can hold."""
    if dataclasses.is_dataclass(kind) and isinstance(kind, type) and kind not in found:
        found.add(kind)
        for hint in typing.get_type_hints(kind).values():
            classes_within(hint, found)
    for argument in typing.get_args(kind):
        classes_within(argument, found)
    return found


def test_every_type_that_the_ports_tell_can_be_written() -> None:
    for kind in KINDS:
        asked: Any = kind
        coder_of(asked)


def test_whatever_looks_like_an_address_is_shifted_and_whatever_is_listed_is_there() -> None:
    kinds: set[type] = set()
    for kind in KINDS:
        classes_within(kind, kinds)
    fields = {(kind, field.name): field.type for kind in kinds for field in dataclasses.fields(kind)}
    like_addresses = {
        key
        for key, type_ in fields.items()
        if key[1] in {"start", "end", "resume_at", "address"} and "int" in str(type_)
    }
    assert like_addresses == ADDRESSES
    assert fields.keys() >= PLAIN | OMITTED


def test_only_the_listed_texts_are_told_as_they_are() -> None:
    cloak = Cloak(salt=b"s", own_pid=1, patterns={})
    told = json.dumps([encode(record, cloak) for record in RECORDS])
    for word in ("worker", "[heap]", "nvme0", "pid 9", "/a", "no room"):
        assert word not in told
    for word in ("bind", "nvme", "madvise", "home", "kernel"):
        assert f'"{word}"' in told


@pytest.mark.parametrize("value", [{"nodes": 3}, {"unheard_of": 1}, [], 7])
def test_what_is_no_record_is_an_error(value: Any) -> None:
    with pytest.raises((LookupError, TypeError, ValueError, AttributeError)):
        decode(Survey, value)


def test_a_type_that_no_trace_can_hold_is_refused() -> None:
    kind: Any = dict[str, object]
    with pytest.raises(TypeError, match="no trace can hold"):
        coder_of(kind)
