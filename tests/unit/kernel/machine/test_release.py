"""Releases as distributions write them, and the one that runs here."""

import os

import pytest

from balancerd.kernel.machine.release import kernel_version, parse_release


@pytest.mark.parametrize(
    ("release", "expected"),
    [
        ("6.12.117+deb12-amd64", (6, 12)),
        ("6.1.0-44-amd64", (6, 1)),
        ("5.14.0-503.el9.x86_64", (5, 14)),
        ("7.0-rc1", (7, 0)),
        ("custom", (0, 0)),
    ],
)
def test_releases(release: str, expected: tuple[int, int]) -> None:
    assert parse_release(release) == expected


def test_the_kernel_that_runs_has_one() -> None:
    assert os.uname().release.startswith("{}.{}".format(*kernel_version()))
