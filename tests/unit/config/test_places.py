"""Where settings, policies and rules stand, by the names that verdicts use."""

import pytest

from balancerd.config.loader import load_text
from balancerd.config.places import find_places

TEXT = """\
mode: enforce
select:
  min_rss: 64MiB
  exclude:
    - comm: a
    - comm: b
policies:
  - name: fixed
    kind: rule
    rules:
      - match: [{comm: x}]
        nodes: [1]
      - match:
          - comm: y
          - comm: z
        never: true
  - name: home
    kind: follow-cpu
    mode: observe
    match: [{comm: y}]
    min_home_age: 5s
"""


@pytest.mark.parametrize(
    ("setting", "at"),
    [
        ("mode", "a.yaml:1"),
        ("select.min_rss", "a.yaml:3"),
        ("select.exclude[1]", "a.yaml:6"),
        ("select.exclude[2]", None),
        ("select.min_cpu", None),
        ("policies.home.match[0]", "a.yaml:20"),
        ("policies.nobody", None),
    ],
)
def test_a_setting_is_found_where_it_is_written_and_a_default_nowhere(setting: str, at: str | None) -> None:
    assert find_places(load_text(TEXT, "a.yaml")).of_setting(setting) == at


@pytest.mark.parametrize(
    ("policy", "setting", "at"),
    [
        ("fixed", "rules[1].match[1]", "a.yaml:15"),
        ("fixed", "", "a.yaml:8"),
        ("home", "min_home_age", "a.yaml:21"),
        ("home", "home_share", None),
        ("other", "", None),
    ],
)
def test_an_option_of_a_policy_is_found_by_the_policys_name(policy: str, setting: str, at: str | None) -> None:
    assert find_places(load_text(TEXT, "a.yaml")).of_policy(policy, setting) == at


def test_the_stack_is_told_in_its_order_with_kinds_modes_and_lines() -> None:
    stack = find_places(load_text(TEXT, "a.yaml")).policies
    assert [(p.name, p.kind, p.observing, p.place) for p in stack] == [
        ("fixed", "rule", False, "a.yaml:8"),
        ("home", "follow-cpu", True, "a.yaml:17"),
    ]


def test_what_was_said_on_the_command_line_is_its_own_place_and_defaults_have_none() -> None:
    places = find_places(load_text("", "a.yaml", overrides=["select.min_rss=1GiB"]))
    assert places.of_setting("select.min_rss") == "--set select.min_rss"
    assert [(p.name, p.place) for p in places.policies] == [("home", None)]
