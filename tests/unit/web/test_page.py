"""The page as a whole: what names hold does no harm, and it stays small however large the machine is."""

from dataclasses import replace

import pytest

from balancerd.config.schema import Config, PolicyConfig
from balancerd.model.decision import Reason, Skip
from balancerd.model.manager import Manager, ManagerFinding
from balancerd.model.report import Failure, PolicyFailure, TickReport
from balancerd.web.page import render
from balancerd.web.summary import state, warnings
from tests.unit.reports import (
    a_decision,
    a_moving_report,
    a_placement,
    a_process,
    a_process_report,
    a_report,
    a_topology,
    a_workload_report,
)
from tests.unit.web.pages import EVIL, Times, a_hostile_report, a_memory, a_view, read

TAGS = {
    *("html", "head", "meta", "title", "link", "script", "body", "header", "main", "section", "footer", "details"),
    *("summary", "h1", "h2", "p", "a", "b", "i", "small", "span", "div", "dl", "dt", "dd", "table", "caption", "thead"),
    *("tbody", "tr", "th", "td", "svg", "g", "rect"),
}


def test_whatever_names_hold_the_page_has_only_its_own_elements() -> None:
    config = Config(policies=(PolicyConfig(name="home", kind="follow-cpu"),))
    memory = a_memory(Times(), config=config, host=EVIL)
    memory.emit(a_hostile_report())
    memory.reloaded(config, EVIL)
    memory.tick_failed(EVIL)
    page = read(memory.view())
    assert {tag for tag, _ in page.elements} <= TAGS
    assert page.all("script") == [{"src": "/page.js", "defer": None}]
    assert page.all("img") == []
    for _, attributes in page.elements:
        assert not any(name.startswith("on") or name == "style" for name in attributes)
    assert "<script>alert(1)</script>" in page.text
    assert "\\u202e" in page.text


def test_a_page_before_the_first_tick_says_so() -> None:
    page = read(a_view())
    assert "starting No tick has ended yet." in page.text
    assert page.all("table") == []


def test_every_picture_says_in_words_what_it_shows_and_every_table_has_a_caption_and_headers() -> None:
    page = read(a_view([a_moving_report()]))
    pictures, tables = page.all("svg"), page.all("table")
    assert len(pictures) > 3
    assert all(each["role"] == "img" and each["aria-label"] for each in pictures)
    assert len(page.all("caption")) == len(tables) > 4
    assert all(each.get("scope") in {"col", "row"} for each in page.all("th"))
    assert page.all("html") == [{"lang": "en"}]


def test_ids_are_unique_and_every_part_has_one() -> None:
    page = read(a_view([a_moving_report()]))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert all("id" in attributes for attributes in page.all("section"))
    assert all("id" in attributes for attributes in page.all("details"))


def test_a_thousand_workloads_and_ten_thousand_processes_are_a_page_of_bounded_size() -> None:
    def large(workloads: int, processes: int) -> bytes:
        told = [
            a_process_report(
                a_process(pid, comm=EVIL[:15]),
                verdicts=[
                    a_decision(a_process(pid).id),
                    Skip(by="plan", process=a_process(pid).id, reason=Reason.COOLDOWN),
                ],
                placement=a_placement(a_process(pid).id),
            )
            for pid in range(1, processes + 1)
        ]
        report = a_report(
            processes=told,
            workloads=[a_workload_report(f"{n}-{EVIL * 20}"[:1000]) for n in range(workloads)],
            topology=a_topology(nodes=64),
        )
        return render(a_view([report]), 100.5)

    page = large(1000, 10_000)
    assert len(page) < 400_000
    assert len(page) < 1.05 * len(large(100, 1000))
    text = page.decode()
    assert "960 more workloads not shown" in text
    assert "32 more nodes not shown" in text


def test_the_largest_remote_workload_comes_first() -> None:
    told = [a_workload_report("well", local_ratio=1.0, rss_bytes=1 << 40), a_workload_report("astray", local_ratio=0.5)]
    text = read(a_view([a_report(workloads=told)])).text
    assert text.index("astray") < text.index("well unit")


def test_a_workload_of_which_nothing_is_known_is_not_said_to_be_empty() -> None:
    told = a_workload_report("quiet", bytes_by_node={}, cores_by_node={}, local_ratio=None)
    text = read(a_view([a_report(workloads=[replace(told, cpu_cores=None)])])).text
    assert "quiet unit, 1 process 256MiB unknown unknown unknown unknown nothing to do" in text


def test_what_moved_between_nodes_shades_the_matrix() -> None:
    page = read(a_view([a_moving_report(moved_pages=1 << 18)]))
    shades = [each["class"] for each in page.all("td") if each.get("class", "") in {"self", "h0", "h1", "h6"}]
    assert shades == ["self", "h0", "h6", "self"]  # from node 1 to node 0
    assert "node 1 1GiB 21 · 10" in page.text


@pytest.mark.parametrize(
    ("change", "level", "word"),
    [
        ({}, "good", "healthy"),
        ({"mode": "observe"}, "good", "observing"),
        ({"paused": "node 1: 3 moves failed"}, "warn", "paused"),
        (
            {"paused": "x", "disabled": {"home": PolicyFailure(cause=Failure.SLOW, detail="x")}},
            "bad",
            "needs attention",
        ),
        ({"disabled": {"home": PolicyFailure(cause=Failure.RAISED, detail="x")}}, "bad", "needs attention"),
        ({"rejected": [Skip(by="plan", process=a_process().id, reason=Reason.PRESSURE)]}, "warn", "working"),
    ],
)
def test_one_word_says_how_the_daemon_fares(change: dict[str, object], level: str, word: str) -> None:
    found = state(a_view([a_report(**change)]), 100.5)  # type: ignore[arg-type]
    assert (found.level, found.word) == (level, word)


@pytest.mark.parametrize(
    ("report", "sentence"),
    [
        (a_report(), "Nothing waits to move."),
        (a_report(workloads=[a_workload_report(pending_bytes=3 << 30)]), "3GiB wait to move."),
        (a_moving_report(), "Moved 3.9MiB in the last tick, nothing waits to move."),
    ],
)
def test_one_sentence_says_what_it_does(report: TickReport, sentence: str) -> None:
    assert state(a_view([report]), 100.5).sentence == sentence


@pytest.mark.parametrize(("late", "word"), [(9.9, "healthy"), (10.0, "stalled")])
def test_a_tick_that_is_late_is_told_first(late: float, word: str) -> None:
    assert state(a_view([a_report()]), 100.0 + late).word == word


def test_a_long_interval_makes_no_stall() -> None:
    view = a_view([a_report()], config=Config(tick_interval_seconds=60.0))
    assert [state(view, 100.0 + late).word for late in (179.0, 180.0)] == ["healthy", "stalled"]


def test_a_refused_configuration_is_told_until_a_good_one_comes() -> None:
    memory = a_memory(Times())
    memory.emit(a_report())
    memory.reloaded(Config(), "a.yaml:1:1: error: no\na.yaml:2:1: error: no again")
    (found,) = warnings(memory.view())
    assert (found.level, found.text.endswith("a.yaml:1:1: error: no (and 1 more line)")) == ("bad", True)
    memory.reloaded(Config(), None)
    assert list(warnings(memory.view())) == []


def test_a_failed_tick_is_told_until_one_succeeds() -> None:
    memory = a_memory(Times())
    memory.emit(a_report())
    memory.tick_failed("KeyError")
    assert [each.text for each in warnings(memory.view())] == ["The last tick failed: KeyError."]
    memory.emit(a_report(number=2))
    assert list(warnings(memory.view())) == []
    assert "1 tick failed" in read(memory.view()).text


@pytest.mark.parametrize(
    ("yields", "effect"), [(frozenset({Manager.NUMAD}), "nothing moves while it does"), (frozenset(), "both go on")]
)
def test_another_manager_is_told_with_what_can_be_done(yields: frozenset[Manager], effect: str) -> None:
    report = a_report()
    finding = ManagerFinding(manager=Manager.NUMAD, active=True)
    at_work = replace(report, survey=replace(report.survey, managers=(finding,)), yield_to=yields)
    (found,) = warnings(a_view([at_work]))
    assert effect in found.text
    assert "systemctl disable --now numad" in found.remedy


def test_budgets_are_told_with_their_settings() -> None:
    report = replace(a_moving_report(moved_pages=1 << 17), scan_cpu_seconds=0.005, scan_budget_ratio=0.005)
    text = read(a_view([report])).text
    assert "observing, of one core select.scan_budget 0.25% 0.50%" in text
    assert "moving migrate.rate_limit 256MiB/s 1GiB/s" in text
    assert "moving from node 1 to 0 migrate.node_pair_rate_limit 256MiB/s 1GiB/s" in text


def test_the_same_view_at_the_same_moment_is_the_same_page() -> None:
    view = a_view([a_moving_report()])
    assert render(view, 101.0) == render(view, 101.0)
