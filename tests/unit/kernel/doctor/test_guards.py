"""What the doctor reads of capabilities, security modules, pressure and swap."""

from pathlib import Path

import pytest

from balancerd.kernel.doctor import guards
from tests.unit.kernel.doctor.test_probes import ALL_CAPABILITIES, NO_CAPABILITY, tree

STATUS = "proc/self/status"
LSM = "sys/kernel/security/lsm"
LABEL = "proc/self/attr/current"


def test_each_capability_has_a_line_and_a_fix_where_it_is_missing(tmp_path: Path) -> None:
    held = guards.capabilities(tree(tmp_path / "a", {STATUS: ALL_CAPABILITIES}))
    assert [(check.name, check.status, check.fix) for check in held] == [
        ("cap-sys-ptrace", "ok", None),
        ("cap-sys-nice", "ok", None),
        ("cap-perfmon", "ok", None),
        ("cap-dac-override", "ok", None),
        ("cap-dac-read-search", "ok", None),
    ]
    missing = guards.capabilities(tree(tmp_path / "b", {STATUS: NO_CAPABILITY}))
    assert {check.status for check in missing} == {"info"}
    assert all(check.fix for check in missing)
    assert "AmbientCapabilities=CAP_PERFMON" in str(missing[2].fix)
    assert {check.status for check in guards.capabilities(tmp_path / "c")} == {"unknown"}


def test_a_capability_is_its_own_bit(tmp_path: Path) -> None:
    only_nice = guards.capabilities(tree(tmp_path, {STATUS: f"CapEff:\t{1 << 23:016x}\n"}))
    assert [check.name for check in only_nice if check.status == "ok"] == ["cap-sys-nice"]


@pytest.mark.parametrize(
    ("files", "status", "seen"),
    [
        ({LSM: "capability,yama,bpf"}, "ok", "capability, yama, bpf"),
        ({LSM: "capability,yama,apparmor"}, "info", "apparmor"),
        ({LSM: "capability,apparmor", LABEL: "unconfined\n"}, "info", "capability, apparmor"),
        ({LSM: "capability,apparmor", LABEL: "docker-default (enforce)\n"}, "info", "confined as docker-default"),
        ({LSM: "capability,selinux", LABEL: "system_u:system_r:x_t:s0\0"}, "info", "confined as system_u"),
        ({}, "info", "securityfs is not mounted"),
    ],
)
def test_security_modules_are_told(tmp_path: Path, files: dict[str, str], status: str, seen: str) -> None:
    check = guards.security_modules(tree(tmp_path, files))
    assert check.status == status
    assert seen in check.seen
    assert (check.fix is not None) == ("confined as" in check.seen)


def test_without_pressure_moves_cannot_wait(tmp_path: Path) -> None:
    assert guards.pressure(tree(tmp_path / "a", {"proc/pressure/memory": "some avg10=0.00\n"})).status == "ok"
    missing = guards.pressure(tmp_path / "b")
    assert missing.status == "warning"
    assert "psi=1" in str(missing.fix)
    (tmp_path / "c/proc/pressure/memory").mkdir(parents=True)  # reading it fails otherwise
    assert guards.pressure(tmp_path / "c").status == "warning"


@pytest.mark.parametrize(
    ("files", "seen"),
    [
        ({"proc/swaps": "Filename Type Size\n"}, "none"),
        ({"proc/swaps": "Filename Type Size\n/dev/zram0 partition 1 0 5\n/swap file 1 0 1\n"}, "/dev/zram0, /swap"),
        ({}, "not built"),
    ],
)
def test_swap_is_told(tmp_path: Path, files: dict[str, str], seen: str) -> None:
    assert seen in guards.swap(tree(tmp_path, files)).seen


@pytest.mark.parametrize(
    ("text", "seen"), [("true\n", "on"), ("false\n", "off"), ("?\n", "unknown"), (None, "not built")]
)
def test_demotion_is_told(tmp_path: Path, text: str | None, seen: str) -> None:
    files = {} if text is None else {"sys/kernel/mm/numa/demotion_enabled": text}
    assert seen in guards.demotion(tree(tmp_path, files)).seen
