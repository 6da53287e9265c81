"""The seccomp profile that is shipped, loaded into this kernel: the daemon works under it, and hardly anything else."""

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.deploy.confined import number_of
from tests.unit.test_prometheus_server import free_port

ROOT = Path(__file__).parents[3]
PROFILE = ROOT / "deploy" / "container" / "seccomp.json"
BIN = Path(sys.executable).parent
DEADLINE_SECONDS = 60.0
TICKS = ('balancerd_ticks_total{outcome="success"}', 'balancerd_ticks_total{outcome="degraded"}')
CAPABILITIES = ("setpriv", "--no-new-privs", "--bounding-set=-all,+sys_ptrace,+sys_nice", "--inh-caps=-all")
"""What the DaemonSet gives; the bounding set is root's to change."""

NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")

MAKE_A_CALL = """
import ctypes, errno, sys
libc = ctypes.CDLL(None, use_errno=True)
got = libc.syscall(*map(ctypes.c_long, map(int, sys.argv[1:])))
print(errno.errorcode[ctypes.get_errno()] if got < 0 else "done")
"""

# Each is harmless where no filter is: it asks for nothing, or for what cannot be.
FORBIDDEN = {
    "ptrace": (0, 0, 0, 0),
    "process_vm_readv": (0, 0, 0, 0, 0, 0),
    "process_vm_writev": (0, 0, 0, 0, 0, 0),
    "perf_event_open": (0, 0, 0, -1, 0),
    "bpf": (-1, 0, 0),
    "mount": (0, 0, 0, 0, 0),
    "unshare": (0,),
    "setns": (-1, 0),
    "chroot": (0,),
    "keyctl": (-1,),
    "userfaultfd": (-1,),
    "init_module": (0, 0, 0),
    "setuid": (0,),
    "kill": (1, 0),
    "pidfd_send_signal": (-1, 0, 0, 0),
    "clone": (0x00020200, 0, 0, 0, 0),  # CLONE_NEWNS | CLONE_FS, which exclude each other: clone(2)
    "socket": (16, 3, 0),  # AF_NETLINK, SOCK_RAW: the route family
    "process_mrelease": (-1, 0),
    "set_mempolicy": (0, 0, 0),
    "mbind": (0, 0, 0, 0, 0, 0),
}


def confined(*command: str | Path, fatal: bool = False) -> list[str]:
    """The command under the profile, and as root with no other capabilities than the DaemonSet's."""
    privileges = CAPABILITIES if os.geteuid() == 0 else ()
    strictly = ("--fatal",) if fatal else ()
    launcher = (sys.executable, "-m", "tests.unit.deploy.confined", str(PROFILE))
    return [*privileges, *launcher, *strictly, *map(str, command)]


@contextlib.contextmanager
def asleep(*privileges: str) -> Iterator[int]:
    """A process that sleeps; its pid."""
    with subprocess.Popen([*privileges, "sleep", "300"]) as sleeping:
        try:
            yield sleeping.pid
        finally:
            sleeping.kill()


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path, int]]:
    """The real daemon, killed at the first call that the profile does not name; its socket, and the port of /readyz."""
    socket, port = tmp_path / "control.sock", free_port()
    settings = {
        "tick_interval": "500ms",
        "select": {"min_rss": "1MiB", "min_age": "100ms", "min_cpu": 0},
        "control": {"socket": str(socket)},
        "metrics": {"listen": f"127.0.0.1:{port}"},
        "state_directory": str(tmp_path),
        "policies": [{"name": "cpusets", "kind": "cpuset-follow"}, {"name": "home", "kind": "follow-cpu"}],
    }
    (tmp_path / "balancerd.yaml").write_text(json.dumps(settings))
    command = confined(BIN / "balancerd", "--config", tmp_path / "balancerd.yaml", fatal=True)
    with (tmp_path / "log").open("wb") as log, subprocess.Popen(command, cwd=ROOT, stderr=log) as process:
        try:
            yield process, socket, port
        finally:
            process.kill()


def read(port: int, path: str) -> bytes | None:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as response:
            body: bytes = response.read()
    except (urllib.error.URLError, ConnectionError):
        return None
    return body


def wait_for_tick(process: subprocess.Popen[bytes], port: int, number: int) -> None:
    """Wait until so many ticks have ended; fails when the daemon has ended, or at the deadline."""
    end = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < end:
        assert process.poll() is None, f"ended with {process.returncode}: -31 is SIGSYS, a call that is not allowed"
        text = (read(port, "/metrics") or b"").decode()
        if sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(TICKS)) >= number:
            return
        time.sleep(0.2)
    pytest.fail("no ticks")


@pytest.mark.timeout(180)
def test_the_daemon_works_under_the_profile_and_makes_no_other_call(
    daemon: tuple[subprocess.Popen[bytes], Path, int], tmp_path: Path
) -> None:
    process, socket, port = daemon
    wait_for_tick(process, port, 3)

    def ask(*words: str, codes: tuple[int, ...] = (0,)) -> str:
        command = [str(BIN / "balancerctl"), "--socket", str(socket), *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode in codes, done.stderr
        return done.stdout

    for words in (("status",), ("ps",), ("nodes",), ("plan",), ("reload",), ("history",)):
        ask(*words)
    ask("record", str(tmp_path / "recorded"), "--for", "5s")
    with asleep() as victim:
        told = ask("evict", str(victim), codes=(0, 1))  # 1: without swap nothing can leave
        assert "call" in told, told
    ask("mode", "observe")
    assert read(port, "/readyz") is not None
    process.send_signal(signal.SIGHUP)
    before = float(json.loads(ask("status", "--json"))["tick"]["number"])
    wait_for_tick(process, port, int(before) + 2)
    process.terminate()
    assert process.wait(30) == 0, (tmp_path / "log").read_text()


@pytest.mark.timeout(120)
def test_the_doctor_finds_every_call_of_the_default_stack_allowed() -> None:
    with asleep(*(NOBODY if os.geteuid() == 0 else ())):  # somebody for the doctor to look at
        command = confined(BIN / "balancerctl", "--socket", "/nonexistent", "doctor", "--json")
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    checks: dict[str, dict[str, Any]] = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert "mode 2" in checks["seccomp"]["seen"]
    wanted = {"move-pages-query", "move-pages-move", "process-madvise", "migrate-pages", "pidfd-open", "set-affinity"}
    if os.geteuid() == 0:
        wanted |= {"move-pages-shared", "other-processes", "cap-sys-ptrace", "cap-sys-nice"}
        assert {name for name in checks if name.startswith("cap-") and checks[name]["status"] == "ok"} == {
            "cap-sys-ptrace",
            "cap-sys-nice",
        }
    assert {name: checks[name] for name in wanted if checks[name]["status"] != "ok"} == {}


@pytest.mark.parametrize("call", FORBIDDEN)
def test_other_calls_are_refused(call: str) -> None:
    number = number_of(call)
    assert number is not None
    words = map(str, (number, *FORBIDDEN[call]))
    command = confined(sys.executable, "-c", MAKE_A_CALL, *words)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "EPERM\n"


def test_threads_are_made_by_clone_whose_flags_a_filter_can_see() -> None:
    number = number_of("clone3")
    command = confined(sys.executable, "-c", MAKE_A_CALL, str(number), "0", "0")
    assert subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout == "ENOSYS\n"
    code = "import threading; t = threading.Thread(target=print, args=['ran']); t.start(); t.join()"
    command = confined(sys.executable, "-c", code, fatal=True)
    assert subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout == "ran\n"


def test_every_call_has_a_name_that_libseccomp_knows() -> None:
    profile = json.loads(PROFILE.read_bytes())
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
    assert profile["defaultErrnoRet"] == errno.EPERM
    names = [name for rule in profile["syscalls"] for name in rule["names"]]
    assert len(names) > 100
    for name in names:
        number_of(name)  # raises on a name that no architecture has
