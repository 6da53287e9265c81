"""What the page loads: nothing from elsewhere, and colours that everybody can read."""

import re
from importlib import resources

import pytest

from balancerd.web.app import FILES
from tests.unit.reports import a_moving_report
from tests.unit.web.pages import a_view, read

FOLDER = resources.files("balancerd.web") / "files"
LIGHT, DARK = "light", "dark"

TEXTS = [
    *((text, back) for text in ("text", "soft", "link", "good", "warn", "bad") for back in ("back", "card")),
    *(("good", "good-back"), ("warn", "warn-back"), ("bad", "bad-back"), ("text", "warn-back"), ("text", "bad-back")),
    *(("text", "track"), *(("low", f"h{n}") for n in range(4)), *(("high", f"h{n}") for n in range(4, 7))),
]
"""Which colours are letters on which."""

SHAPES = [(shape, "card") for shape in (*(f"n{n}" for n in range(8)), "plain", "failed", "moved", "used")]


def palette(scheme: str) -> dict[str, str]:
    css = (FOLDER / "page.css").read_text(encoding="utf-8")
    light, dark = re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    found = dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{6});", light))
    return {**found, **(dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{6});", dark)) if scheme == DARK else {})}


def luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance."""
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(a: str, b: str) -> float:
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [LIGHT, DARK])
@pytest.mark.parametrize(("text", "back"), TEXTS)
def test_texts_can_be_read(scheme: str, text: str, back: str) -> None:
    colours = palette(scheme)
    assert contrast(colours[text], colours[back]) >= 4.5  # WCAG 2.2 AA, 1.4.3


@pytest.mark.parametrize("scheme", [LIGHT, DARK])
@pytest.mark.parametrize(("shape", "back"), SHAPES)
def test_shapes_can_be_seen(scheme: str, shape: str, back: str) -> None:
    colours = palette(scheme)
    assert contrast(colours[shape], colours[back]) >= 3.0  # WCAG 2.2 AA, 1.4.11


def test_contrast_is_what_it_should_be() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21.0)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("path", sorted(FILES))
def test_nothing_comes_from_elsewhere(path: str) -> None:
    text = (FOLDER / path[1:]).read_text(encoding="utf-8").replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert not re.search(r"https?:|//[a-z0-9]+\.|@import|url\(", text)


def test_the_page_refers_to_its_own_files_only() -> None:
    page = read(a_view([a_moving_report()]))
    refers = [value for _, attributes in page.elements for name, value in attributes.items() if name in {"href", "src"}]
    assert set(refers) == {*FILES, "/metrics", "#workloads"}
