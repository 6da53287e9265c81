"""One browser for all tests, and the folder in which its pictures stay."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.page.browser import chromium, picture_folder
from tests.page.machine import World


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="session")
def pictures() -> Path:
    return picture_folder()


@pytest.fixture
def world() -> World:
    """A machine that has lived for two minutes."""
    world = World()
    world.run_until(120.0)
    return world
