"""What README and docs/ name is there: files, headings, commands, settings, reasons, metrics."""

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from xml.etree import ElementTree as ET

import click
import pytest

from balancerd.cli.control import group
from balancerd.cli.keys import list_options, list_settings
from balancerd.metrics.catalogue import catalogue
from balancerd.model.decision import Reason
from balancerd.model.page_status import PageStatus
from tests.unit.cli.test_manual import COMMANDS
from tests.unit.every_metric import full_metrics

REPOSITORY = Path(__file__).parents[2]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
LINK = re.compile(r"\]\(([^)\s]+)\)")
COMMAND = re.compile(r"(?:^ {4}(?:\$ )?|`)balancerctl ((?:[a-z][a-z-]* ?)+)", re.MULTILINE)
SETTING = re.compile(r"`((?:select|migrate|plan|evict|accesses|metrics|page|control|history|log)\.(?!sqlite)[a-z_]+)`")
METRIC = re.compile(r"(?<!:)\bbalancerd_(?!gather)[a-z_]+[a-z]\b(?!:)")  # names with colons are rules, see deploy/
LABELLED = re.compile(r"\b(balancerd_[a-z_]+[a-z])\{([a-z_]+(?:,[a-z_]+)*)\}")  # as {a,b}, without values
REASON = re.compile(r"[Tt]he reason `([a-z-]+)`")


@cache
def metrics() -> frozenset[str]:
    text = full_metrics().render()[1].decode()
    return frozenset(re.findall(r"^# TYPE (balancerd_\w+) ", text, re.MULTILINE)) | frozenset(
        re.findall(r"^(balancerd_\w+)", text, re.MULTILINE)
    )


def anchors(page: Path) -> Iterator[str]:
    """The headings of a page as GitHub names them."""
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            yield re.sub(r"[^\w -]", "", line.lstrip("# ").lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if re.match(r"https?:", link):
            continue
        file, _, anchor = link.partition("#")
        target = page if not file else (page.parent / file).resolve()
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_settings_and_metrics_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for words in (found.split() for found in COMMAND.findall(text)):
        assert (words[0],) in COMMANDS, words
        group = [path for path in COMMANDS if len(path) == 2 and path[0] == words[0]]
        assert not group or len(words) == 1 or (words[0], words[1]) in COMMANDS, words
    keys = {key.path for key in list_settings()}
    assert set(SETTING.findall(text)) <= keys
    assert set(METRIC.findall(text)) <= metrics()


def typed(page: Path) -> Iterator[str]:
    """Every command line of balancerctl on a page, within a line or in an indented block, without [ and ]."""
    text = page.read_text(encoding="utf-8")
    for code in re.findall(r"`([^`\n]+)`", text) + re.findall(r"^ {4}(\S.*)$", text, re.MULTILINE):
        for part in re.split(r"\s#\s|; |&& |\|", code):
            line = re.sub(r"[][…]", " ", part).strip().removeprefix("$ ").removeprefix("sudo ")
            if re.match(r"balancerctl [a-z]", line):
                yield line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_can_be_typed(page: Path) -> None:
    for line in typed(page):
        words = shlex.split(line)[1:]
        command: click.Command = group
        options = {"--help"}
        while True:
            options |= {option for each in command.params for option in (*each.opts, *each.secondary_opts)}
            if not isinstance(command, click.Group) or not words:
                break
            found = command.get_command(click.Context(command), words[0])
            assert found is not None, line
            command, words = found, words[1:]
        assert {word.partition("=")[0] for word in words if word.startswith("--")} <= options, line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_metrics_have_the_labels_that_are_told_of_them(page: Path) -> None:
    known = {metric.name: metric.labels for metric in catalogue()}
    for name, labels in LABELLED.findall(page.read_text(encoding="utf-8")):
        assert {*labels.split(",")} <= {*known[name]}, name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_reasons_are_there(page: Path) -> None:
    known = {*map(str, Reason), *map(str, PageStatus), *(kind for kind, _, _ in list_options())}
    assert set(REASON.findall(page.read_text(encoding="utf-8"))) <= known


SECURITY = (REPOSITORY / "docs/security.md").read_text(encoding="utf-8")
SHOWN_BY = [
    (row, path)
    for row in re.findall(r"^\| (?!could try|what it does|where \||---)(.+)\|$", SECURITY, re.MULTILINE)
    for path in re.findall(r"`([\w./-]+)`", row.rpartition("|")[2]) or [""]
]


def holds_tests(path: Path) -> bool:
    if path.suffix == ".py":
        return re.search(r"^def test_", path.read_text(encoding="utf-8"), re.MULTILINE) is not None
    inside = (each.read_text(encoding="utf-8") for each in path.glob("*.[cp]*") if each.is_file())
    return any(re.search(r"^def test_|LLVMFuzzerTestOneInput", text, re.MULTILINE) for text in inside)


@pytest.mark.parametrize(("row", "named"), SHOWN_BY, ids=lambda text: text[:60])
def test_each_row_of_the_page_on_security_names_tests_that_are_there(row: str, named: str) -> None:
    assert named, f"nothing shows it: {row}"
    path = REPOSITORY / named if named.startswith("tests/") else REPOSITORY / "tests/unit" / named
    assert path.exists(), named
    assert holds_tests(path), named


def test_whatever_else_the_page_on_security_names_is_there() -> None:
    named = set(re.findall(r"`((?:[a-z_]+/)*test_\w+\.py)`", SECURITY))
    assert len(named) >= 40
    assert [n for n in named if not (REPOSITORY / n).exists() and not (REPOSITORY / "tests/unit" / n).exists()] == []
    parts = set(re.findall(r"`((?:balancerd|tests)/[\w./-]+)`", SECURITY))
    assert [part for part in parts if not (REPOSITORY / part).exists()] == []
    assert len(SHOWN_BY) >= 50


def test_the_patterns_find_what_they_are_for() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    for pattern, least in ((LINK, 60), (COMMAND, 40), (SETTING, 20), (METRIC, 25), (LABELLED, 10), (REASON, 10)):
        assert len(set(pattern.findall(text))) >= least, pattern.pattern
    assert len([line for page in PAGES for line in typed(page)]) > 150


@pytest.mark.parametrize("path", sorted((REPOSITORY / "docs").glob("*.svg")), ids=lambda path: path.name)
def test_a_drawing_stands_alone_and_has_words_and_colours_for_light_and_dark(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    drawing = ET.fromstring(text)  # noqa: S314 - our own file
    names = {each.tag.rpartition("}")[2] for each in drawing.iter()}
    assert {"title", "desc"} <= names
    assert not {"script", "image", "foreignObject"} & names
    links = [value for each in drawing.iter() for key, value in each.items() if key.endswith("href")]
    assert [link for link in links if not link.startswith("#")] == []
    light, dark = (
        dict(re.findall(r"(--\w+): (#\w{6})", part)) for part in re.split("prefers-color-scheme: dark", text)
    )
    assert light.keys() == dark.keys() == {*re.findall(r"var\((--\w+)\)", text)}
