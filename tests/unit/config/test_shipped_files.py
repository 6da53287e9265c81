"""config/balancerd.yaml and config/balancerd.schema.json: what is shipped is what the code says."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from balancerd import plugins, stack
from balancerd.config import loader
from balancerd.config.findings import ConfigError
from balancerd.config.json_schema import build_json_schema, render_json_schema
from balancerd.config.schema import Config
from balancerd.settings import options_by_kind

SHIPPED = Path(__file__).parents[3] / "config"
SCHEMA: Any = build_json_schema()
WARNINGS = {
    "50-kubernetes-node": [
        "warning: 0.0.0.0:9923 is open to other machines, without a password: write 127.0.0.1:9923 or use a firewall"
    ]
}
"""Of examples that cannot do without."""


def find(*keys: str) -> Any:
    """The schema of one setting; the references of sections followed."""
    here = SCHEMA
    for key in keys:
        here = here["properties"][key]
        if "$ref" in here:
            here = SCHEMA["$defs"][here["$ref"].removeprefix("#/$defs/")]
    return here


def test_the_shipped_file_says_exactly_the_defaults_and_leaves_none_out() -> None:
    loaded = loader.load(SHIPPED / "balancerd.yaml")
    assert loaded.findings == ()
    assert loaded.config == Config()
    written = json.loads(loaded.config.model_dump_json(by_alias=True))
    settings = {f"{key}.{name}" for key, value in written.items() if isinstance(value, dict) for name in value}
    settings |= {key for key, value in written.items() if isinstance(value, str)} | {
        "policies.0.name",
        "policies.0.kind",
        "state_directory",
        "workloads",
    }
    settings = (settings - {"accesses.sources"}) | {"accesses.sources.0"}
    settings |= {f"yield_to.{index}" for index in range(len(loaded.config.yield_to))}
    assert set(loaded.origins) == settings


def test_the_shipped_schema_is_the_generated_one() -> None:
    assert (SHIPPED / "balancerd.schema.json").read_text(encoding="utf-8") == render_json_schema(), (
        "write it anew: balancerctl config schema > config/balancerd.schema.json"
    )


@pytest.mark.parametrize("example", sorted((SHIPPED / "conf.d").iterdir()), ids=lambda path: path.stem)
def test_examples_of_fragments_work_upon_the_shipped_file_and_change_something(
    example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / example.name).symlink_to(example)
    monkeypatch.setattr(loader, "DEFAULT_PATH", SHIPPED / "balancerd.yaml")
    monkeypatch.setattr(loader, "FRAGMENTS", (tmp_path,))
    installed = plugins.discover()
    loaded = loader.load(plugins=options_by_kind(installed))
    assert loaded.files == (str(SHIPPED / "balancerd.yaml"), str(tmp_path / example.name))
    found = (*loaded.findings, *stack.advise_on_options(loaded, installed))
    assert [str(each).partition(": ")[2] for each in found] == WARNINGS.get(example.stem, [])
    assert loaded.config != Config()
    assert [policy.name for policy in loaded.config.policies][-1] == "home"
    assert jsonschema_rs.validator_for(SCHEMA).is_valid(yaml.safe_load(example.read_text(encoding="utf-8")))


def test_the_schema_says_which_draft_it_is_and_refuses_unknown_keys() -> None:
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    sections = [SCHEMA, *SCHEMA["$defs"].values()]
    assert {each["title"] for each in sections if each["additionalProperties"]} == {"PolicyConfig"}


@pytest.mark.parametrize(
    ("keys", "default"),
    [
        (("tick_interval",), "2s"),
        (("select", "min_rss"), "64MiB"),
        (("select", "min_cpu"), 0.05),
        (("select", "scan_budget"), "0.5%"),
        (("select", "read_timeout"), "100ms"),
        (("migrate", "rate_limit"), "1GiB/s"),
        (("migrate", "stall_limit"), None),
        (("migrate", "max_memory_pressure"), "10%"),
        (("evict", "max_swap_used"), "80%"),
        (("metrics", "listen"), "127.0.0.1:9923"),
    ],
)
def test_defaults_in_the_schema_are_written_as_in_the_file(keys: tuple[str, ...], default: object) -> None:
    assert find(*keys)["default"] == default


@pytest.mark.parametrize(
    ("keys", "good", "bad"),
    [
        (("tick_interval",), ["2s", "1m30s", "1.5s"], ["2", "2 s", "-2s", "fast"]),
        (("select", "min_rss"), ["64MiB", "1GB", "0B"], ["64", "64M"]),
        (("select", "scan_budget"), ["5%", "0.5"], ["half", "%"]),
        (("migrate", "rate_limit"), ["1GiB/s", "200MB/s"], ["1GiB", "1"]),
        (("metrics", "listen"), ["127.0.0.1:9923", "[::1]:9923"], ["9923", ":9923"]),
        (("control", "group"), ["adm"], ["a b"]),
    ],
)
def test_patterns_in_the_schema_tell_good_from_bad_like_the_loader(
    keys: tuple[str, ...], good: list[str], bad: list[str]
) -> None:
    setting = find(*keys)
    (pattern,) = [each["pattern"] for each in (setting, *setting.get("anyOf", ())) if "pattern" in each]
    assert [text for text in good + bad if re.search(pattern, text)] == good
    for text in good + bad:
        document = json.dumps({keys[0]: {keys[1]: text}} if len(keys) == 2 else {keys[0]: text})
        errors = [each for each in _list_findings(document) if each.severity == "error"]
        assert bool(errors) == (text in bad)


def _list_findings(document: str) -> tuple[Any, ...]:
    try:
        return loader.load_text(document).findings
    except ConfigError as reason:
        return reason.findings
