"""balancerd from its wheel, by pipx on a fresh Debian 12 under systemd: a service from `service install` to `remove`.

One boot, and the tests in this order: each begins with what the one before has left. The inside has no network:
pipx finds every wheel in a folder.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.conftest import MachinePool
from tests.lab.installed import CONFIG, IN_TIME, OUT, STEADY, UNIT, Found, Installed, newest_wheels
from tests.lab.state import REPOSITORY

pytestmark = [pytest.mark.host, pytest.mark.thorough, pytest.mark.topology("two-nodes"), pytest.mark.timeout(1200)]

MIB = 72
HOME_MIB = 64
"""What has come home once each mapping has less than a thousand pages elsewhere."""

VENV = "/opt/pipx/venvs/balancerd"
PIPX = "PIPX_HOME=/opt/pipx PIPX_BIN_DIR=/usr/local/bin pipx"
DROP_IN = Path(f"/etc/systemd/system/{UNIT}.d/lab.conf")
WHERE = Path("/usr/local/lib/systemd/system") / UNIT


@pytest.fixture(scope="module")
def fresh(machine_pool: MachinePool) -> Iterator[Installed]:
    """A Debian as its installer leaves it, with pipx."""
    machine_pool.shutdown()
    with Installed("pipx") as guest:
        yield guest


@pytest.fixture(scope="module")
def before(fresh: Installed) -> Found:
    """What there was before anything was installed."""
    return fresh.look_around()


@pytest.fixture(scope="module")
def guest(fresh: Installed, before: Found) -> Installed:  # noqa: ARG001 -- looked at before
    """The same with what pipx has installed."""
    wheels = fresh.machine.out / "wheels"
    wheels.mkdir()
    newest_wheels(wheels)
    given = f"--no-index --find-links={OUT}/wheels --find-links=/usr/share/python-wheels"
    fresh.sh(f"{PIPX} install --pip-args='{given}' balancerd 2>&1", seconds=900.0)
    return fresh


@pytest.mark.parametrize(
    ("folder", "prepare", "said"),
    [
        ("/root/venv", f"ln -s {VENV} /root/venv", "which the unit hides from the daemon (ProtectHome=)"),
        (VENV, "chown 1000 /opt/pipx", "others than root may change /opt/pipx (owner 1000"),
        (VENV, "chmod 700 /opt/pipx", "the user balancerd cannot reach /opt/pipx: chmod o+rX"),
    ],
)
def test_what_would_not_work_is_refused_and_nothing_is_changed(
    guest: Installed, folder: str, prepare: str, said: str
) -> None:
    before = guest.look_around()
    told = guest.sh(f"{prepare}; {folder}/bin/python {folder}/bin/balancerctl service install 2>&1", status=1)
    assert said in told
    guest.sh("rm -f /root/venv; chown 0 /opt/pipx; chmod 755 /opt/pipx")
    assert guest.look_around() == before


def test_a_dry_run_changes_nothing(guest: Installed) -> None:
    before = guest.look_around()
    told = guest.sh("balancerctl service install --dry-run")
    assert f"ExecStart={VENV}/bin/balancerd\n" in told
    assert guest.look_around() == before


def test_it_is_installed_and_started_only_when_it_is_enabled(guest: Installed) -> None:
    told = guest.sh("balancerctl service install")
    assert f"wrote {WHERE}\n" in told
    assert guest.show("ActiveState", "UnitFileState", "FragmentPath") == {
        "ActiveState": "inactive",
        "UnitFileState": "disabled",
        "FragmentPath": str(WHERE),
    }
    assert guest.sh("stat -c '%U %a' /var/lib/balancerd").split() == ["balancerd", "750"]
    assert guest.sh(f"cat {CONFIG}") == (REPOSITORY / "config/balancerd.yaml").read_text(encoding="utf-8")
    guest.put(DROP_IN, IN_TIME)
    guest.configure(STEADY)
    guest.sh(f"systemctl daemon-reload; systemctl enable --now {UNIT}", seconds=330.0)
    pid = guest.show("MainPID")["MainPID"]
    assert guest.sh(f"stat -c %U /proc/{pid}").strip() == "balancerd"
    assert f"{VENV}/bin/balancerd" in guest.sh(f"tr '\\0' ' ' < /proc/{pid}/cmdline")


def test_memory_of_another_user_comes_home(guest: Installed) -> None:
    pid = guest.hog("stray", MIB)
    guest.wait_for_pages(pid, 1, 60.0)
    guest.wait(f"! grep -q ' N0=[0-9]\\{{4\\}}' /proc/{pid}/numa_maps", 60.0, "end of the move")
    assert guest.mib_by_node(pid)[1] >= HOME_MIB


def test_prometheus_has_the_bytes(guest: Installed) -> None:
    shipped = (REPOSITORY / "deploy/prometheus/prometheus.yml").read_text(encoding="utf-8")
    guest.put(Path("/run/shipped.yml"), shipped)
    guest.wait_for_bytes_in_prometheus(Path("/run/shipped.yml"), HOME_MIB << 20)


def test_it_reloads(guest: Installed) -> None:
    guest.sh(f"systemctl reload {UNIT}")
    assert guest.show("ActiveState") == {"ActiveState": "active"}


def test_installing_again_keeps_the_configuration_and_the_daemon(guest: Installed) -> None:
    pid, ours = guest.show("MainPID"), guest.sh(f"sha256sum {CONFIG}")
    told = guest.sh("balancerctl service install")
    assert f"kept {CONFIG}: it is yours" in told
    assert "wrote" not in told
    assert (guest.show("MainPID"), guest.sh(f"sha256sum {CONFIG}")) == (pid, ours)


def test_removing_keeps_what_is_the_operators_and_purging_leaves_nothing(guest: Installed, before: Found) -> None:
    told = guest.sh("balancerctl service remove")
    assert f"kept {DROP_IN.parent}: your drop-ins" in told
    assert guest.show("LoadState", "ActiveState") == {"LoadState": "not-found", "ActiveState": "inactive"}
    guest.sh(f"test -f {CONFIG} && test -f /var/lib/balancerd/history.sqlite && test ! -e {WHERE}")
    guest.sh(f"rm -r {DROP_IN.parent}; balancerctl service remove --purge; {PIPX} uninstall balancerd")
    left = guest.look_around().since(before)
    assert [name for name in left if not name.startswith("/opt/pipx") or "balancerd" in name] == []
