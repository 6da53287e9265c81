"""The page over the simulated machine, in Chromium: it loads, lives, survives, and fits."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.page.browser import DESKTOP, PHONE, Console, Scheme, a_context
from tests.page.machine import World
from tests.unit.web.pages import EVIL, a_hostile_report

PATIENCE_MS = 20_000
expect.set_options(timeout=PATIENCE_MS)


def open_live(page: Page, address: str) -> None:
    """Open the page, and wait until it says that it is live."""
    page.goto(address)
    expect(page.locator("#live")).to_have_text("live")


def tick(world: World, page: Page) -> None:
    """Let a tick pass, and wait until the page tells of it."""
    report = world.tick()
    expect(page.locator("#summary")).to_contain_text(f"tick {report.number:,} ended")


def test_it_loads_and_tells_of_every_tick_without_being_loaded_again(browser: Browser, world: World) -> None:
    with world.served() as address, a_context(browser) as context:
        page, console = context.new_page(), Console()
        console.listen_to(page)
        open_live(page, address)
        page.evaluate("window.stayed = true")
        before = page.locator("#moves").inner_text()
        for _ in range(3):
            tick(world, page)
        world.run_until(420.0)
        tick(world, page)
        assert page.locator("#moves").inner_text() != before
        assert page.evaluate("window.stayed") is True
        assert page.locator("#workloads tbody tr").count() == 8
        assert console.complaints == []


def test_what_a_person_has_opened_scrolled_and_focused_stays(browser: Browser, world: World) -> None:
    with world.served() as address, a_context(browser, size=PHONE) as context:
        page = context.new_page()
        open_live(page, address)
        page.locator("#moves-table > summary").click()
        page.locator("#matrix-scroll").focus()
        page.evaluate("document.getElementById('matrix-scroll').scrollLeft = 40")
        page.evaluate("document.getElementById('matrix').dataset.old = ''")
        world.run_until(480.0)
        tick(world, page)
        expect(page.locator("#matrix[data-old]")).to_have_count(0)  # so it was exchanged
        assert page.locator("#moves-table").get_attribute("open") is not None
        assert page.evaluate("document.activeElement.id") == "matrix-scroll"
        assert page.evaluate("document.getElementById('matrix-scroll').scrollLeft") == 40


def test_without_javascript_it_is_the_same_and_is_loaded_again_by_hand(browser: Browser, world: World) -> None:
    with world.served() as address, a_context(browser, javascript=False) as context:
        page, console = context.new_page(), Console()
        console.listen_to(page)
        page.goto(address)
        expect(page.locator("#live")).to_have_text("Reload for newer figures.")
        assert page.locator("#workloads tbody tr").count() == 8
        number = world.tick().number
        page.reload()
        expect(page.locator("#summary")).to_contain_text(f"tick {number:,} ended")
        assert console.complaints == []


def test_it_says_when_the_daemon_is_gone(browser: Browser, world: World) -> None:
    with a_context(browser) as context:
        page = context.new_page()
        with world.served() as address:
            open_live(page, address)
            page.evaluate("document.getElementById('summary').dataset.old = ''")
        expect(page.locator("#live")).to_have_text("no answer from balancerd, trying again")
        expect(page.locator("#workloads tbody tr")).to_have_count(8)  # what was known stays


def test_a_page_for_which_no_seat_is_left_looks_now_and_then(browser: Browser) -> None:
    world = World(most_clients=1)
    world.run_until(60.0)
    with world.served() as address, a_context(browser) as context:
        first, second = context.new_page(), context.new_page()
        open_live(first, address)
        second.clock.install()
        second.goto(address)
        expect(second.locator("#live")).to_have_text("no answer from balancerd, trying again")
        number = world.tick().number
        second.clock.fast_forward(6_000)
        expect(second.locator("#summary")).to_contain_text(f"tick {number:,} ended")


def test_names_that_are_scripts_stay_names(browser: Browser, world: World, pictures: Path) -> None:
    world.page.emit(a_hostile_report())
    with world.served() as address, a_context(browser) as context:
        page, console, dialogs = context.new_page(), Console(), list[str]()
        console.listen_to(page)
        page.on("dialog", lambda dialog: dialogs.append(dialog.message))
        open_live(page, address)
        world.page.emit(a_hostile_report())
        expect(page.locator("#decisions")).to_contain_text(EVIL[:25])
        expect(page.locator("#decisions")).to_contain_text("2 ticks")
        assert (dialogs, console.complaints) == ([], [])
        assert page.locator("img, main script").count() == 0
        page.screenshot(path=pictures / "hostile-names.png", full_page=True)


def test_the_browser_is_told_to_run_nothing_else(browser: Browser, world: World) -> None:
    with world.served() as address, a_context(browser) as context:
        page = context.new_page()
        open_live(page, address)
        page.evaluate(
            """() => {
                window.refused = [];
                document.addEventListener("securitypolicyviolation", (event) => refused.push(event.effectiveDirective));
                const script = document.createElement("script");
                script.textContent = "window.ran = true";
                document.body.append(script);
                document.getElementById("main").insertAdjacentHTML("beforeend", "<i style='color: red'>x</i>");
                new Image().src = "http://192.0.2.1/x.png";
            }"""
        )
        refused: set[str] = set()
        for _ in range(PATIENCE_MS // 50):
            refused = set(page.evaluate("window.refused"))
            if len(refused) == 3:
                break
            page.wait_for_timeout(50)
        assert refused == {"script-src-elem", "style-src-attr", "img-src"}
        assert page.evaluate("window.ran") is None


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("name", "size"), [("desktop", DESKTOP), ("phone", PHONE)])
def test_it_fits_and_leaves_a_picture(
    browser: Browser, pictures: Path, world: World, name: str, size: tuple[int, int], scheme: Scheme
) -> None:
    with world.served() as address, a_context(browser, size=size, scheme=scheme) as context:
        page, console = context.new_page(), Console()
        console.listen_to(page)
        open_live(page, address)
        assert page.evaluate("document.scrollingElement.scrollWidth") == size[0]
        lefts = page.locator("main > section").evaluate_all("all => all.map(one => one.getBoundingClientRect().left)")
        assert len(set(lefts)) == (1 if name == "phone" else 2)
        tiles = page.locator(".tile").evaluate_all("all => all.map(one => one.getBoundingClientRect().left)")
        assert len(set(tiles)) == (1 if name == "phone" else 5)
        widths = page.locator(".rows td").evaluate_all("all => all.map(one => one.clientWidth)")
        assert name == "desktop" or min(width for width in widths if width) > size[0] / 2, "a word fits on a line"
        back = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert back == ("rgb(243, 245, 248)" if scheme == "light" else "rgb(16, 21, 27)")
        page.screenshot(path=pictures / f"{name}-{scheme}.png", full_page=True)
        assert console.complaints == []


def test_on_a_phone_each_figure_stands_beside_its_title(browser: Browser, world: World) -> None:
    with world.served() as address, a_context(browser, size=PHONE) as context:
        page = context.new_page()
        open_live(page, address)
        titles = page.locator("#workloads th").all_text_contents()
        cells = page.locator("#workloads tbody tr").first.locator("td")
        told = cells.evaluate_all("all => all.map(one => getComputedStyle(one, '::before').content)")
        assert told == [f'"{title}"' for title in titles]
        lefts = cells.evaluate_all(
            """all => all.map((one) => {
                const range = document.createRange();
                range.selectNodeContents(one);
                return range.getBoundingClientRect().left;
            })"""
        )
        assert len(set(lefts)) == 1


def test_a_keyboard_reaches_the_workloads(browser: Browser, world: World) -> None:
    with world.served() as address, a_context(browser) as context:
        page = context.new_page()
        open_live(page, address)
        page.keyboard.press("Tab")
        expect(page.locator(":focus")).to_have_text("To the workloads")
        page.keyboard.press("Enter")
        assert page.evaluate("location.hash") == "#workloads"
