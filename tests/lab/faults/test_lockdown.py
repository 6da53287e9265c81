"""What the daemon is not allowed: it says exactly what is missing, moves nothing that it may not, and goes on."""

import json
import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.lab.faults.asking import CALM, pages_off
from tests.lab.faults.conftest import Fault
from tests.lab.faults.tally import Tally
from tests.lab.service import BIN, Balancerd
from tests.lab.workloads import Hog, binary

pytestmark = [pytest.mark.topology("four-nodes"), pytest.mark.thorough]

MIB = 32
SOURCE, TARGET = 2, 0
NOBODY = 65534
AS_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
OF_ANOTHER = ("setpriv", "--reuid=33", "--regid=33", "--clear-groups")
"""A hog of a user that is neither root nor the daemon's."""

FOLLOWING = {**CALM, "select.min_age": "1s", "tick_interval": "1s"}
SECONDS = 12.0
"""Where all is allowed, memory comes home in less."""

PROCESS_VM = "256,279"
"""migrate_pages and move_pages, arch/x86/entry/syscalls/syscall_64.tbl."""


def capable(*names: str) -> Sequence[str]:
    """A user of its own with these capabilities and no others, as the unit has it."""
    given = ",".join(f"+{name}" for name in names)
    held = (f"--inh-caps={given}", f"--ambient-caps={given}", f"--bounding-set=-all,{given}") if given else ()
    return (*AS_NOBODY, *(held or ("--bounding-set=-all",)))


def rooted(*dropped: str) -> Sequence[str]:
    """Root without these capabilities."""
    taken = ",".join(f"-{name}" for name in dropped)
    return ("setpriv", f"--inh-caps={taken}", f"--bounding-set={taken}")


HIDDEN = ("unshare", "--mount", "sh", "-c", 'mount -t proc -o hidepid=2 proc /proc && exec "$@"', "sh")

NEEDED = "capability sys_ptrace, capability sys_nice, ptrace (read, trace),"
"""Rules without which no memory of other users' processes can be moved: apparmor.d(5)."""

PROFILES = {
    "lab-all-but-ptrace": "deny capability sys_ptrace, deny ptrace, capability,",
    "lab-needed": f"deny capability sys_admin, deny capability dac_override, capability dac_read_search, {NEEDED}",
}
"""Of AppArmor, by name: what they say of capabilities and of other processes."""


def confined(profile: str) -> Sequence[str]:
    """Root under a profile of AppArmor."""
    change = f'printf "exec {profile}" > /proc/self/attr/apparmor/exec && exec "$@"'
    return ("sh", "-c", change, "sh")


@pytest.fixture(scope="module")
def _profiles(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Load the profiles. They are gone with the machine."""
    for name, rules in PROFILES.items():
        path = tmp_path_factory.mktemp("profiles") / name
        path.write_text(f"profile {name} flags=(attach_disconnected) {{ file, network, unix, signal, {rules} }}\n")
        subprocess.run(["apparmor_parser", "--replace", "--skip-cache", str(path)], check=True)


CASES: dict[str, tuple[str, Sequence[str], bool, str]] = {
    "all-capabilities": (
        "the daemon is a user with CAP_SYS_PTRACE and CAP_SYS_NICE",
        capable("sys_ptrace", "sys_nice"),
        True,
        "",
    ),
    "no-capability": ("the daemon is a user without capabilities", capable(), False, "CAP_SYS_PTRACE"),
    "no-ptrace": ("the daemon is a user with CAP_SYS_NICE alone", capable("sys_nice"), False, "CAP_SYS_PTRACE"),
    "no-nice": ("the daemon is a user with CAP_SYS_PTRACE alone", capable("sys_ptrace"), True, "CAP_SYS_NICE"),
    "root-without-ptrace": ("the daemon is root without CAP_SYS_PTRACE", rooted("sys_ptrace"), False, "CAP_SYS_PTRACE"),
    "hidepid": ("/proc is mounted with hidepid=2, and no capability", (*HIDDEN, *capable()), False, "hidepid"),
    "hidepid-ptrace": (
        "/proc is mounted with hidepid=2, with CAP_SYS_PTRACE and CAP_SYS_NICE",
        (*HIDDEN, *capable("sys_ptrace", "sys_nice")),
        True,
        "",
    ),
    "no-move-pages": (
        "the daemon has a seccomp filter without migrate_pages(2) and move_pages(2)",
        (str(binary("without")), PROCESS_VM),
        False,
        "seccomp",
    ),
    "no-pidfd": (
        "the daemon has a seccomp filter without pidfd_open(2)",
        (str(binary("without")), "434"),
        False,
        "pidfd",
    ),
    "apparmor": (
        "the daemon is root in an AppArmor profile that denies ptrace",
        confined("lab-all-but-ptrace"),
        False,
        "confined as lab-all-but-ptrace",
    ),
    "apparmor-allows": (
        "the daemon is root in an AppArmor profile that allows ptrace, and denies what it does not need",
        confined("lab-needed"),
        True,
        "",
    ),
    "no-affinity": (
        "the daemon has a seccomp filter without sched_setaffinity(2)",
        (str(binary("without")), "203"),
        True,
        "affinity",
    ),
}
"""What is missing, how the daemon is started, whether memory of others may move, and what doctor must name."""


def open_to_nobody(folder: Path) -> None:
    os.chown(folder, NOBODY, NOBODY)
    for parent in (folder, *folder.parents):
        parent.chmod(parent.stat().st_mode | 0o755)


def examine(tally: Tally, folder: Path, prefix: Sequence[str], *, may_move: bool) -> None:
    """Let a daemon with less find memory that is far from its thread."""
    with (
        Hog("base", MIB, touch_cpu=SOURCE, spin_cpu=TARGET, busy_percent=40, prefix=OF_ANOTHER) as hog,
        Balancerd(folder, overrides=FOLLOWING, prefix=prefix) as daemon,
    ):
        end = time.monotonic() + SECONDS
        while time.monotonic() < end and not (may_move and pages_off(hog.pid, TARGET) < MIB):
            time.sleep(0.5)
        if may_move:
            daemon.wait_for(lambda: pages_off(hog.pid, TARGET) < MIB, 60.0, "homecoming")
        else:
            tally.stay(pages_off(hog.pid, SOURCE))
        tally.audit(daemon)
        told = daemon.balancerctl("explain", str(hog.pid), "--json")
        reason = json.loads(told.stdout)["process"]["reason"] if told.returncode == 0 else "not seen"
        tally.count(f"explained as {reason}")
        tally.verify(hog.end(), MIB * 256)
        assert daemon.stop() == 0


@pytest.mark.usefixtures("_profiles")
@pytest.mark.parametrize("name", CASES)
def test_who_may_less_says_what_is_missing_and_moves_nothing_that_it_may_not(
    fault: Fault, tmp_path: Path, name: str
) -> None:
    what, prefix, may_move, missing = CASES[name]
    with fault(name, what, few=1, many=1) as tally:
        for number in tally.tries:
            folder = tmp_path / str(number)
            folder.mkdir()
            if AS_NOBODY[1] in prefix:
                open_to_nobody(folder)
            with tally.trying():
                examine(tally, folder, prefix, may_move=may_move)
                if missing:
                    said = doctor(folder, prefix)
                    assert any(missing in line for line in said), said
                    tally.count("doctor named it")


def doctor(folder: Path, prefix: Sequence[str]) -> list[str]:
    """Return what doctor finds amiss under the same restrictions, each with its fix."""
    command = [*prefix, str(BIN / "balancerctl"), "--socket", str(folder / "control.sock"), "doctor", "--json"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    checks = json.loads(ran.stdout)["checks"]
    return [f"{check['name']}: {check['seen']}: {check['fix']}" for check in checks if check["status"] != "ok"]
