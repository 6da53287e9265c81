from collections.abc import Mapping
from pathlib import Path

import pytest

from balancerd.config import loader
from balancerd.config.fields import FROM_TEXT
from balancerd.config.findings import ConfigError, Finding, Place
from balancerd.config.schema import Config, SelectConfig
from balancerd.config.telling import LogConfig
from tests.unit.config.plugins import PLUGINS


def list_errors(text: str, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        loader.load_text(text, overrides=overrides, plugins=PLUGINS)
    assert str(caught.value).splitlines() == [str(finding) for finding in caught.value.findings]
    return [str(finding).removeprefix("balancerd.yaml:") for finding in caught.value.findings]


TOP = (
    "mode, tick_interval, select, migrate, plan, evict, accesses, yield_to, metrics, page, control, state_directory, "
    "history, log, workloads, policies"
)
BOOLEANS = ": YAML 1.2 reads it as a text, only true and false are booleans"


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        # unknown keys
        ("tick_intervall: 2s", "1:1: error: unknown key 'tick_intervall' (did you mean 'tick_interval'?)"),
        ("select:\n  min_rs: 1GiB", "2:3: error: unknown key 'min_rs' (did you mean 'min_rss'?)"),
        ("min_rss: 1GiB", "1:1: error: unknown key 'min_rss' (did you mean 'select.min_rss'?)"),
        ("select: {cooldown: 1s}", "1:10: error: unknown key 'cooldown' (did you mean 'migrate.cooldown'?)"),
        ("control: {policies: []}", "1:11: error: unknown key 'policies' (it belongs at the top level)"),
        ("log: {colour: 1}", "1:7: error: unknown key 'colour' (known: level, format)"),
        ("colour: 1", f"1:1: error: unknown key 'colour' (known: {TOP})"),
        ("on: 1", f"1:1: error: unknown key 'on' (known: {TOP})"),
        ("min_age_seconds: 3s", "1:1: error: unknown key 'min_age_seconds' (known: " + TOP + ")"),
        # what was YAML 1.1
        ("mode: on", f"1:7: error: expected 'enforce' or 'observe', got 'on'{BOOLEANS}"),
        ("tick_interval: 1:30", "1:16: error: expected a duration such as 2s, 500ms or 1h30m, got '1:30'"),
        (
            "tick_interval: 0123",
            '1:16: error: 0123 is octal to YAML 1.1 and decimal to YAML 1.2: write 123, or "0123" for a text',
        ),
        # wrong types
        ("mode:", "1:6: error: expected 'enforce' or 'observe', got nothing"),
        ("mode: true", "1:7: error: expected 'enforce' or 'observe', got true"),
        ("mode: [enforce]", "1:7: error: expected 'enforce' or 'observe', got a list"),
        ("log: {level: wran}", "1:14: error: expected 'debug', 'info', 'warning' or 'error', got 'wran'"),
        ("select: 5", "1:9: error: expected a mapping (key: value), got 5"),
        ("select: [min_rss]", "1:9: error: expected a mapping (key: value), got a list"),
        ("policies: home", "1:11: error: expected a list (- item), got 'home'"),
        ("policies: {name: home}", "1:11: error: expected a list (- item), got a mapping"),
        ("policies:", "1:10: error: expected a list (- item), got nothing"),
        ("policies: [home]", "1:12: error: expected a mapping (key: value), got 'home'"),
        ("control: {socket: 5}", "1:19: error: expected a text, got 5: put it in quotes"),
        # units
        ("tick_interval: 2", "1:16: error: a duration needs a unit: write 2s"),
        ("tick_interval: [2s]", "1:16: error: expected a duration such as 2s, got a list"),
        ("tick_interval: 10ms", "1:16: error: must lie between 100ms and 5m, got 10ms"),
        ("tick_interval: 6m", "1:16: error: must lie between 100ms and 5m, got 6m"),
        ("select: {min_rss: 64}", "1:19: error: a byte size needs a unit: write 64MiB or 64B"),
        ("select: {min_rss: 64M}", "1:19: error: expected a byte size such as 64MiB or 1GiB, got '64M': write 64MiB"),
        ("select: {min_rss: null}", "1:19: error: expected a byte size such as 64MiB, got nothing"),
        ("select: {min_cpu: 5%}", "1:19: error: expected a number of cores such as 0.05, got '5%'"),
        ("select: {min_cpu: -1}", "1:19: error: expected a number of cores such as 0.05, got '-1'"),
        ("select: {min_cpu: .inf}", "1:19: error: expected a number of cores such as 0.05, got 'Infinity'"),
        ("select: {scan_budget: 5}", "1:23: error: a share lies between 0% and 100%, got '5': write 5% or 0.05"),
        (
            "migrate: {copy_on: 0-x}",
            "1:20: error: expected CPUs such as 0-3,8, got '0-x': '0-x' is not a number or a range such as 0-3",
        ),
        ("migrate: {copy_on: [1, 1]}", "1:20: error: a CPU stands there twice: name each once"),
        ("migrate: {copy_on: 8192}", "1:20: error: there is no CPU 8192: the kernel knows 0 to 8191"),
        ("select: {scan_budget: 0}", "1:23: error: must lie between 0.01% and 100%, got 0%"),
        ("select: {read_timeout: 11s}", "1:24: error: must lie between 1ms and 10s, got 11s"),
        ("migrate: {rate_limit: 1GiB}", "1:23: error: a byte rate is per second: write 1GiB/s"),
        ("migrate: {rate_limit: 1B/s}", "1:23: error: must lie between 1MiB/s and 1TiB/s, got 1B/s"),
        ("migrate: {stall_target: 2s}", "1:25: error: must lie between 100us and 1s, got 2s"),
        ("migrate: {process_rate_limit: 1B/s}", "1:31: error: must lie between 1MiB/s and 1TiB/s, got 1B/s"),
        ("migrate: {stall_limit: 5}", "1:24: error: a duration needs a unit: write 5s"),
        (
            "migrate: {stall_target: 10ms, stall_limit: 5ms}",
            "1:44: error: must not be below stall_target (10ms), got 5ms: write null for 40ms",
        ),
        ("migrate: {duty_cycle: 0%}", "1:23: error: must lie between 1% and 100%, got 0%"),
        ("migrate: {max_cpu_pressure: off}", "1:29: error: expected a share such as 5% or 0.05, got 'off'"),
        (
            "migrate: {move_all: on}",
            (
                "1:21: error: expected true or false, got 'on': "
                "YAML 1.2 reads it as a text, only true and false are booleans"
            ),
        ),
        ("evict: {max_swap_used: null}", "1:24: error: expected a share such as 5% or 0.05, got nothing"),
        ("migrate: {watermark: 95%}", "1:22: error: must lie between 0% and 90%, got 95%"),
        # texts with a form
        (
            "metrics: {listen: 9923}",
            '1:19: error: expected host:port in quotes, such as "127.0.0.1:9923", got 9923',
        ),
        (
            "metrics: {listen: off}",
            "1:19: error: expected host:port such as 127.0.0.1:9923, got 'off': write null to switch it off",
        ),
        ("metrics: {listen: 'localhost:99999'}", "1:19: error: a port lies between 0 and 65535, got 99999"),
        (
            "control: {socket: control.sock}",
            "1:19: error: expected an absolute path such as /run/balancerd/control.sock, got 'control.sock'",
        ),
        (
            f"control: {{socket: /{'x' * 107}}}",
            "1:19: error: a socket's path has at most 107 bytes, this one has 108",
        ),
        ("control: {group: a b}", "1:18: error: expected the name of a group such as adm, got 'a b'"),
        # policies
        ("policies: [{kind: follow-cpu}]", "1:12: error: missing key 'name': add it"),
        ("policies: [{name: home}]", "1:12: error: missing key 'kind': add it"),
        (
            "policies: [{name: h m, kind: follow-cpu}]",
            "1:19: error: expected a name of letters, digits, '-', '_' and '.', got 'h m'",
        ),
        (
            "policies:\n  - {name: home, kind: follow-cpu}\n  - {name: home, kind: follow-cpu}",
            "3:12: error: there is already a policy named 'home': give this one another name",
        ),
        (
            "policies: [{name: h, kind: folow-cpu}]",
            "1:28: error: unknown kind of policy 'folow-cpu' (did you mean 'follow-cpu'?)",
        ),
        (
            "policies: [{name: h, kind: magic}]",
            "1:28: error: unknown kind of policy 'magic' (installed: follow-cpu, static-rules)",
        ),
        (
            "policies: [{name: h, kind: follow-cpu, home_shar: 0.8}]",
            "1:40: error: unknown key 'home_shar' (did you mean 'home_share'?)",
        ),
        (
            "policies: [{name: h, kind: follow-cpu, mod: observe}]",
            "1:40: error: unknown key 'mod' (did you mean 'mode'?)",
        ),
        (
            "policies: [{name: h, kind: follow-cpu, dwell: 5}]",
            "1:47: error: a duration needs a unit: write 5s",
        ),
        (
            "policies: [{name: h, kind: follow-cpu, eager: on}]",
            f"1:47: error: expected true or false, got 'on'{BOOLEANS}",
        ),
        ("policies: [{name: h, kind: follow-cpu, eager: 1}]", "1:47: error: expected true or false, got 1"),
        ("policies: [{name: h, kind: static-rules}]", "1:12: error: missing key 'nodes': add it"),
        (
            "policies: [{name: h, kind: static-rules, nodes: [0, x]}]",
            "1:53: error: expected a whole number, got 'x'",
        ),
        (
            "policies: [{name: h, kind: static-rules, nodes: [0], factor: 1}]",
            "1:62: error: must be more than 1.0, got 1",
        ),
        (
            "policies: [{name: h, kind: static-rules, nodes: []}]",
            "1:49: error: List should have at least 1 item after validation, not 0",
        ),
    ],
)
def test_each_mistake_is_found_at_its_place_with_its_remedy(text: str, finding: str) -> None:
    assert list_errors(text) == [finding]


def test_all_findings_are_collected_in_reading_order() -> None:
    text = """\
mode: observe
tick_interval: 2
select:
  treshold: 5ms
  min_age: 007
mode: enforce
migrate: {stall_traget: 5ms, cooldown: soon}
policies:
  - name: home
    kind: folow-cpu
"""
    assert list_errors(text, "migrate.watermark=1", "log.levle=info") == [
        "2:16: error: a duration needs a unit: write 2s",
        (
            "4:3: error: unknown key 'treshold' "
            "(known: min_rss, min_cpu, min_age, scan_budget, read_timeout, include, exclude)"
        ),
        '5:12: error: 007 is octal to YAML 1.1 and decimal to YAML 1.2: write 7, or "007" for a text',
        "6:1: error: duplicate key 'mode': it is set at line 1, column 1, keep one",
        "7:11: error: unknown key 'stall_traget' (did you mean 'stall_target'?)",
        "7:40: error: expected a duration such as 2s, 500ms or 1h30m, got 'soon'",
        "10:11: error: unknown kind of policy 'folow-cpu' (did you mean 'follow-cpu'?)",
        "--set migrate.watermark: error: must lie between 0% and 90%, got 100%",
        "--set log.levle: error: unknown key 'levle' (did you mean 'level'?)",
    ]


def test_a_thousand_mistakes_are_summed_up() -> None:
    errors = list_errors("".join(f"key{number}: 1\n" for number in range(1000)))
    assert len(errors) == 101
    assert errors[-1] == "101:1: error: this and 899 more errors: fix the others first"


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        (
            "tick_interval: 200ms",
            "1:16: warning: looking every 200ms costs CPU and finds little more: 1s to 5s is usual",
        ),
        (
            "migrate: {stall_target: 200ms}",
            "1:25: warning: one call may hold a process up for 200ms: 5ms to 20ms is usual",
        ),
        (
            "migrate: {duty_cycle: 90%}",
            "1:23: warning: a process being moved may wait for 90% of the time: 25% to 50% is usual",
        ),
        (
            "migrate: {max_memory_pressure: null}",
            "1:32: warning: memory moves even while the machine runs out of it, which makes that worse: 10% is usual",
        ),
        (
            "migrate: {move_all: true}",
            (
                "1:21: warning: shared pages follow one of their processes and become remote for the others: "
                "false leaves them"
            ),
        ),
        (
            "migrate: {node_pair_rate_limit: 2GiB/s}",
            "1:33: warning: 2GiB/s is never reached: rate_limit is 1GiB/s for the whole machine",
        ),
        ("select: {scan_budget: 50%}", "1:23: warning: looking may take 50% of a core: 0.5% to 2% is usual"),
        (
            "metrics: {listen: '0.0.0.0:9923'}",
            (
                "1:19: warning: 0.0.0.0:9923 is open to other machines, without a password: "
                "write 127.0.0.1:9923 or use a firewall"
            ),
        ),
        (
            "policies: [{name: a, kind: follow-cpu}, {name: b, kind: threads}]",
            "1:57: warning: it stands behind a, which moves memory first: write it before a",
        ),
        (
            "policies: [{name: a, kind: follow-cpu}, {name: b, kind: packing}]",
            "1:57: warning: it stands behind a, which brings back what has made room: write it before a",
        ),
        (
            "policies: [{name: a, kind: follow-cpu}, {name: b, kind: tiering}]",
            "1:57: warning: it stands behind a, which brings all memory up that fits, cold or not: write it before a",
        ),
        (
            "policies: [{name: a, kind: access}, {name: b, kind: follow-cpu}, {name: c, kind: threads}]",
            "1:82: warning: it stands behind b, which moves memory first: write it before b",
        ),
        (
            "policies: [{name: a, kind: follow-cpu}, {name: b, kind: threads}, {name: c, kind: follow-cpu}]",
            "1:57: warning: it stands behind a, which moves memory first: write it before a",
        ),
        (
            "policies: []",
            "1:11: warning: no policy is at work, so nothing will ever move: remove this key to get the default",
        ),
    ],
)
def test_doubtful_settings_work_with_a_warning(text: str, finding: str) -> None:
    loaded = loader.load_text(text)
    assert [str(each) for each in loaded.findings] == [f"balancerd.yaml:{finding}"]
    assert loaded.config != Config()


def test_policies_in_an_order_in_which_each_has_its_effect_need_no_warning() -> None:
    kinds = ("tiering", "packing", "threads", "follow-cpu", "access")
    text = ", ".join(f"{{name: {kind}, kind: {kind}}}" for kind in kinds)
    assert loader.load_text(f"policies: [{text}]").findings == ()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "[::1]"])
def test_listening_on_this_machine_alone_is_no_matter(host: str) -> None:
    assert loader.load_text(f"metrics: {{listen: '{host}:1'}}").findings == ()


@pytest.mark.parametrize("text", ["", "# nothing", "select:\nmigrate: ~\n", "{}"])
def test_what_is_not_set_is_the_default(text: str) -> None:
    assert loader.load_text(text, plugins=PLUGINS).config == Config()


def test_a_file_is_laid_over_the_defaults_and_settings_over_the_file() -> None:
    loaded = loader.load_text(
        "mode: observe\nselect: {min_age: 1s, min_rss: 1GiB}", overrides=["select.min_age=5s", "log.level=debug"]
    )
    assert loaded.config == Config(
        mode="observe",
        select=SelectConfig(min_age_seconds=5.0, min_rss_bytes=2**30),
        log=LogConfig(level="debug"),
    )


def test_the_origin_of_each_setting_is_known() -> None:
    text = "select: {min_age: 1s, min_rss: 1GiB}\npolicies:\n  - {name: a, kind: k}"
    loaded = loader.load_text(text, overrides=["select.min_age=5s", "mode=observe"])
    assert {key: str(place) for key, place in loaded.origins.items()} == {
        "select.min_age": "--set select.min_age",
        "select.min_rss": "balancerd.yaml:1:32",
        "policies.0.name": "balancerd.yaml:3:12",
        "policies.0.kind": "balancerd.yaml:3:21",
        "mode": "--set mode",
    }


@pytest.mark.parametrize(
    ("override", "changed"),
    [
        ("mode=observe", {"mode": "observe"}),
        ("migrate.stall_target=20ms", {"migrate": {"stall_target": "20ms"}}),
        (" select.min_cpu = 0.1 ", {"select": {"min_cpu": 0.1}}),
        ("metrics.listen=null", {"metrics": {"listen": None}}),
        ("metrics.listen=", {"metrics": {"listen": None}}),
        ("metrics.listen=[::1]:9", {"metrics": {"listen": "[::1]:9"}}),
        (
            "policies.0.home_share=0.8",
            {"policies": [{"name": "home", "kind": "follow-cpu", "home_share": 0.8}]},
        ),
        (
            "policies.home.eager=true",
            {"policies": [{"name": "home", "kind": "follow-cpu", "eager": True}]},
        ),
    ],
)
def test_a_setting_may_come_from_the_command_line(override: str, changed: dict[str, object]) -> None:
    config = loader.load_text("", overrides=[override], plugins=PLUGINS).config
    written = config.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    assert written == changed


def test_a_list_item_of_the_file_may_be_changed_by_name_or_number() -> None:
    text = "policies: [{name: a, kind: follow-cpu}, {name: b, kind: follow-cpu, dwell: 1s}]"
    loaded = loader.load_text(text, overrides=["policies.b.dwell=2s", "policies.0.mode=observe"], plugins=PLUGINS)
    first, second = loaded.config.policies
    assert (first.name, first.mode, dict(first.options)) == ("a", "observe", {})
    assert (second.name, second.mode, dict(second.options)) == ("b", None, {"dwell": "2s"})


@pytest.mark.parametrize(
    ("override", "finding"),
    [
        (
            "migrate.stall_traget=1s",
            "--set migrate.stall_traget: error: unknown key 'stall_traget' (did you mean 'stall_target'?)",
        ),
        ("migrate.stall_target=5", "--set migrate.stall_target: error: a duration needs a unit: write 5s"),
        ("mode=on", f"--set mode: error: expected 'enforce' or 'observe', got 'on'{BOOLEANS}"),
        ("mode.x=1", "--set mode.x: error: expected 'enforce' or 'observe', got a mapping"),
        ("select=1", "--set select: error: expected a mapping (key: value), got 1"),
        ("mode", "--set mode: error: expected KEY=VALUE such as migrate.stall_target=10ms, got 'mode'"),
        ("=1", "--set: error: expected KEY=VALUE such as migrate.stall_target=10ms, got '=1'"),
        (
            "select..x=1",
            "--set select..x: error: expected KEY=VALUE such as migrate.stall_target=10ms, got 'select..x=1'",
        ),
        (
            "select.min_age=010",
            (
                "--set select.min_age: error: 010 is octal to YAML 1.1 and decimal to YAML 1.2: "
                'write 10, or "010" for a text'
            ),
        ),
        ("policies.1.x=1", "--set policies.1.x: error: there is no item '1' in this list (known: home)"),
        ("policies.x.y=1", "--set policies.x.y: error: there is no item 'x' in this list (known: home)"),
        ("policies.home.dwell=5", "--set policies.home.dwell: error: a duration needs a unit: write 5s"),
        ("\udcff=1", f"--set \\udcff: error: unknown key '\\\\udcff' (known: {TOP})"),
    ],
)
def test_a_mistaken_setting_is_named_as_it_was_given(override: str, finding: str) -> None:
    assert list_errors("", override) == [finding]


def test_a_file_is_read_and_named_as_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my.yaml").write_text("mode: obsrve\n", encoding="utf-8")
    assert loader.check(Path("my.yaml")) == [
        Finding(
            path="my.yaml",
            line=1,
            column=7,
            severity="error",
            message="expected 'enforce' or 'observe', got 'obsrve'",
        )
    ]
    Path("my.yaml").write_text("mode: observe\n", encoding="utf-8")
    assert loader.check(Path("my.yaml"), plugins=PLUGINS) == []
    assert loader.load(Path("my.yaml")).config == Config(mode="observe")


def test_a_named_file_must_be_there_and_the_default_one_need_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    default = tmp_path / "balancerd.yaml"
    monkeypatch.setattr(loader, "DEFAULT_PATH", default)
    assert loader.load().config == Config()
    assert [str(each) for each in loader.check(default)] == [f"{default}: error: cannot read it: there is no such file"]
    assert [str(each) for each in loader.check(tmp_path)] == [f"{tmp_path}: error: cannot read it: Is a directory"]
    default.write_text("mode: observe", encoding="utf-8")
    assert loader.load().config.mode == "observe"


@pytest.fixture
def etc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with usr, run and etc, the places of fragments, and balancerd.yaml, which is not there yet."""
    places = tuple(tmp_path / name for name in ("usr", "run", "etc"))
    for place in places:
        place.mkdir()
    monkeypatch.setattr(loader, "DEFAULT_PATH", tmp_path / "balancerd.yaml")
    monkeypatch.setattr(loader, "FRAGMENTS", (*places, tmp_path / "missing"))
    return tmp_path


def write(files: Mapping[str, str], directory: Path) -> None:
    for name, text in files.items():
        (directory / name).write_text(text, encoding="utf-8")


def test_fragments_are_laid_over_the_file_in_the_order_of_their_names(etc: Path) -> None:
    write({"balancerd.yaml": "tick_interval: 1s\nselect: {min_rss: 1GiB, min_cpu: 0.5}"}, etc)
    write({"usr/20-b.yaml": "tick_interval: 3s", "etc/10-a.yaml": "tick_interval: 2s\nselect: {min_cpu: 0.25}"}, etc)
    write({"etc/30-c.yml": "tick_interval: 9s", "etc/README": "tick_interval: 9s"}, etc)
    loaded = loader.load(plugins=PLUGINS)
    assert loaded.config.tick_interval_seconds == 3.0
    assert (loaded.config.select.min_rss_bytes, loaded.config.select.min_cpu_cores) == (1 << 30, 0.25)
    assert loaded.files == tuple(str(etc / name) for name in ("balancerd.yaml", "etc/10-a.yaml", "usr/20-b.yaml"))
    assert {key: str(place) for key, place in loaded.origins.items()} == {
        "tick_interval": f"{etc}/usr/20-b.yaml:1:16",
        "select.min_rss": f"{etc}/balancerd.yaml:2:19",
        "select.min_cpu": f"{etc}/etc/10-a.yaml:2:19",
    }


def test_a_fragment_takes_the_place_of_one_of_the_same_name_and_may_switch_it_off(etc: Path) -> None:
    write({"usr/10-a.yaml": "tick_interval: 3s", "run/10-a.yaml": "tick_interval: 4s"}, etc)
    write({"usr/20-b.yaml": "mode: observe"}, etc)
    (etc / "etc/20-b.yaml").symlink_to("/dev/null")
    loaded = loader.load()
    assert loaded.config == Config.model_validate({"tick_interval": "4s"}, context=FROM_TEXT)
    assert loaded.files == (f"{etc}/run/10-a.yaml", f"{etc}/etc/20-b.yaml")


def test_a_named_file_is_read_alone_and_set_wins_over_fragments(etc: Path) -> None:
    write({"balancerd.yaml": "tick_interval: 1s", "etc/a.yaml": "tick_interval: 2s"}, etc)
    assert loader.load(etc / "balancerd.yaml").config.tick_interval_seconds == 1.0
    assert loader.load(overrides=["tick_interval=5s"]).config.tick_interval_seconds == 5.0


def test_policies_of_a_fragment_are_laid_over_those_of_the_file_or_the_default(etc: Path) -> None:
    write({"etc/a.yaml": "policies: [{name: d, kind: drain}, {name: home, mode: observe}]"}, etc)
    stack = Config().policies
    assert [(p.name, p.kind, p.mode) for p in loader.load().config.policies] == [
        ("d", "drain", None),
        *((p.name, p.kind, "observe" if p.name == "home" else p.mode) for p in stack),
    ]
    write({"balancerd.yaml": "policies: []"}, etc)
    assert [str(each) for each in loader.check()] == [f"{etc}/etc/a.yaml:1:36: error: missing key 'kind': add it"]


def test_what_is_wrong_with_a_fragment_is_told_with_its_name_and_nothing_is_used(etc: Path) -> None:
    write(
        {
            "balancerd.yaml": "mode: obsrve",
            "etc/a.yaml": "tick: 1s",
            "etc/b.yaml": "tick_interval: [",
            "etc/c.yaml": "",
        },
        etc,
    )
    (etc / "run/d.yaml").mkdir()
    with pytest.raises(ConfigError) as caught:
        loader.load()
    told = [str(finding).removeprefix(f"{etc}/").partition(": error: ")[0] for finding in caught.value.findings]
    assert told == ["balancerd.yaml:1:7", "etc/a.yaml:1:1", "etc/b.yaml:2:1", "run/d.yaml"]


def test_a_directory_of_fragments_that_cannot_be_listed_is_an_error(etc: Path) -> None:
    (etc / "run").rmdir()
    (etc / "run").write_text("no directory", encoding="ascii")
    assert [str(each) for each in loader.check()] == [f"{etc}/run: error: cannot read it: Not a directory"]


def test_policies_of_a_loaded_file_can_be_checked_afterwards() -> None:
    loaded = loader.load_text("policies: [{name: h, kind: magic}, {name: i, kind: follow-cpu, dwell: x}]")
    assert [(each.line, each.column) for each in loader.validate_policies(loaded, PLUGINS)] == [(1, 28), (1, 71)]
    assert loader.validate_policies(loader.load_text(""), PLUGINS) == []
    assert [str(each) for each in loader.validate_policies(loader.load_text(""), {})] == [
        "(defaults): error: unknown kind of policy 'follow-cpu' (installed: none)"
    ]


def test_a_place_without_line_is_shown_without_one() -> None:
    assert str(Place(path="a")) == "a"
    assert str(Place(path="a", line=1, column=2)) == "a:1:2"
