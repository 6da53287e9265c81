import json
import subprocess
import sys
from collections.abc import Iterator
from typing import get_args

import pytest
from pydantic import BaseModel, ValidationError

from balancerd.config import loader
from balancerd.config.fields import FROM_TEXT, Section, yaml_key
from balancerd.config.findings import ConfigError
from balancerd.config.schema import (
    Config,
    EvictConfig,
    ManagerName,
    MetricsConfig,
    MigrateConfig,
    PolicyConfig,
    SelectConfig,
)
from balancerd.config.telling import HistoryConfig, LogConfig
from balancerd.config.units import ListenAddress
from balancerd.model.manager import Manager

MIB = 1024**2


def test_the_defaults_are_the_ones_promised() -> None:
    assert Config() == Config(
        mode="enforce",
        tick_interval_seconds=2.0,
        select=SelectConfig(min_rss_bytes=64 * MIB, min_cpu_cores=0.05, min_age_seconds=5.0, scan_budget_ratio=0.005),
        migrate=MigrateConfig(
            rate_limit_bytes_per_second=1024 * MIB,
            process_rate_limit_bytes_per_second=512 * MIB,
            node_pair_rate_limit_bytes_per_second=1024 * MIB,
            stall_target_seconds=0.005,
            stall_limit_seconds=None,
            duty_cycle_ratio=0.5,
            cooldown_seconds=20.0,
            watermark_ratio=0.02,
            max_memory_pressure_ratio=0.1,
            max_cpu_pressure_ratio=0.4,
            move_all=False,
        ),
        evict=EvictConfig(rate_limit_bytes_per_second=64 * MIB, max_swap_used_ratio=0.8),
        metrics=MetricsConfig(listen=ListenAddress("127.0.0.1", 9923)),
        history=HistoryConfig(enabled=True, path=None, max_rows=100_000, max_size_bytes=64 * MIB),
        log=LogConfig(level="info", format="auto"),
        policies=(PolicyConfig(name="home", kind="follow-cpu"),),
    )
    assert Config().control.socket == "/run/balancerd/control.sock"
    assert Config().control.group is None


def test_the_configuration_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Config().select.min_rss_bytes = 0


@pytest.mark.parametrize(
    ("attribute", "key"),
    [
        ("tick_interval_seconds", "tick_interval"),
        ("min_rss_bytes", "min_rss"),
        ("min_cpu_cores", "min_cpu"),
        ("rate_limit_bytes_per_second", "rate_limit"),
        ("watermark_ratio", "watermark"),
        ("mode", "mode"),
    ],
)
def test_the_key_of_a_setting_is_its_name_without_the_unit(attribute: str, key: str) -> None:
    assert yaml_key(attribute) == key


def test_a_setting_cannot_be_written_by_its_attribute_name() -> None:
    with pytest.raises(ValidationError, match=r"min_age_seconds\n.*Extra inputs"):
        SelectConfig.from_text({"min_age_seconds": "3s"})
    assert SelectConfig.from_text({"min_age": "3s"}) == SelectConfig(min_age_seconds=3.0)


def test_typed_values_are_checked_in_python_too() -> None:
    with pytest.raises(ValidationError, match="must lie between 0% and 90%, got 95%"):
        MigrateConfig(watermark_ratio=0.95)
    with pytest.raises(ValidationError, match="finite"):
        SelectConfig(min_cpu_cores=float("nan"))
    with pytest.raises(ValidationError, match="expected a duration such as 2s, got true"):
        SelectConfig(min_age_seconds=True)


@pytest.mark.parametrize(
    ("target", "limit", "effective"), [(0.005, None, 0.02), (0.2, None, 0.8), (0.005, 0.005, 0.005), (0.005, 1.0, 1.0)]
)
def test_the_stall_limit_is_four_times_the_target_unless_it_is_set(
    target: float, limit: float | None, effective: float
) -> None:
    config = MigrateConfig(stall_target_seconds=target, stall_limit_seconds=limit)
    assert config.effective_stall_limit_seconds == pytest.approx(effective)


def test_a_stall_limit_below_the_target_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"must not be below stall_target \(5ms\), got 4ms: write null for 20ms"):
        MigrateConfig(stall_limit_seconds=0.004)


def test_the_configuration_survives_being_written_out() -> None:
    config = Config(
        mode="observe",
        tick_interval_seconds=0.25,
        select=SelectConfig(min_rss_bytes=100_000_001, scan_budget_ratio=0.0123),
        migrate=MigrateConfig(stall_limit_seconds=0.5, max_cpu_pressure_ratio=None, move_all=True),
        metrics=MetricsConfig(listen=ListenAddress("::1", 1)),
        policies=(PolicyConfig.model_validate({"name": "a", "kind": "k", "mode": "observe", "deep": {"x": [1]}}),),
    )
    assert Config.from_text(config.model_dump(by_alias=True)) == config


def test_keys_that_a_policy_does_not_know_are_its_options() -> None:
    policy = PolicyConfig.from_text({"name": "a", "kind": "k", "mode": "observe", "home_share": 0.8, "options": 1})
    assert (policy.name, policy.kind, policy.mode) == ("a", "k", "observe")
    assert policy.options == {"home_share": 0.8, "options": 1}
    assert PolicyConfig(name="a", kind="k").options == {}


def test_every_setting_is_described() -> None:
    assert [f"{model.__name__}.{name}" for model, name in list_fields(Config) if not is_described(model, name)] == []


def test_decisions_may_import_the_schema_because_it_reaches_no_yaml() -> None:
    program = "import sys, json, balancerd.config.schema; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    modules = json.loads(done.stdout)
    assert "yaml" not in modules
    assert [name for name in modules if name.startswith("balancerd")] == [
        "balancerd",
        "balancerd.config",
        "balancerd.config.fields",
        "balancerd.config.id_lists",
        "balancerd.config.names",
        "balancerd.config.patterns",
        "balancerd.config.schema",
        "balancerd.config.telling",
        "balancerd.config.units",
        "balancerd.model",
        "balancerd.model.ids",
        "balancerd.model.printable",
    ]


def test_the_context_of_a_file_is_what_refuses_bare_numbers() -> None:
    assert SelectConfig.model_validate({"min_age": 3}) == SelectConfig(min_age_seconds=3.0)
    with pytest.raises(ValidationError, match="a duration needs a unit: write 3s"):
        SelectConfig.model_validate({"min_age": 3}, context=FROM_TEXT)


def list_fields(model: type[BaseModel]) -> Iterator[tuple[type[BaseModel], str]]:
    for name, field in model.model_fields.items():
        yield model, name
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from list_fields(field.annotation)
    if model is Config:
        yield from list_fields(PolicyConfig)


def is_described(model: type[BaseModel], name: str) -> bool:
    description = model.model_fields[name].description
    return description is not None and description.endswith(".")


def test_every_manager_can_be_yielded_to_but_mempolicies_which_are_respected_anyway() -> None:
    assert set(get_args(ManagerName)) == set(Manager) - {Manager.MEMPOLICY}
    assert set(Config().yield_to) == set(get_args(ManagerName)) - {"kernel-balancing", "affinity"}


@pytest.mark.parametrize(
    ("text", "yield_to"), [("yield_to: []", ()), ("yield_to: [numad, affinity]", ("numad", "affinity"))]
)
def test_whom_to_yield_to_is_a_list_of_names(text: str, yield_to: tuple[str, ...]) -> None:
    assert loader.load_text(text).config.yield_to == yield_to


def test_a_name_that_no_manager_has_is_an_error_at_its_place() -> None:
    with pytest.raises(ConfigError) as caught:
        loader.load_text("yield_to: [numad, nomad]")
    (finding,) = caught.value.findings
    assert str(finding).startswith("balancerd.yaml:1:19: error: ")
    assert "numad" in str(finding)


@pytest.mark.parametrize("path", ["history.sqlite", "/etc/passwd", "/var/lib/balancerd/history.db", "/a\0.sqlite"])
def test_a_history_is_a_file_that_says_by_its_name_that_it_is_one(path: str) -> None:
    with pytest.raises(ValidationError, match=r"whose name ends in \.sqlite"):
        HistoryConfig(path=path)
    assert HistoryConfig(path="/srv/numa.sqlite").path == "/srv/numa.sqlite"
