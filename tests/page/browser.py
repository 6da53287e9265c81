"""Debian's Chromium, driven by Playwright: what a page says on its console, and pictures of it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.lab.state import lab_directory

CHROMIUM: Final = "/usr/bin/chromium"

Scheme = Literal["light", "dark"]

DESKTOP: Final = (1280, 900)
PHONE: Final = (360, 740)


def picture_folder() -> Path:
    """Where pictures stay for people to look at, made if need be: .lab/out/page."""
    folder = lab_directory().root / "out" / "page"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@dataclass
class Console:
    """What went wrong on a page: errors and warnings of its console, exceptions, requests that failed."""

    complaints: list[str] = field(default_factory=list)

    def listen_to(self, page: Page) -> None:
        page.on("console", lambda said: self._note(said.type, said.text))
        page.on("pageerror", lambda error: self._note("error", str(error)))
        page.on("response", lambda answer: self._note("error" if answer.status >= 400 else "", answer.url))

    def _note(self, kind: str, text: str) -> None:
        if kind in {"error", "warning"}:
            self.complaints.append(f"{kind}: {text}")


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser for the length of a block.

    It runs without its sandbox, which refuses root and needs what containers often lack; what it loads is ours.
    """
    if shutil.which(CHROMIUM) is None:
        raise RuntimeError("there is no Chromium: make browser-ready")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


def a_context(
    browser: Browser, *, size: tuple[int, int] = DESKTOP, scheme: Scheme = "light", javascript: bool = True
) -> BrowserContext:
    """A fresh profile with a window of this size."""
    width, height = size
    return browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, java_script_enabled=javascript
    )
