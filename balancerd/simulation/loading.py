"""From a file, or the name of a shipped scenario, to a Scenario; what is wrong is told as for the configuration.

Only this module of the room reads files. It must not know what a scenario means.
"""

from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from pydantic import ValidationError

from balancerd.config import yaml_source
from balancerd.config.explain import explain
from balancerd.config.findings import ConfigError, Place, error, in_reading_order
from balancerd.config.nodes import Table, to_plain
from balancerd.simulation.scenario import Scenario


def shipped() -> dict[str, Traversable]:
    """Return the scenarios that came with the package, by name, in order."""
    folder = resources.files("balancerd.simulation") / "scenarios"
    found = {each.name.removesuffix(".yaml"): each for each in folder.iterdir() if each.name.endswith(".yaml")}
    return dict(sorted(found.items()))


def load(name: str) -> Scenario:
    """Read the file `name`, or the shipped scenario of that name. Raises ConfigError with all findings."""
    known = shipped()
    if name in known:
        return parse_scenario(known[name].read_bytes(), f"{name}.yaml")
    path = Path(name)
    try:
        with path.open("rb") as stream:
            data = stream.read(yaml_source.LARGEST_FILE_BYTES + 1)
    except FileNotFoundError:
        told = f"there is no such file, and no shipped scenario of that name (there are: {', '.join(known)})"
        raise ConfigError([error(Place(path=name), told)]) from None
    except (OSError, ValueError) as reason:
        why = getattr(reason, "strerror", None) or str(reason)
        raise ConfigError([error(Place(path=name), f"cannot read it: {why}")]) from reason
    return parse_scenario(data, name)


def parse_scenario(data: bytes, path: str) -> Scenario:
    """Return the scenario in the bytes of a file that findings call `path`. Raises ConfigError with all findings."""
    document = yaml_source.read_bytes(data, path)
    findings = list(document.findings)
    if document.root is None and findings:
        raise ConfigError(findings)
    root = document.root or Table(place=Place(path=path), entries={})
    try:
        scenario = Scenario.from_text(to_plain(root))
    except ValidationError as reason:
        findings += explain(reason, root, Scenario)
        raise ConfigError(in_reading_order(findings)) from reason
    if findings:
        raise ConfigError(in_reading_order(findings))
    return scenario
