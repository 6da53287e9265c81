"""Which processes a rule means, and what is said about those that the rules leave alone."""

from typing import Any

import pytest

from balancerd.config.schema import RuleConfig, WorkloadConfig
from balancerd.engine.rules import (
    LONGEST_TEXT,
    Rule,
    Rules,
    ask_for,
    compile_groups,
    compile_rules,
    do_rules_see_the_same,
    find_group,
)
from balancerd.model.decision import Reason
from balancerd.model.workload import Workload, WorkloadKind
from tests.unit.fakes import make_process

WEB = Workload(kind=WorkloadKind.POD, name="shop/web-0/nginx")
BUSY: dict[str, Any] = {
    "comm": "nginx",
    "uid": 33,
    "workload": WEB,
    "cgroup": "/kubepods/pod1",
    "exe": "/usr/sbin/nginx",
    "cmdline": "nginx -g daemon off;",
}


def rules(*configs: RuleConfig, where: str = "select.exclude") -> tuple[Rule, ...]:
    return compile_rules(configs, where)


@pytest.mark.parametrize(
    ("config", "matches"),
    [
        ({"comm": "nginx"}, True),
        ({"comm": "ngin"}, False),
        ({"comm": "ginx"}, False),
        ({"comm": "ng.*"}, True),
        ({"comm": "apache|nginx"}, True),
        ({"comm": "NGINX"}, False),
        ({"comm": "(?i)NGINX"}, True),
        ({"uid": (33,)}, True),
        ({"uid": (0, 33)}, True),
        ({"uid": (0,)}, False),
        ({"workload": "shop/.*"}, True),
        ({"workload": "shop"}, False),
        ({"cgroup": "/kubepods/.*"}, True),
        ({"exe": "/usr/s?bin/nginx"}, True),
        ({"cmdline": ".*daemon off.*"}, True),
        ({"comm": "nginx", "uid": (33,), "workload": "shop/.*"}, True),
        ({"comm": "nginx", "uid": (34,), "workload": "shop/.*"}, False),
        ({"comm": "nginx", "uid": (33,), "workload": "other/.*"}, False),
    ],
)
def test_a_rule_matches_when_all_its_keys_match_the_whole_text(config: dict[str, Any], *, matches: bool) -> None:
    (rule,) = rules(RuleConfig(**config))
    assert rule.matches(make_process(**BUSY)) == matches


@pytest.mark.parametrize("key", ["uid", "workload", "cgroup", "exe", "cmdline"])
def test_what_is_unknown_of_a_process_is_matched_by_nothing(key: str) -> None:
    wanted: dict[str, Any] = {key: tuple(range(50)) if key == "uid" else ".*"}
    config = RuleConfig(**wanted)
    (rule,) = rules(config)
    assert rule.matches(make_process(**BUSY))
    assert not rule.matches(make_process(**{**BUSY, key: None}))


def test_a_newline_in_a_command_line_hides_nothing() -> None:
    (rule,) = rules(RuleConfig(cmdline=".*secret.*"))
    assert rule.matches(make_process(cmdline="sh -c echo\nsecret\n"))


def test_a_program_whose_file_was_replaced_is_still_itself() -> None:
    (rule,) = rules(RuleConfig(exe="/usr/sbin/nginx"))
    assert rule.matches(make_process(exe="/usr/sbin/nginx (deleted)"))


def test_only_the_beginning_of_a_long_text_counts() -> None:
    (rule,) = rules(RuleConfig(cmdline="x*"))
    assert rule.matches(make_process(cmdline="x" * LONGEST_TEXT + "y"))
    assert not rule.matches(make_process(cmdline="x" * (LONGEST_TEXT - 1) + "y"))


def test_exclude_wins_and_names_the_rule_that_decided() -> None:
    chosen = Rules(
        include=rules(RuleConfig(comm=".*"), where="select.include"),
        exclude=rules(RuleConfig(uid=(7,)), RuleConfig(comm="x.*"), RuleConfig(comm="nginx", uid=(40, 33))),
    )
    assert chosen.objection(make_process(**BUSY)) == (Reason.EXCLUDED, "select.exclude[2]: comm 'nginx', uid 33, 40")
    assert chosen.objection(make_process(uid=8)) is None


def test_whom_no_rule_includes_is_told_what_it_is() -> None:
    chosen = Rules(
        include=rules(RuleConfig(workload="batch/.*"), RuleConfig(comm="a", uid=(1,)), where="select.include")
    )
    assert chosen.objection(make_process(**BUSY)) == (
        Reason.NOT_INCLUDED,
        "workload 'shop/web-0/nginx', comm 'nginx', uid 33",
    )
    assert chosen.objection(make_process(comm="b", uid=None)) == (
        Reason.NOT_INCLUDED,
        "workload unknown, comm 'b', uid unknown",
    )
    assert chosen.objection(make_process(comm="a", uid=1)) is None


def test_a_long_command_line_is_cut_in_what_is_said() -> None:
    chosen = Rules(include=rules(RuleConfig(cmdline="a"), where="select.include"))
    objection = chosen.objection(make_process(cmdline="b" * 4000))
    assert objection is not None
    assert len(objection[1]) < 100


def test_without_rules_nobody_is_left_alone() -> None:
    assert Rules().objection(make_process()) is None


def test_the_first_group_that_matches_is_taken() -> None:
    groups = compile_groups(
        [
            WorkloadConfig(name="shop", match=(RuleConfig(workload="shop/.*", comm="php.*"), RuleConfig(uid=(33,)))),
            WorkloadConfig(name="all", match=(RuleConfig(comm=".*"),)),
        ]
    )
    names = [
        None if (found := find_group(groups, process)) is None else found.name
        for process in (make_process(**BUSY), make_process(comm="php-fpm", workload=WEB), make_process())
    ]
    assert names == ["shop", "shop", "all"]
    assert find_group(groups[:1], make_process()) is None


def test_what_is_dear_is_read_only_when_a_rule_asks_for_it() -> None:
    cheap = Rules(include=rules(RuleConfig(comm="a")), exclude=rules(RuleConfig(uid=(1,))))
    groups = compile_groups([WorkloadConfig(name="g", match=(RuleConfig(exe="/bin/a"),))])
    assert [ask_for(key, cheap) for key in ("comm", "uid", "exe", "cmdline")] == [True, True, False, False]
    assert ask_for("exe", cheap, groups)
    assert ask_for("cmdline", Rules(exclude=rules(RuleConfig(comm="a", cmdline="b"))))


@pytest.mark.parametrize(
    ("key", "others"),
    [
        ("comm", ("a", "z")),
        ("uid", (1, 99, None)),
        ("cgroup", ("/a", "/z", None)),
        ("exe", ("/a", "/z", None)),
        ("cmdline", ("a", "z", None)),
        ("workload", (Workload(kind=WorkloadKind.POD, name="other"), None)),
    ],
)
def test_rules_are_tried_again_when_anything_that_they_ask_for_is_another(key: str, others: tuple[Any, ...]) -> None:
    before = make_process(**BUSY)
    same_words = {each: value[:1] + value[1:] for each, value in BUSY.items() if isinstance(value, str)}
    same = {**BUSY, **same_words, "workload": Workload(kind=WorkloadKind.POD, name="shop/web-0/nginx")}
    assert do_rules_see_the_same(before, make_process(**same, cpu_cores=9.0, rss_bytes=1))
    for other in others:
        changed = make_process(**{**BUSY, key: other})
        assert not do_rules_see_the_same(before, changed)
        assert not do_rules_see_the_same(changed, before)


def test_a_rule_asks_for_its_own_keys_and_for_no_others() -> None:
    for config in ({"comm": "a"}, {"exe": "a"}, {"workload": "a"}, {"uid": (1,)}):
        (rule,) = rules(RuleConfig(**config))
        assert {key for key in BUSY if rule.asks_for(key)} == set(config)
