"""Which unit tests judge a module of engine/ or policies/: those of its name, else those of the modules that use it."""

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
ROOMS: Final = ("engine", "policies")

UNDER_OTHER_NAMES: Final = {"engine/plan": ("tests/unit/engine/test_arbitration.py",)}
"""What is about a module, beside the tests of its name."""

OF_OTHERS: Final = {
    "engine/accounts": ("engine/workloads",),
    "engine/circumstances": ("engine/plan",),
    "engine/holds": ("engine/owners", "engine/ledger", "engine/quarantine", "engine/trust", "engine/pause"),
    "engine/laps": ("engine/tick",),
    "engine/movable": ("engine/plan", "engine/trust", "engine/blocks", "policies/follow_cpu", "policies/threads"),
    "engine/owned": ("policies/access", "policies/interleave"),
    "engine/parts": ("engine/ledger",),
    "engine/pieces": ("engine/warmth", "policies/tiering", "policies/cold_eviction"),
    "engine/progress": ("policies/follow_cpu", "policies/cpuset_follow", "policies/rule"),
    "engine/ranges": ("engine/plan", "policies/cold_eviction"),
    "engine/receding": ("policies/follow_cpu",),
    "engine/shortage": ("policies/packing",),
    "engine/spread": ("policies/access", "policies/interleave"),
    "policies/consolidating": ("policies/packing",),
    "policies/relief": ("policies/packing",),
    "policies/tiered": ("policies/tiering",),
    "policies/warming": ("policies/tiering", "policies/cold_eviction"),
    "policies/watching": ("policies/access", "policies/interleave", "policies/tiering"),
}
"""Modules without tests of their name, and whose tests judge them."""


def modules() -> list[str]:
    """Return all of both rooms: "engine/gate" ..."""
    paths = (path for room in ROOMS for path in sorted((ROOT / "balancerd" / room).glob("*.py")))
    return [f"{path.parent.name}/{path.stem}" for path in paths if path.stem != "__init__"]


def judges_of(module: str) -> tuple[str, ...]:
    """Return the files that judge a module; none when there are none."""
    others = tuple(file for other in OF_OTHERS.get(module, ()) for file in named_after(other))
    return (named_after(module) or others) + UNDER_OTHER_NAMES.get(module, ())


def named_after(module: str) -> tuple[str, ...]:
    """Return test_gate.py and test_gate_*.py for "engine/gate", as far as they are there."""
    room, _, name = module.partition("/")
    folder = Path("tests/unit") / room
    wanted = (f"test_{name}.py", f"test_{name}_*.py")
    return tuple(str(path.relative_to(ROOT)) for each in wanted for path in sorted((ROOT / folder).glob(each)))
