from pathlib import Path

import pytest

from balancerd.kernel.errors import ParseError
from balancerd.kernel.machine.links import read_link, read_tiers
from balancerd.model.ids import NodeId
from balancerd.model.machine import Link
from tests.unit.kernel.trees import MACHINES, write_tree

TIERED = str(MACHINES / "memory-only-tier-6.12/sys")
NODE = "devices/system/node/node3"
MIB = 1 << 20


def initiators(number: int, *nodes: int, **values: int) -> dict[str, str]:
    """The files of one access class of node 3; a link to a node is as good as a file here."""
    folder = f"{NODE}/access{number}/initiators"
    return {f"{folder}/{name}": f"{value}\n" for name, value in values.items()} | {
        f"{folder}/node{node}": "" for node in nodes
    }


def test_the_captured_links_of_an_hmat_are_read() -> None:
    near, slow = read_link(TIERED, NodeId(1)), read_link(TIERED, NodeId(2))
    assert near == Link(
        read_latency_seconds=100e-9,
        write_latency_seconds=100e-9,
        read_bytes_per_second=10240.0 * MIB,
        write_bytes_per_second=10240.0 * MIB,
        initiators=frozenset({NodeId(1)}),
    )
    assert slow is not None
    assert (slow.read_latency_seconds, slow.read_bytes_per_second) == (400e-9, 1024.0 * MIB)
    assert slow.initiators == {0}


def test_a_machine_without_an_hmat_has_no_links() -> None:
    assert read_link(str(MACHINES / "four-nodes-6.12/sys"), NodeId(0)) is None


def test_the_class_of_cpus_is_preferred_to_that_of_any_initiator(tmp_path: Path) -> None:
    write_tree(tmp_path, initiators(0, 7, read_latency=50) | initiators(1, 0, 2, read_latency=90, write_bandwidth=3))
    assert read_link(str(tmp_path), NodeId(3)) == Link(
        read_latency_seconds=90e-9,
        write_latency_seconds=None,
        read_bytes_per_second=None,
        write_bytes_per_second=3.0 * MIB,
        initiators=frozenset({NodeId(0), NodeId(2)}),
    )


def test_an_older_kernel_has_one_class_and_0_means_that_nobody_knows(tmp_path: Path) -> None:
    write_tree(tmp_path, initiators(0, 1, read_latency=70, write_latency=0, read_bandwidth=0))
    link = read_link(str(tmp_path), NodeId(3))
    assert link is not None
    assert (link.read_latency_seconds, link.write_latency_seconds, link.read_bytes_per_second) == (70e-9, None, None)
    write_tree(tmp_path, initiators(0, 1, read_latency=0))
    assert read_link(str(tmp_path), NodeId(3)) is None


def test_a_latency_that_is_no_number_is_an_error_with_its_file(tmp_path: Path) -> None:
    write_tree(tmp_path, {f"{NODE}/access1/initiators/read_latency": "fast\n"})
    with pytest.raises(ParseError, match="access1/initiators/read_latency:1: not a number"):
        read_link(str(tmp_path), NodeId(3))


def test_captured_tiers_are_read_by_node() -> None:
    assert read_tiers(TIERED) == {0: 4, 1: 4, 2: 180}


def test_a_kernel_without_tiers_has_none(tmp_path: Path) -> None:
    assert read_tiers(str(tmp_path)) == {}
