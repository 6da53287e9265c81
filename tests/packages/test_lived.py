"""The RPM in a fresh Debian of its own: installed, installed over itself, removed; its scripts call those of systemd.

In a chroot, where no systemd runs: what is told to a running one comes to nothing. It needs root, or sudo.
"""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from balancerd import __version__
from tests.lab import debian
from tests.lab.packages import as_root
from tests.lab.state import lab_directory
from tests.packages.conftest import the_one

CONFIG = Path("/etc/balancerd/balancerd.yaml")
KEPT = Path("/var/lib/balancerd/kept")
UNIT = "balancerd.service"
Inside = Callable[[str], str]


def as_root_told(*words: str | Path) -> str:
    done = subprocess.run([*as_root("make packages-test"), *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, (words, done.stdout, done.stderr)
    return done.stdout


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The tree of the lab's Debian, which holds systemd and Python."""
    image = debian.ensure_root(lab_directory().packages)
    path = tmp_path_factory.mktemp("root")
    as_root_told("env", "PATH=/usr/sbin:/sbin:/usr/bin:/bin", "debugfs", "-R", f"rdump / {path}", image)
    as_root_told("mknod", "-m", "666", path / "dev/null", "c", "1", "3")
    yield path
    as_root_told("rm", "-rf", path)


@pytest.fixture(scope="module")
def inside(root: Path) -> Inside:
    return lambda script: as_root_told("env", "PATH=/usr/sbin:/sbin:/usr/bin:/bin", "chroot", root, "sh", "-c", script)


@pytest.mark.timeout(900)
def test_it_is_installed_upgraded_and_removed_and_leaves_what_is_not_its_own(root: Path, inside: Inside) -> None:
    rpm = ("rpm", "--root", root, "--force-debian")
    package = the_one("*[!c].rpm")

    as_root_told(*rpm, "--nodeps", "--install", package)
    assert inside("stat -c '%U:%G %a' /var/lib/balancerd") == "balancerd:balancerd 750\n"
    assert inside("getent passwd balancerd").endswith(":/var/lib/balancerd:/usr/sbin/nologin\n")
    assert inside(f"systemctl is-enabled {UNIT} || true") == "disabled\n"
    assert inside("balancerd --version") == f"balancerd {__version__}\n"
    inside("balancerctl config check")
    assert as_root_told(*rpm, "--verify", "--nodeps", "balancerd") == ""

    inside(f"echo '# mine' >> {CONFIG}; touch {KEPT}; systemctl enable {UNIT}")
    as_root_told(*rpm, "--nodeps", "--upgrade", "--replacepkgs", package)
    assert inside(f"tail -n 1 {CONFIG}") == "# mine\n"
    assert inside(f"systemctl is-enabled {UNIT}") == "enabled\n"
    inside("balancerctl config check")

    as_root_told(*rpm, "--erase", "balancerd")
    left = inside("find / -xdev -name '*balancer*' -not -path '/proc/*' | sort").split()
    assert left == ["/etc/balancerd", f"{CONFIG}.rpmsave", "/var/lib/balancerd"]
    inside(f"test -f {KEPT}")
