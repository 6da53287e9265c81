"""The page of a daemon inside, in this machine's Chromium: it tells of memory that moves while somebody looks at it."""

import re
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from balancerd.config.units import format_bytes
from tests.lab import topology
from tests.lab.conftest import MachinePool
from tests.lab.machine import Machine, Options
from tests.lab.qemu import GUEST_ADDRESS
from tests.lab.service import BIN, EMULATED
from tests.lab.workloads import binary

pytestmark = [pytest.mark.host, pytest.mark.topology("four-nodes"), pytest.mark.timeout(420)]

MIB = 64
HOME, WRONG = 0, 2
PORT = 9923
SOCKET = "/run/control.sock"
SETTINGS = {
    **EMULATED,
    "mode": "observe",
    "tick_interval": "1s",
    "select.min_age": "1s",
    "control.socket": SOCKET,
    "metrics.listen": f"{GUEST_ADDRESS}:{PORT}",
}
PATIENCE_SECONDS = 120.0


@pytest.fixture(scope="module")
def machine_with_a_port(machine_pool: MachinePool) -> Iterator[Machine]:
    machine_pool.shutdown()
    with Machine(topology.load("four-nodes"), options=Options(open_port=PORT)) as machine:
        yield machine


def leave_running(machine: Machine, *words: str | Path) -> None:
    """Start a program inside and return; what it says comes out in a file of its name."""
    log = f"/run/lab/out/{Path(words[0]).name}.log"
    assert machine.run(["sh", "-c", '"$@" >"$0" 2>&1 &', log, *words], timeout_seconds=60).exit_status == 0


def told_by(machine: Machine, path: str) -> str:
    """Return the answer to GET `path`, once there is one. AssertionError with the daemon's log if none comes."""
    host, port = machine.address
    end, failure = time.monotonic() + PATIENCE_SECONDS, ""
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(f"http://{host}:{port}{path}", timeout=30) as answer:
                return str(answer.read().decode())
        except OSError as error:  # nobody listens yet, or no tick has ended yet, which is 503
            failure = str(error)
        time.sleep(0.2)
    log = (machine.out / "balancerd.log").read_text(encoding="utf-8")
    raise AssertionError(f"{path}: {failure}; log: {log[-4000:]}")


def migrated_bytes(machine: Machine) -> int:
    """Return what the daemon's metrics say has moved from the wrong node home."""
    labels = rf'{{from_node="{WRONG}",reason="[a-z-]+",to_node="{HOME}"}}'
    found = re.findall(rf"^balancerd_migrated_bytes_total{labels} (\S+)$", told_by(machine, "/metrics"), re.MULTILINE)
    return int(sum(map(float, found)))


def test_a_machine_with_a_port_reaches_nobody(machine_with_a_port: Machine) -> None:
    """Its network would else have this machine's loopback under the address 10.0.2.2, and the same port there."""
    _, port = machine_with_a_port.address
    command = ("bash", "-c", f"exec 3<>/dev/tcp/10.0.2.2/{port}")
    assert machine_with_a_port.run(command, timeout_seconds=5.0).exit_status != 0


def test_the_page_tells_of_memory_that_comes_home_without_being_loaded_again(machine_with_a_port: Machine) -> None:
    from playwright.sync_api import expect  # here: the guest imports this module too, and takes long over it

    from tests.page.browser import Console, a_context, chromium, picture_folder

    machine, pictures = machine_with_a_port, picture_folder()
    leave_running(machine, binary("hog"), "base", str(MIB), str(WRONG), str(HOME), "20")
    sets = [word for key, value in SETTINGS.items() for word in ("--set", f"{key}={value}")]
    leave_running(machine, BIN / "balancerd", *sets)
    with chromium() as browser, a_context(browser) as context:
        told_by(machine, "/readyz")
        page, console = context.new_page(), Console()
        console.listen_to(page)
        expect.set_options(timeout=PATIENCE_SECONDS * 1000)
        host, port = machine.address
        page.goto(f"http://{host}:{port}/")
        expect(page.locator("#live")).to_have_text("live")
        page.evaluate("window.stayed = true")
        flow = page.locator("#matrix tbody tr").nth(WRONG).locator("td").nth(HOME).locator("b")
        placed = page.locator("#workloads .placed small")
        moved, reasons = page.locator("#moves .note"), page.locator("#reasons")
        expect(page.locator("#state")).to_have_text("observing")
        expect(reasons).to_contain_text("observe-mode")
        expect(placed).to_have_text(re.compile(f"^node {WRONG}: "))
        assert flow.inner_text() == "0"
        expect(moved).to_contain_text("0B moved; ")
        page.screenshot(path=pictures / "lab-before.png", full_page=True)

        command = (BIN / "balancerctl", "--socket", SOCKET, "mode", "enforce")
        assert machine.run(command, timeout_seconds=PATIENCE_SECONDS).exit_status == 0
        expect(flow).not_to_have_text("0")
        expect(reasons).to_contain_text("well-placed")
        moved_bytes = migrated_bytes(machine)
        assert moved_bytes > (MIB - 1) << 20  # a page or two may have lain elsewhere
        expect(flow).to_have_text(format_bytes(moved_bytes))
        expect(moved).to_contain_text(re.compile(r"^[1-9]\S* moved; "))
        expect(placed).to_have_text(re.compile(f"^node {HOME}: "))
        page.screenshot(path=pictures / "lab-after.png", full_page=True)
        assert page.evaluate("window.stayed") is True
        assert console.complaints == []
