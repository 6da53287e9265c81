"""Fixtures for tests of sources of accesses."""

from collections.abc import Iterator

import pytest

from balancerd.kernel.clock import MonotonicClock
from balancerd.kernel.placement.pool import PatientReads, ReadPool


@pytest.fixture
def reads() -> Iterator[PatientReads]:
    pool = PatientReads(MonotonicClock(), ReadPool(), 5.0)
    yield pool
    pool.close()
