"""The page of the real daemon, on this machine."""

import http.client
import socket
from pathlib import Path

from playwright.sync_api import Browser, expect

from tests.page.browser import Console, a_context
from tests.unit.test_daemon import running


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_the_page_of_the_daemon_is_live(browser: Browser, tmp_path: Path, pictures: Path) -> None:
    port = free_port()
    with (
        running(tmp_path, "--set", f"metrics.listen=127.0.0.1:{port}", "--set", "select.min_rss=1MiB") as daemon,
        a_context(browser) as context,
    ):
        page, console = context.new_page(), Console()
        console.listen_to(page)
        page.goto(f"http://localhost:{port}/")
        expect(page.locator("#live")).to_have_text("live")
        expect(page.locator("#state")).to_have_text("observing")
        for _ in range(3):
            page.evaluate("document.getElementById('summary').dataset.old = ''")
            expect(page.locator("#summary[data-old]")).to_have_count(0)  # exchanged, as a tick has come
        assert page.locator("#nodes tbody tr").count() >= 1
        assert page.locator("#reasons tbody tr").count() >= 1
        page.screenshot(path=pictures / "daemon.png", full_page=True)
        assert console.complaints == []
        assert daemon.stop() == 0


def test_the_page_can_be_switched_off(tmp_path: Path) -> None:
    port = free_port()
    with running(tmp_path, "--set", f"metrics.listen=127.0.0.1:{port}", "--set", "page.enabled=false"):
        for path, code in (("/", 404), ("/events", 404), ("/page.js", 404), ("/metrics", 200)):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            connection.request("GET", path)
            assert connection.getresponse().status == code
            connection.close()
