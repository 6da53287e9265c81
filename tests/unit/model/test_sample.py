"""Sums over mappings."""

from balancerd.model.ids import NodeId
from balancerd.model.sample import Vma, VmaKind, VmaPlacement, bytes_by_kind, bytes_by_node

N0, N1 = NodeId(0), NodeId(1)


def placed(kind: VmaKind, pages: dict[NodeId, float]) -> VmaPlacement:
    return VmaPlacement(vma=Vma(start=0, end=1 << 20, kind=kind), pages_by_node=pages, absent_pages=0.0)


def test_bytes_are_summed_by_kind_and_node() -> None:
    vmas = [
        placed(VmaKind.FILE, {N1: 2.0}),
        placed(VmaKind.ANON, {N1: 1.0, N0: 0.5}),
        placed(VmaKind.ANON, {N1: 1.25}),
        placed(VmaKind.HEAP, {}),
        placed(VmaKind.STACK, {N0: 0.0}),
    ]
    assert bytes_by_kind(vmas) == {VmaKind.ANON: {N0: 2048, N1: 9216}, VmaKind.FILE: {N1: 8192}}
    assert list(bytes_by_kind(vmas)) == [VmaKind.ANON, VmaKind.FILE], "in the order of the kinds"
    assert bytes_by_node(vmas) == {N0: 2048, N1: 17408}
    assert bytes_by_kind([]) == {}
