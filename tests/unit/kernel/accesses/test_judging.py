"""Where judged memory lies: regions of nobody are asked for, huge pages only where runs are ragged."""

import ctypes
import mmap

import pytest

from balancerd.kernel.accesses.judging import Findings, Judged, Locator
from balancerd.kernel.moving.room import Room
from balancerd.kernel.placement.pool import PatientReads
from balancerd.model.access import REGION_BYTES, AccessRegion
from balancerd.model.extent import Extent
from balancerd.model.sample import PAGE_BYTES
from tests.unit.fakes import N0, N1, make_access_run
from tests.unit.kernel.accesses.surroundings import MIB, as_nodes
from tests.unit.kernel.worlds import OWN


def locator(reads: PatientReads) -> Locator:
    return Locator(reads, lambda: as_nodes(0, 1), Room("/proc", "/sys"), lambda: 0.0)


@pytest.mark.parametrize(("end_mib", "asks"), [(2, False), (1, True)])
def test_which_mappings_hold_huge_pages_is_asked_once_runs_are_not_of_whole_regions(
    reads: PatientReads, monkeypatch: pytest.MonkeyPatch, end_mib: float, asks: bool
) -> None:
    monkeypatch.setattr(Room, "may_hold_huge_pages", lambda _room: True)
    smaps = b"7f0000000000-7f0000400000 rw-p 00000000 00:00 0 \nAnonHugePages:      2048 kB\n"
    monkeypatch.setattr("balancerd.kernel.moving.room.read_bytes", lambda _path: smaps)
    monkeypatch.setattr("balancerd.kernel.accesses.judging.located", lambda _pid, runs, **_: tuple(runs))
    found = Findings(judged=Judged(runs=(make_access_run(end_mib, 0, {}),)))
    locator(reads).locate(OWN, found, 0.0)
    assert found.huge == ((Extent(0x7F00_0000_0000, 0x7F00_0040_0000),) if asks else None)


def test_where_a_region_lies_is_told_when_it_belongs_to_nobody(reads: PatientReads) -> None:
    with mmap.mmap(-1, 8 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as area:
        area[:] = bytes(8 * MIB)
        view = ctypes.c_char.from_buffer(area)
        start = -(-ctypes.addressof(view) // REGION_BYTES) * REGION_BYTES
        del view
        regions = tuple(
            AccessRegion(start=start + i * REGION_BYTES, weight_by_node={N0: 9.0, N1: 9.0}, node=owner)
            for i, owner in enumerate((None, N1))
        )
        found = Findings(judged=Judged(regions=regions))
        locator(reads).locate(OWN, found, 0.0)
    nobodys, owned = found.judged.regions
    assert sum((nobodys.pages_by_node or {}).values()) == REGION_BYTES // PAGE_BYTES
    assert owned == regions[1]
