"""Names under which a trace tells of a machine."""

import json

import pytest
import yaml

from balancerd import plugins
from balancerd.config import loader
from balancerd.config.schema import Config, PolicyConfig, RuleConfig, SelectConfig, WorkloadConfig
from balancerd.engine.interleaving import equal_weights, node_of_region
from balancerd.model.access import REGION_BYTES
from balancerd.model.ids import ProcessId
from balancerd.model.sample import ProcessSample
from balancerd.model.workload import Workload, WorkloadKind
from balancerd.settings import build_settings
from balancerd.trace.cloak import Cloak, near_pattern
from balancerd.trace.codec import decode, encode
from balancerd.trace.configuration import cloaked, find_patterns, not_replayed
from tests.unit.fakes import N0, N1, N2, N3, make_process

CONFIG = Config(
    select=SelectConfig(
        include=(RuleConfig(uid=(0, 1000), comm="post.*"),),
        exclude=(RuleConfig(comm="secret-tool"), RuleConfig(exe="/opt/hidden/.*", cmdline=".*private.*")),
    ),
    policies=(
        PolicyConfig.model_validate(
            {
                "name": "places",
                "kind": "rule",
                "rules": [
                    {"match": [{"comm": "post.*", "uid": 1000}, {"exe": "/usr/bin/tarsier"}], "nodes": [1]},
                    {"match": [{"cgroup": "/payroll/.*"}], "never": True},
                ],
            }
        ),
        PolicyConfig(name="home", kind="follow-cpu", match=(RuleConfig(comm="wombat"),)),
    ),
    workloads=(WorkloadConfig(name="payroll", match=(RuleConfig(workload="payroll-.*"), RuleConfig(comm="post.*"))),),
)


def make_cloak(salt: bytes = b"salt", **changes: object) -> Cloak:
    return Cloak(salt=salt, own_pid=7, patterns=find_patterns(CONFIG).rules(), **changes)  # type: ignore[arg-type]


def told_by(cloak: Cloak) -> Config:
    found = {kind: plugin.options for kind, plugin in plugins.discover().items()}
    return loader.load_text(yaml.safe_dump(cloaked(CONFIG, cloak)), plugins=found).config


def test_equal_names_stay_equal_under_one_salt_and_say_nothing_under_another() -> None:
    one, other = make_cloak(b"one"), make_cloak(b"other")
    assert one.name("postgres") == one.name("postgres") != one.name("postgrex")
    assert one.name("postgres") != other.name("postgres")
    assert one.name("") == ""
    assert len({one.name(f"name {n}") for n in range(10_000)}) == 10_000


def test_a_name_that_is_no_utf_8_is_hashed_too() -> None:
    assert make_cloak().name("a\udcff").startswith("x")


def test_processes_are_numbered_in_the_order_of_their_pids_whenever_they_come() -> None:
    cloak = make_cloak()
    cloak.meet(ProcessId(pid, 1) for pid in (900, 30, 500))
    cloak.meet([ProcessId(600, 1), ProcessId(7, 1), ProcessId(1000, 1)])
    cloak.meet([ProcessId(10, 1), ProcessId(550, 9), ProcessId(550, 3)])
    met = [
        ProcessId(pid, start)
        for pid, start in ((10, 1), (30, 1), (500, 1), (550, 3), (550, 9), (600, 1), (900, 1), (1000, 1))
    ]
    numbers = [cloak.number(process) for process in met]
    assert numbers == sorted(set(numbers))
    assert not set(numbers) & {process.pid for process in met}
    assert cloak.number(ProcessId(7, 1)) == 1


def test_where_no_number_is_left_between_two_the_next_is_still_another_one() -> None:
    cloak = make_cloak()
    numbers = [cloak.number(ProcessId(10_000 - n, 1)) for n in range(100)]
    numbers += [cloak.number(ProcessId(20_000 + n, 1)) for n in range(100)]
    assert len(set(numbers)) == 200


def test_addresses_keep_their_page_their_region_and_their_order_and_differ_from_process_to_process() -> None:
    cloak = make_cloak()
    shifts = [cloak.shift_bytes(ProcessId(pid, 1)) for pid in range(100)]
    assert all(shift % REGION_BYTES == 0 for shift in shifts)
    assert len(set(shifts)) == 100
    cloak.enter(ProcessId(3, 1))
    assert cloak.address(4096) - cloak.address(0) == 4096
    assert cloak.address(0) == shifts[3] != make_cloak(b"another").shift_bytes(ProcessId(3, 1))


def test_a_shift_that_keeps_the_pattern_of_interleaving_leaves_nearly_every_region_on_its_node() -> None:
    cloak = make_cloak(keep_pattern=True)
    weights = equal_weights((N0, N1, N2, N3))
    for pid in range(20):
        shift = cloak.shift_bytes(ProcessId(pid, 1))
        regions = [0x7F00_0000_0000 + n * REGION_BYTES for n in range(2000)]
        moved = sum(node_of_region(at, weights) != node_of_region(at + shift, weights) for at in regions)
        assert moved <= 4
    assert len({cloak.shift_bytes(ProcessId(pid, 1)) for pid in range(50)}) == 50


@pytest.mark.parametrize("regions", [0, 1, 12345, (1 << 26) - 1])
def test_the_next_shift_that_keeps_the_pattern_is_near(regions: int) -> None:
    assert 0 <= near_pattern(regions) - regions < 1 << 18


@pytest.mark.parametrize(
    ("process", "objection"),
    [
        (make_process(comm="postgres", uid=0), None),
        (make_process(comm="postgres", uid=1001), "not-included"),
        (make_process(comm="secret-tool", uid=0), "excluded"),
        (make_process(comm="postman", uid=0, exe="/opt/hidden/x (deleted)", cmdline="x private y"), "excluded"),
        (make_process(comm="postman", uid=0, exe="/opt/hidden/x", cmdline="x"), None),
        (make_process(comm="nginx", uid=1000), "not-included"),
    ],
)
def test_the_rules_of_the_told_configuration_decide_on_hashed_names_as_on_the_names(
    process: ProcessSample, objection: str | None
) -> None:
    cloak = make_cloak()
    told = told_by(cloak)
    hidden = decode(ProcessSample, json.loads(json.dumps(encode(process, cloak))))
    for config, each in ((CONFIG, process), (told, hidden)):
        found = build_settings(config).criteria.rules.objection(each)
        assert (None if found is None else found[0].value) == objection


def test_rules_in_the_options_of_policies_are_told_by_the_numbers_of_their_patterns() -> None:
    places, home = cloaked(CONFIG, make_cloak())["policies"]
    assert places["rules"] == [
        {"match": [{"comm": ".*,0,.*", "uid": [2]}, {"exe": ".*,1,.*"}], "nodes": [1]},
        {"match": [{"cgroup": ".*,0,.*"}], "never": True},
    ]
    assert home["match"] == [{"comm": ".*,2,.*"}]


def test_neither_a_name_nor_a_pattern_is_in_what_is_told() -> None:
    cloak = make_cloak()
    workload = Workload(kind=WorkloadKind.UNIT, name="payroll-7", cgroup="/payroll")
    process = make_process(
        4242,
        comm="postgres",
        cgroup="/payroll/db",
        exe="/opt/hidden/x",
        cmdline="x private",
        uid=1000,
        workload=workload,
        opt_out="/etc/payroll",
        manager_detail="unit payroll.service",
    )
    told = json.dumps([encode(process, cloak), cloaked(CONFIG, cloak)])
    for word in ("post", "payroll", "hidden", "private", "secret-tool", "4242", "1000", "tarsier", "wombat"):
        assert word not in told, word


def test_a_workload_carries_the_patterns_that_match_its_name() -> None:
    cloak = make_cloak()
    process = make_process(workload=Workload(kind=WorkloadKind.UNIT, name="payroll-7", cgroup="/a"))
    written = encode(process, cloak)
    assert written["workload"]["name"].endswith(",0,")
    assert written["workload"]["cgroup"] == cloak.name("/a")


def test_what_cannot_be_replayed_of_another_configuration_is_said() -> None:
    recorded = told_by(make_cloak())
    assert not list(not_replayed(recorded, recorded))
    other = recorded.model_copy(
        update={
            "select": SelectConfig(
                min_rss_bytes=1, exclude=(*recorded.select.exclude, RuleConfig(comm="nginx"), RuleConfig(uid=(77,)))
            ),
            "accesses": recorded.accesses.model_copy(update={"max_processes": 9}),
        }
    )
    said = [line.partition(":")[0] for line in not_replayed(other, recorded)]
    assert said == ["select.exclude[2]", "select.exclude[3]", "accesses.max_processes", "select.min_rss"]
    assert [line.partition(":")[0] for line in not_replayed(Config(), recorded)] == ["workloads"]
    mine = Config(policies=(PolicyConfig(name="a", kind="rule", match=(RuleConfig(comm="nginx"),)),))
    assert [line.partition(":")[0] for line in not_replayed(mine, Config())] == ["policies[0].match[0]"]


def test_users_are_numbered_as_they_are_met() -> None:
    cloak = make_cloak()
    assert [cloak.user(uid) for uid in (1000, 0, 1000, 5)] == [1, 2, 1, 3]
