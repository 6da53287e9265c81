"""python -m tests.traces.pythons: make ready the newest other Python that is here, for it to decide golden traces.

Of those that balancerd runs on, from the search path and of pyenv. It gets an environment of its own beside the one
that runs this: the daemon's packages by hash, and the same metadata of balancerd, for that names the policies.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

ROOT = Path(__file__).parents[2]
REQUIREMENTS = ROOT / "deploy" / "requirements" / "run.txt"
MINORS = (14, 13, 12, 11)
PLACE = Path(sys.prefix) / "other-python"


def other_python() -> Path | None:
    """Return the Python that was made ready; None: there was none, or `make` has not been asked to."""
    python = PLACE / "bin" / "python"
    return python if python.exists() else None


def find() -> Path | None:
    """Return the newest other version that starts."""
    for minor in MINORS:
        if minor == sys.version_info.minor:
            continue
        for path in _candidates(f"python3.{minor}"):
            asked = [str(path), "-c", "import venv, sys; print(sys.version_info.minor)"]
            done = subprocess.run(asked, capture_output=True, text=True, check=False)
            if done.stdout.strip() == str(minor):
                return path
    return None


def make_ready(python: Path) -> None:
    """Make the environment of another version anew. Raises CalledProcessError."""
    shutil.rmtree(PLACE, ignore_errors=True)
    fresh = PLACE.with_suffix(".new")
    shutil.rmtree(fresh, ignore_errors=True)
    subprocess.run([python, "-m", "venv", fresh], check=True)
    pip = [str(fresh / "bin" / "python"), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, "--require-hashes", "--only-binary", ":all:", "-r", REQUIREMENTS], check=True)
    (packages,) = fresh.glob("lib/python3.*/site-packages")
    metadata = Path(str(distribution("balancerd").locate_file("")))
    (told,) = metadata.glob("balancerd-*.dist-info")
    shutil.copytree(told, packages / told.name)
    fresh.rename(PLACE)


def _candidates(name: str) -> Iterator[Path]:
    found = shutil.which(name)
    if found is not None:
        yield Path(found)
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    yield from sorted(pyenv.glob(f"versions/*/bin/{name}"))


def main() -> int:
    python = find()
    if python is None:
        print("no other version of Python is here: golden traces are decided by this one alone")
        return 0
    make_ready(python)
    print(f"golden traces will be decided by {python}, too")
    return 0


if __name__ == "__main__":
    sys.exit(main())
