"""The steps of the image's build in chroots, as no engine is here: one with a compiler, and one that has but Python.

They are Debian's own, not those that the Containerfile names, and reach no network: what pip is to find is fetched
before. It needs root, or sudo.
"""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from balancerd import __version__
from tests.lab import debian
from tests.lab.state import lab_directory
from tests.packages.test_lived import as_root_told
from tests.unit.deploy.test_container import copied, stages, values

ROOT = Path(__file__).parents[2]
TO_BUILD = ("gcc", "libc6-dev", "python3-dev", "python3-venv")
USER = "10001:10001"
Inside = Callable[..., str]


@contextmanager
def chroot(folder: Path, packages: tuple[str, ...] = ()) -> Iterator[Inside]:
    """A Debian with these packages; gives what runs a command in it, with more variables and as a user if need be."""
    as_root_told("mkdir", folder)
    as_root_told(
        *("env", "PATH=/usr/sbin:/sbin:/usr/bin:/bin", "debugfs", "-R", f"rdump / {folder}"),
        debian.ensure_root(lab_directory().packages, packages),
    )
    as_root_told("mknod", "-m", "666", folder / "dev/null", "c", "1", "3")
    as_root_told("mknod", "-m", "666", folder / "dev/urandom", "c", "1", "9")

    def run(*words: str, user: str = "0:0", path: str = "/usr/sbin:/usr/bin:/sbin:/bin", **variables: str) -> str:
        enter = ("env", "PATH=/usr/sbin:/sbin:/usr/bin:/bin", "chroot", f"--userspec={user}", folder)
        clean = ("/usr/bin/env", "-i", f"PATH={path}", *(f"{name}={value}" for name, value in variables.items()))
        return as_root_told(*enter, *clean, *words)

    try:
        yield run
    finally:
        as_root_told("rm", "-rf", folder)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What pip would fetch for Debian's Python."""
    folder = tmp_path_factory.mktemp("wheels")
    for name in ("build", "run"):
        subprocess.run(
            [
                *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"),
                *("--require-hashes", "--only-binary=:all:", "--python-version=3.11", f"--dest={folder}"),
                f"--requirement={ROOT}/deploy/requirements/{name}.txt",
            ],
            check=True,
        )
    return folder


@pytest.mark.timeout(1200)
def test_the_steps_of_both_stages_make_a_daemon_that_runs_as_its_user(tmp_path: Path, wheels: Path) -> None:
    build, last = stages()
    (source,), (step,) = values(build, "WORKDIR"), values(build, "RUN")
    build_root, last_root = tmp_path / "build", tmp_path / "last"
    with chroot(build_root, TO_BUILD) as in_build, chroot(last_root) as in_last:
        as_root_told("cp", "-r", wheels, f"{build_root}/wheels")
        for name, place in copied(build):
            target = build_root / source.lstrip("/") / place / (Path(name).name if place.endswith("/") else "")
            as_root_told("mkdir", "-p", target.parent)
            as_root_told("cp", "-rL" if place.endswith("/") else "-rT", ROOT / name, target)
        as_root_told("find", build_root / source.lstrip("/"), "-name", "*.so", "-delete")
        in_build("sh", "-c", f"cd {source} && {step}", PIP_NO_INDEX="1", PIP_FIND_LINKS="/wheels", HOME="/root")

        place = step.split()[-1].lstrip("/")
        as_root_told("mkdir", "-p", last_root / place)
        as_root_told("cp", "-aT", build_root / place, last_root / place)
        for name, at in copied(last):
            as_root_told("mkdir", "-p", (last_root / at.lstrip("/")).parent)
            as_root_told("cp", "-rT", ROOT / name, last_root / at.lstrip("/"))
        for command in values(last, "RUN"):
            in_last("sh", "-c", command)
        as_root_told("mount", "-t", "proc", "proc", last_root / "proc")
        as_root_told("mount", "--rbind", "/sys", last_root / "sys")
        try:
            path = f"/{place}/bin:/usr/bin:/bin"
            (user,) = values(last, "USER")
            assert user == USER
            assert in_last("sh", "-c", "command -v gcc || echo none", path=path) == "none\n"
            assert in_last("balancerd", "--version", user=user, path=path) == f"balancerd {__version__}\n"
            in_last("balancerctl", "config", "check", "/etc/balancerd/balancerd.yaml", user=user, path=path)
            in_last("balancerd", "--once", "--set", "metrics.listen=null", user=user, path=path)
        finally:
            as_root_told("umount", "--recursive", last_root / "sys")
            as_root_told("umount", last_root / "proc")
