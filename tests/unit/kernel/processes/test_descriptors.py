import resource
from collections.abc import Iterator

import pytest

from balancerd.kernel.processes.descriptors import keepable_descriptors, raise_descriptor_limit


@pytest.fixture
def hard() -> Iterator[int]:
    """The hard limit; the soft one is put back."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield before[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_limit_is_raised_as_far_as_it_may_and_then_left_alone(hard: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    raised = raise_descriptor_limit()
    assert raised == min(hard, 16384) > 1024
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (raised, hard)
    assert raise_descriptor_limit() == raised


@pytest.mark.parametrize(("soft", "keepable"), [(1024, 512), (4096, 2816), (300, 0)])
def test_three_quarters_less_a_reserve_may_be_kept(hard: int, soft: int, keepable: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert keepable_descriptors() == keepable
