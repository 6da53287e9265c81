"""Sorting of what the daemon tells: what is not known comes last. It must not know what is being sorted."""

from collections.abc import Callable
from typing import Any

from balancerd.cli.options import Document

Key = Callable[[Document], Any]


def most(value: float | None) -> tuple[bool, float]:
    """Return a key that puts the largest first."""
    return (True, 0.0) if value is None else (False, -value)


def least(value: float | None) -> tuple[bool, float]:
    """Return a key that puts the smallest first."""
    return (True, 0.0) if value is None else (False, value)
