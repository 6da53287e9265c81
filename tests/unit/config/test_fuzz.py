from hypothesis import given, settings
from hypothesis import strategies as st

from balancerd.config import loader
from balancerd.config.findings import ConfigError
from balancerd.config.schema import Config
from tests.unit.config.plugins import PLUGINS

KEYS = st.sampled_from(
    [
        *("mode", "select", "migrate", "policies", "metrics", "listen", "name", "kind", "min_rss", "tick_interval"),
        *("exclude", "workloads", "match", "comm", "uid", "root", "(a+)+", "x", "0"),
    ]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | KEYS
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12
)


def write_flow(value: object) -> str:
    """The value as YAML on one line, whatever it holds."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {write_flow(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(write_flow, value)) + "]"
    return "null" if value is None else str(value)


@settings(deadline=None, max_examples=300)
@given(st.text(max_size=200) | st.dictionaries(KEYS, VALUES, max_size=5).map(write_flow))
def test_no_text_raises_anything_but_a_config_error(text: str) -> None:
    try:
        loaded = loader.load_text(text, plugins=PLUGINS)
    except ConfigError as reason:
        assert any(finding.severity == "error" for finding in reason.findings)  # noqa: PT017 -- both ends are allowed
    else:
        assert Config.from_text(loaded.config.model_dump(by_alias=True)) == loaded.config


@settings(deadline=None, max_examples=300)
@given(st.text(max_size=40) | st.builds("{}.{}={}".format, KEYS, KEYS, SCALARS))
def test_no_setting_raises_anything_but_a_config_error(override: str) -> None:
    try:
        loaded = loader.load_text("", overrides=[override], plugins=PLUGINS)
    except ConfigError as reason:
        assert all(finding.path.startswith("--set") for finding in reason.findings)  # noqa: PT017 -- as above
    else:
        assert loaded.origins
