"""What README and docs/ name is there: files, headings, commands, settings, reasons, metrics."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_metrics_have_the_labels_that_are_told_of_them(page: Path) -> None:
    known = {metric.name: metric.labels for metric in catalogue()}
    for name, labels in LABELLED.findall(page.read_text(encoding="utf-8")):
        assert {*labels.split(",")} <= {*known[name]}, name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_reasons_are_there(page: Path) -> None:
    known = {*map(str, Reason), *map(str, PageStatus), *(kind for kind, _, _ in list_options())}
    assert set(REASON.findall(page.read_text(encoding="utf-8"))) <= known


def test_the_patterns_find_what_they_are_for() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    for pattern, least in ((LINK, 60), (COMMAND, 40), (SETTING, 20), (METRIC, 25), (LABELLED, 10), (REASON, 10)):
        assert len(set(pattern.findall(text))) >= least, pattern.pattern
