"""Which node goes to which: the examples are those of do_migrate_pages() in mm/mempolicy.c and its neighbours."""

import pytest

from balancerd.jobs.nodes import target_of
from balancerd.model.ids import NodeId, parse_id_list


def nodes(text: str) -> list[NodeId]:
    return [NodeId(n) for n in parse_id_list(text)]


@pytest.mark.parametrize(
    ("sources", "targets", "pairs"),
    [
        ("0-1", "2-3", {0: 2, 1: 3}),
        ("2-3", "0-1", {2: 0, 3: 1}),
        ("0,2", "1,3", {0: 1, 2: 3}),
        ("0-1", "1-2", {0: 1, 1: 2}),  # of one size: what both name moves on, too
        ("0-1", "0-1", {}),
        ("0-2", "0-1,3", {2: 3}),
        ("0-3", "4-5", {0: 4, 1: 5, 2: 4, 3: 5}),  # more sources: counted round
        ("0", "2-3", {0: 2}),  # more targets: the others get nothing
        ("0-2", "2-3", {0: 2, 1: 3}),  # of different sizes: what both name stays
        ("0-3", "1-2", {0: 1, 3: 2}),
        ("0-2", "0,3", {1: 3, 2: 0}),  # the n of a source counts those that stay
        ("0-7", "3-5", {0: 3, 1: 4, 2: 5, 6: 3, 7: 4}),  # the kernel's example: 3, 4 and 5 are left as they are
        ("0", "0", {}),
        ("", "1", {}),
        ("1", "", {}),
    ],
)
def test_the_nth_source_goes_to_the_nth_target(sources: str, targets: str, pairs: dict[int, int]) -> None:
    assert target_of(nodes(sources), nodes(targets)) == pairs


def test_the_order_in_which_nodes_are_named_does_not_matter() -> None:
    assert target_of([NodeId(1), NodeId(0)], [NodeId(3), NodeId(2)]) == {0: 2, 1: 3}
