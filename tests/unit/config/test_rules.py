"""Rules and workload groups in the file: what is read, and what is wrong with them, at its place."""

import pwd

import pytest

from balancerd.config import loader
from balancerd.config.findings import ConfigError
from balancerd.config.schema import Config, RuleConfig, SelectConfig, WorkloadConfig

EMPTY = "a rule without a key would match everything: write one of workload, cgroup, comm, exe, uid, cmdline"
NOBODY = "an empty list matches nobody: name a user, or remove this key"
NO_RULE = "without a rule no process belongs to it: write at least one"
NO_NAME = "expected a name of letters, digits, '-', '_' and '.', got 'a b'"
UNCLOSED = "no regular expression: missing ), unterminated subpattern at character 2 of 'a(b'"
NESTED = (
    "a repeat inside a repeat may take for ever, at character 5 of '(a+)+': "
    "write the inner one without backtracking, such as a++ for a+"
)
NO_USER = "on this machine: write a name that `getent passwd` lists, or a number"


@pytest.fixture
def users(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with two users."""
    known = {"postgres": 70, "www-data": 33}

    def getpwnam(name: str) -> pwd.struct_passwd:
        if "\0" in name:
            raise ValueError("embedded null byte")
        return pwd.struct_passwd((name, "x", known[name], known[name], "", "/", "/bin/sh"))

    monkeypatch.setattr(pwd, "getpwnam", getpwnam)


TEXT = """\
select:
  include:
    - workload: "shop/.*"
    - cgroup: /system\\.slice/.*
  exclude:
    - comm: postgres
      uid: postgres
    - uid: [www-data, 1000]
      cmdline: .*--nightly.*
workloads:
  - name: build
    match:
      - exe: /usr/bin/(gcc|clang)
      - uid: www-data
"""


@pytest.mark.usefixtures("users")
def test_rules_are_read_and_users_become_their_numbers() -> None:
    config = loader.load_text(TEXT).config
    assert config.select == SelectConfig(
        include=(RuleConfig(workload="shop/.*"), RuleConfig(cgroup=r"/system\.slice/.*")),
        exclude=(
            RuleConfig(comm="postgres", uid=(70,)),
            RuleConfig(uid=(33, 1000), cmdline=".*--nightly.*"),
        ),
    )
    assert config.workloads == (
        WorkloadConfig(name="build", match=(RuleConfig(exe="/usr/bin/(gcc|clang)"), RuleConfig(uid=(33,)))),
    )
    assert Config.from_text(config.model_dump(by_alias=True)) == config


@pytest.mark.usefixtures("users")
def test_the_origin_of_a_rule_is_where_it_was_written() -> None:
    origins = loader.load_text(TEXT, "a.yaml").origins
    assert str(origins["select.exclude.0.uid"]) == "a.yaml:7:12"
    assert str(origins["select.exclude.1.uid.1"]) == "a.yaml:8:23"
    assert str(origins["workloads.0.match.0.exe"]) == "a.yaml:13:14"


@pytest.mark.usefixtures("users")
@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("select: {exclude: [{comm: a(b}]}", f"1:27: error: {UNCLOSED}"),
        ("select:\n  include:\n    - {cmdline: '(a+)+'}", f"3:17: error: {NESTED}"),
        ("select: {exclude: [{uid: postgers}]}", f"1:26: error: there is no user 'postgers' {NO_USER}"),
        ("select: {exclude: [{uid: [0, www-data, nobdy]}]}", f"1:40: error: there is no user 'nobdy' {NO_USER}"),
        ("workloads: [{name: a, match: [{uid: x}]}]", f"1:37: error: there is no user 'x' {NO_USER}"),
        ('select: {exclude: [{uid: "70"}]}', f"1:26: error: there is no user '70' {NO_USER}"),
        ('select: {exclude: [{uid: "\\0"}]}', f"1:26: error: there is no user '\\x00' {NO_USER}"),
        ("select: {exclude: [{uid: -1}]}", "1:26: error: expected a user's name or number, got -1"),
        ("select: {exclude: [{uid: 4294967295}]}", "1:26: error: expected a user's name or number, got 4294967295"),
        ("select: {exclude: [{uid: true}]}", "1:26: error: expected a user's name or number, got true"),
        ("select: {exclude: [{uid: 1.5}]}", "1:26: error: expected a user's name or number, got 1.5"),
        ("select: {exclude: [{uid: []}]}", f"1:26: error: {NOBODY}"),
        ("select: {exclude: [{com: a}]}", "1:21: error: unknown key 'com' (did you mean 'comm'?)"),
        ("select: {exclude: [{comm: 7}]}", "1:27: error: expected a text, got 7: put it in quotes"),
        ("select: {exclude: [{}]}", f"1:20: error: {EMPTY}"),
        ("select: {exclude: [{comm: }]}", f"1:20: error: {EMPTY}"),
        ("select: {exclude: {comm: a}}", "1:19: error: expected a list (- item), got a mapping"),
        ("select: {exclude: [postgres]}", "1:20: error: expected a mapping (key: value), got 'postgres'"),
        ("workloads: [{name: a, match: []}]", f"1:30: error: {NO_RULE}"),
        ("workloads: [{name: a}]", "1:13: error: missing key 'match': add it"),
        ("workloads: [{match: [{comm: a}]}]", "1:13: error: missing key 'name': add it"),
        ("workloads: [{name: a b, match: [{comm: a}]}]", f"1:20: error: {NO_NAME}"),
        ("workloads:\n- {name: a, match: [{comm: a}]}\n- {name: a, match: [{comm: b}]}",
         "3:10: error: there is already a workload named 'a': give this one another name"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_rule_is_found_at_its_place_with_its_remedy(text: str, finding: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loader.load_text(text)
    assert [str(each).removeprefix("balancerd.yaml:") for each in caught.value.findings] == [finding]


def test_users_are_those_of_this_machine() -> None:
    root = pwd.getpwuid(0)
    config = loader.load_text(f"select: {{exclude: [{{uid: {root.pw_name}}}]}}").config
    assert config.select.exclude == (RuleConfig(uid=(0,)),)


def test_many_wildcards_in_one_pattern_are_warned_of() -> None:
    text = "select: {exclude: [{comm: a}, {cmdline: .*a.*b.*c}], include: [{exe: .*a.*b.*}]}\n"
    text += "workloads: [{name: a, match: [{cmdline: .+a.+b.+c.+}]}]"
    found = [str(each).removeprefix("balancerd.yaml:") for each in loader.load_text(text).findings]
    advice = (
        "warning: more than 2 of .* before the end may take a second for a text made for it: write [^ ]* or the like"
    )
    assert found == [f"1:41: {advice}", f"2:41: {advice}"]
