"""python -m tests.mutants [MODULE ...]: how many of the faults put into a module the tests beside it find.

A module of engine/ or policies/ is judged by the unit tests of its name alone, in a copy of the tree: "engine/gate" by
tests/unit/engine/test_gate.py. cosmic-ray makes the faults. What survives is told as a change; some of them change
nothing that anybody could see. Takes minutes for each module.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
ROOMS: Final = ("engine", "policies")
KEPT_OUT: Final = shutil.ignore_patterns(".git", ".venv", ".lab", "build", "dist", "__pycache__")


def modules() -> list[str]:
    """Return all that have tests of their name."""
    paths = (path for room in ROOMS for path in sorted((ROOT / "balancerd" / room).glob("*.py")))
    names = (str(path.relative_to(ROOT / "balancerd").with_suffix("")) for path in paths)
    return [name for name in names if (ROOT / tests_of(name)).exists()]


def tests_of(module: str) -> str:
    """Return the file of the tests of "engine/gate"."""
    room, _, name = module.partition("/")
    return f"tests/unit/{room}/test_{name}.py"


def score(report: str) -> tuple[int, int]:
    """Return how many faults were tried, and how many of them no test found, from what cr-report says."""
    tried = re.search(r"^complete: (\d+)", report, re.MULTILINE)
    survived = re.search(r"^surviving mutants: (\d+)", report, re.MULTILINE)
    if tried is None or survived is None:
        raise ValueError(f"cr-report says something else: {report[-200:]!r}")
    return int(tried[1]), int(survived[1])


def judge(module: str, folder: Path) -> tuple[int, int, str]:
    """Try every fault of one module in the copy at `folder`; return the score, and what survived."""
    base = folder / module.replace("/", "-")
    config, results = base.with_suffix(".toml"), base.with_suffix(".sqlite")
    test = f"{sys.executable} -m pytest -x -q -p no:randomly -p no:cacheprovider -p no:xdist {tests_of(module)}"
    config.write_text(
        f'[cosmic-ray]\nmodule-path = "balancerd/{module}.py"\ntimeout = 60.0\nexcluded-modules = []\n'
        f'test-command = "{test}"\n[cosmic-ray.distributor]\nname = "local"\n',
        encoding="utf-8",
    )
    tools = Path(sys.executable).parent
    for words in (("baseline", config), ("init", config, results), ("exec", config, results)):
        subprocess.run([str(tools / "cosmic-ray"), *map(str, words)], cwd=folder, check=True)
    asked = [str(tools / "cr-report"), "--surviving-only", "--show-diff", str(results)]
    told = subprocess.run(asked, cwd=folder, check=True, capture_output=True, text=True).stdout
    return *score(told), told


def main(arguments: Sequence[str]) -> int:
    """Judge those named, or all; print a line for each."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "tree"
        shutil.copytree(ROOT, folder, ignore=KEPT_OUT)
        for module in arguments or modules():
            tried, survived, told = judge(module, folder)
            print(f"{module}: {tried} faults, {tried - survived} found, {100 * (tried - survived) / tried:.0f} %")
            (ROOT / "build").mkdir(exist_ok=True)
            (ROOT / "build" / f"mutants-{module.replace('/', '-')}.txt").write_text(told, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
