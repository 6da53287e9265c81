"""One browser for all tests, and a folder in which its pictures stay for people to look at: .lab/out/page."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.lab.state import lab_directory
from tests.page.browser import chromium
from tests.page.machine import World


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="session")
def pictures() -> Path:
    folder = lab_directory().root / "out" / "page"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def world() -> World:
    """A machine that has lived for two minutes."""
    world = World()
    world.run_until(120.0)
    return world
