"""`python -m tests.page.screenshot FILE`: a picture of the page over the machine of four nodes, for the README."""

import sys
from pathlib import Path
from typing import Final

from tests.page.browser import DESKTOP, Scheme, a_context, chromium
from tests.page.machine import World

LIVED_SECONDS: Final = 3000.0


def take(path: Path, *, size: tuple[int, int] = DESKTOP, scheme: Scheme = "light") -> None:
    """Let the machine live for most of an hour, and write what the page then looks like."""
    world = World()
    world.run_until(LIVED_SECONDS)
    with world.served() as address, chromium() as browser, a_context(browser, size=size, scheme=scheme) as context:
        page = context.new_page()
        page.goto(address)
        page.get_by_text("live", exact=True).wait_for()
        path.parent.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=path, full_page=True)


def main(arguments: list[str]) -> int:
    """Write FILE, or say how to."""
    if len(arguments) not in {1, 2} or (len(arguments) == 2 and arguments[1] not in {"light", "dark"}):
        print("usage: python -m tests.page.screenshot FILE.png [light|dark]", file=sys.stderr)
        return 2
    take(Path(arguments[0]), scheme="dark" if arguments[1:] == ["dark"] else "light")
    print(f"written to {arguments[0]}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
