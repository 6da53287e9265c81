from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancerd.model.ids import NodeId
from balancerd.simulation.layout import RETURN_SECONDS, Layout

A, B, C = (NodeId(n) for n in range(3))
Move = tuple[int, int, int, int]


@pytest.mark.parametrize(
    ("pieces", "move", "pages_on", "runs", "next_page"),
    [
        pytest.param([(10, A)], (0, 10, B, 99), {B: 10}, ((0, 10, A),), None, id="all of it"),
        pytest.param([(10, A)], (2, 5, B, 99), {A: 7, B: 3}, ((2, 3, A),), None, id="the middle"),
        pytest.param([(10, A)], (0, 10, B, 4), {A: 6, B: 4}, ((0, 4, A),), 4, id="as much as may"),
        pytest.param([(10, A)], (0, 10, B, 0), {A: 10}, (), 0, id="nothing may"),
        pytest.param([(4, A), (4, B), (2, C)], (0, 10, B, 99), {B: 10}, ((0, 4, A), (8, 2, C)), None, id="two runs"),
        pytest.param([(4, B), (6, A)], (0, 10, B, 6), {B: 10}, ((4, 6, A),), None, id="just enough"),
        pytest.param([(10, B)], (0, 10, B, 99), {B: 10}, (), None, id="nothing to do"),
    ],
)
def test_pages_move_where_they_should_and_no_others(
    pieces: Sequence[tuple[int, NodeId]],
    move: tuple[int, int, NodeId, int],
    pages_on: dict[NodeId, int],
    runs: tuple[tuple[int, int, NodeId], ...],
    next_page: int | None,
) -> None:
    layout = Layout(pieces)
    first, end, target, most_pages = move
    moved = layout.move(range(first, end), target, most_pages, 0.0)
    assert (layout.pages_on, moved.runs, moved.next_page) == (pages_on, runs, next_page)
    assert moved.moved_pages == sum(pages for _, pages, _ in runs)


def test_what_returns_to_a_node_that_it_left_is_counted_and_hasty_within_ten_minutes() -> None:
    layout = Layout([(10, A)])
    assert layout.move(range(10), B, 99, 0.0).returned_pages == 0
    back = layout.move(range(4), A, 99, RETURN_SECONDS)
    assert (back.returned_pages, back.hasty_pages) == (4, 4)
    late = layout.move(range(4, 10), A, 99, RETURN_SECONDS + 1)
    assert (late.returned_pages, late.hasty_pages) == (6, 0)
    assert layout.move(range(10), C, 99, 2000.0).returned_pages == 0


@pytest.mark.parametrize(("calm_since", "oscillated"), [(4.0, 10), (5.0, 10), (6.0, 0)])
def test_what_returns_although_nothing_has_changed_since_it_left_oscillates(calm_since: float, oscillated: int) -> None:
    layout = Layout([(10, A)])
    layout.move(range(10), B, 99, 5.0)
    assert layout.move(range(10), A, 99, 7.0, calm_since=calm_since).oscillated_pages == oscillated


@given(
    pieces=st.lists(st.tuples(st.integers(1, 50), st.sampled_from([A, B, C])), min_size=1, max_size=6),
    moves=st.lists(
        st.tuples(st.integers(0, 300), st.integers(0, 300), st.sampled_from([A, B, C]), st.integers(0, 300)), max_size=8
    ),
)
def test_no_page_is_lost_or_counted_twice(pieces: list[tuple[int, NodeId]], moves: list[Move]) -> None:
    layout = Layout(pieces)
    expected = [node for pages, node in pieces for _ in range(pages)]
    for now, (first, end, target, most) in enumerate(moves):
        left = most
        for page in range(first, min(end, len(expected))):
            if expected[page] != target and left:
                expected[page] = NodeId(target)
                left -= 1
        layout.move(range(first, end), NodeId(target), most, float(now))
        assert [run.node for run in layout.runs for _ in range(run.pages)] == expected
        assert layout.pages_on == {node: expected.count(node) for node in set(expected)}
        assert layout.pages_within(0, len(expected)) == layout.pages_on
