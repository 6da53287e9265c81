"""The shipped unit, its drop-ins and what comes with it, against systemd's own tools; none needs systemd to run."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from balancerd.config.schema import Config

SHIPPED = Path(__file__).parents[2] / "systemd"
DROP_INS = sorted(path.stem for path in (SHIPPED / "drop-ins").iterdir())
HIGHEST_EXPOSURE = {"": 2.0, "perf": 2.2, "pagemap": 2.2, "damon": 2.4}
"""By drop-in, of 10; numad's unit has 9.6, irqbalance's 8.9."""

CALLS = {
    *("move_pages", "migrate_pages", "process_madvise", "sched_setaffinity", "pidfd_open", "pidfd_send_signal"),
    *("sched_getaffinity", "memfd_create", "prlimit64", "sendmsg", "timerfd_create", "get_mempolicy"),
}
"""What the daemon needs beside what every Python program does."""

STEADY_BYTES = 60 << 20
"""What the daemon holds without tables of accesses, a history in use: the aim of tests/bench/bench_tick.py."""

RELOAD_BYTES = 24 << 20
"""What balancerctl holds, which is in the unit's cgroup while it is ExecReload=."""


def read_unit(path: Path) -> dict[str, list[str]]:
    """The settings of a unit file, those of all sections together: each with its values in order."""
    settings: dict[str, list[str]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            settings.setdefault(key, []).append(value)
    return settings


def size_bytes(text: str) -> int:
    """A size in MiB, as the unit writes them."""
    assert text.endswith("M")
    return int(text[:-1]) << 20


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """A copy of the unit whose programs are there: systemd-analyze looks for them."""
    path = tmp_path / "balancerd.service"
    text = (SHIPPED / "balancerd.service").read_text(encoding="utf-8")
    path.write_text(re.sub(r"^(Exec\w+=)/usr/bin/balancer\S+", r"\1/bin/true", text, flags=re.MULTILINE))
    (tmp_path / "balancerd.service.d").mkdir()
    return path


def add_drop_in(unit: Path, name: str) -> None:
    shutil.copy(SHIPPED / "drop-ins" / f"{name}.conf", unit.with_name("balancerd.service.d"))


def analyze(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *words], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("names", [[], *([name] for name in DROP_INS), DROP_INS], ids="+".join)
def test_systemd_finds_no_fault_with_the_unit_and_its_drop_ins(unit: Path, names: list[str]) -> None:
    for name in names:
        add_drop_in(unit, name)
    verified = analyze("verify", "--man=no", unit)
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")


@pytest.mark.parametrize("name", ["", *DROP_INS])
def test_the_unit_is_exposed_little(unit: Path, name: str) -> None:
    if name:
        add_drop_in(unit, name)
    threshold = f"--threshold={HIGHEST_EXPOSURE[name] * 10:.0f}"
    judged = analyze("security", "--offline=true", "--no-pager", threshold, unit)
    assert judged.returncode == 0, judged.stdout[-200:]
    assert "Overall exposure level for balancerd.service" in judged.stdout


def test_the_daemon_is_no_root_and_has_two_capabilities() -> None:
    settings = read_unit(SHIPPED / "balancerd.service")
    assert settings["User"] == settings["Group"] == ["balancerd"]
    for key in ("AmbientCapabilities", "CapabilityBoundingSet"):
        assert [value.split() for value in settings[key]] == [["CAP_SYS_PTRACE", "CAP_SYS_NICE"]]


@pytest.mark.parametrize(
    ("name", "capabilities"),
    [("perf", ["CAP_PERFMON"]), ("pagemap", ["CAP_DAC_OVERRIDE"]), ("damon", ["CAP_DAC_OVERRIDE"])],
)
def test_a_drop_in_adds_one_capability_that_the_daemon_also_gets(name: str, capabilities: list[str]) -> None:
    settings = read_unit(SHIPPED / "drop-ins" / f"{name}.conf")
    assert settings["AmbientCapabilities"] == settings["CapabilityBoundingSet"] == capabilities


def test_the_filter_of_system_calls_lets_those_of_the_daemon_through() -> None:
    groups = {word for value in read_unit(SHIPPED / "balancerd.service")["SystemCallFilter"] for word in value.split()}
    assert all(group.startswith("@") for group in groups)
    allowed = expand(groups)
    assert allowed >= CALLS
    assert "perf_event_open" not in allowed
    assert read_unit(SHIPPED / "drop-ins/perf.conf")["SystemCallFilter"] == ["perf_event_open"]


def expand(groups: set[str]) -> set[str]:
    """The system calls of some groups, and of the groups in them."""
    seen: set[str] = set()
    waiting = set(groups)
    while waiting:
        name = waiting.pop()
        seen.add(name)
        if name.startswith("@"):
            lines = analyze("syscall-filter", name).stdout.splitlines()[1:]
            waiting |= {line.strip() for line in lines if line.strip() and not line.strip().startswith("#")} - seen
    return seen


def test_the_defaults_cannot_reach_the_limits_of_memory() -> None:
    settings, accesses = read_unit(SHIPPED / "balancerd.service"), Config().accesses
    most = STEADY_BYTES + accesses.max_processes * accesses.table_size_bytes + RELOAD_BYTES
    high, limit = (size_bytes(settings[key][0]) for key in ("MemoryHigh", "MemoryMax"))
    assert most < high < limit
    assert high < 2 * most, "what has leaked must not go unnoticed either"


def test_calls_are_never_stopped_in_the_middle_by_a_quota_of_cpu_time() -> None:
    assert "CPUQuota" not in read_unit(SHIPPED / "balancerd.service")


def test_reload_waits_for_what_comes_of_it() -> None:
    settings = read_unit(SHIPPED / "balancerd.service")
    assert settings["ExecReload"] == ["/usr/bin/balancerctl reload"]
    assert settings["Type"] == ["notify"]


def test_the_user_is_the_units_and_cannot_log_in(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    made = subprocess.run(
        ["systemd-sysusers", f"--root={tmp_path}", SHIPPED / "balancerd.sysusers"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "SYSTEMD_LOG_LEVEL": "warning"},
    )
    assert made.returncode == 0, made.stderr
    (user,) = (line.split(":") for line in (tmp_path / "etc/passwd").read_text().splitlines())
    assert (user[0], user[5:]) == ("balancerd", ["/var/lib/balancerd", "/usr/sbin/nologin"])
    assert 0 < int(user[2]) < 1000
    assert (tmp_path / "etc/shadow").read_text().startswith("balancerd:!")


def test_who_installs_it_has_not_enabled_it(tmp_path: Path, unit: Path) -> None:
    folder = tmp_path / "usr/lib/systemd"
    (folder / "system").mkdir(parents=True)
    (folder / "system-preset").mkdir()
    shutil.copy(unit, folder / "system")
    (folder / "system-preset/90-distribution.preset").write_text("enable *\n")

    def systemctl(*words: str) -> str:
        command = ["systemctl", f"--root={tmp_path}", *words, "balancerd.service"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    systemctl("preset")
    assert systemctl("is-enabled") == "enabled"
    shutil.copy(SHIPPED / "balancerd.preset", folder / "system-preset/50-balancerd.preset")
    systemctl("preset")
    assert systemctl("is-enabled") == "disabled"
    systemctl("enable")
    assert systemctl("is-enabled") == "enabled"


def test_what_it_keeps_is_its_own() -> None:
    (line,) = (line.split() for line in (SHIPPED / "balancerd.tmpfiles").read_text().splitlines() if line[0] != "#")
    settings = read_unit(SHIPPED / "balancerd.service")
    assert line == [
        "d",
        f"/var/lib/{settings['StateDirectory'][0]}",
        *settings["StateDirectoryMode"],
        "balancerd",
        "balancerd",
        "-",
    ]
