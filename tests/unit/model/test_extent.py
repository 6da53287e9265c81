"""Where extents are and where they are not."""

from hypothesis import given
from hypothesis import strategies as st

from balancerd.model.extent import Extent, inside, joined, outside

EXTENTS = st.lists(st.builds(Extent, st.integers(0, 40), st.integers(0, 40)), max_size=8).map(joined)


@given(extents=EXTENTS, start=st.integers(0, 40), end=st.integers(0, 40))
def test_what_is_inside_and_what_is_outside_are_all_of_a_span_and_share_nothing(
    extents: tuple[Extent, ...], start: int, end: int
) -> None:
    covered = [address for extent in extents for address in range(*extent)]
    within = [address for extent in inside(extents, start, end) for address in range(*extent)]
    without = [address for extent in outside(extents, start, end) for address in range(*extent)]
    assert within == [address for address in range(start, end) if address in covered]
    assert without == [address for address in range(start, end) if address not in covered]


def test_outside_comes_in_as_few_parts_as_it_can() -> None:
    extents = (Extent(10, 20), Extent(30, 40))
    assert list(outside(extents, 0, 50)) == [Extent(0, 10), Extent(20, 30), Extent(40, 50)]
    assert list(outside(extents, 10, 40)) == [Extent(20, 30)]
    assert list(outside(extents, 12, 20)) == []
    assert list(outside((), 5, 6)) == [Extent(5, 6)]
