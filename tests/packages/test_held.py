"""The packages hold the same files, as they ought to be, and what they hold runs."""

import json
import os
import re
import stat
import subprocess
from pathlib import Path

from balancerd import __version__
from tests.packages.conftest import Package

ROOT = Path(__file__).parents[2]
CONFIG = "/etc/balancerd/balancerd.yaml"
PLACES = {r"^/lib/systemd/": "/usr/lib/systemd/", "/zsh/vendor-completions/": "/zsh/site-functions/"}
"""Where Debian has what an RPM has elsewhere."""

OF_DEBIAN = {
    "/usr/share/doc/balancerd/changelog.gz",
    "/usr/share/doc/balancerd/copyright",
    "/usr/share/lintian/overrides/balancerd",
}
OF_RPM = {f"/usr/share/licenses/balancerd-{__version__}/LICENSE"}
LIBRARIES = re.compile(r"(lib(c|m|dl|rt|pthread|gcc_s)|ld-linux-x86-64)\.so\.\d")


def files(package: Package) -> set[str]:
    """What is no folder, by the names that an RPM would give."""
    found = {
        name.removesuffix(".gz") if "/man/" in name else name
        for name, mode in package.modes.items()
        if not mode.startswith("d")
    }
    for old, new in PLACES.items():
        found = {re.sub(old, new, name) for name in found}
    return found


def test_both_packages_hold_the_same_files(deb: Package, rpm: Package) -> None:
    assert files(deb) - OF_DEBIAN == files(rpm) - OF_RPM
    assert files(deb) >= OF_DEBIAN
    assert files(rpm) >= OF_RPM


def test_what_an_operator_looks_for_is_there(package: Package) -> None:
    wanted = {
        CONFIG,
        "/usr/bin/balancerd",
        "/usr/bin/balancerctl",
        "/usr/lib/systemd/system/balancerd.service",
        "/usr/lib/systemd/system-preset/50-balancerd.preset",
        "/usr/lib/sysusers.d/balancerd.conf",
        "/usr/lib/tmpfiles.d/balancerd.conf",
        "/usr/share/balancerd/sbom.cdx.json",
        "/usr/share/bash-completion/completions/balancerctl",
        "/usr/share/fish/vendor_completions.d/balancerctl.fish",
        "/usr/share/zsh/site-functions/_balancerctl",
        *(f"/usr/share/man/man{page.suffix[1:]}/{page.name}" for page in (ROOT / "deploy/man").iterdir()),
        *(f"/usr/share/balancerd/drop-ins/{path.name}" for path in (ROOT / "systemd/drop-ins").iterdir()),
        *(f"/usr/share/doc/balancerd/{path.name}" for path in (ROOT / "docs").glob("*.md")),
        *(f"/usr/share/doc/balancerd/examples/conf.d/{path.name}" for path in (ROOT / "config/conf.d").iterdir()),
        "/usr/share/doc/balancerd/examples/balancerd.alerts.yml",
        "/usr/share/doc/balancerd/examples/grafana/machine.json",
    }
    assert wanted <= files(package)


def test_a_changed_configuration_outlives_an_upgrade(package: Package) -> None:
    assert package.kept == {CONFIG}
    assert (package.root / CONFIG[1:]).read_bytes() == (ROOT / "config/balancerd.yaml").read_bytes()


def test_everything_is_roots_and_nobody_else_may_write_it(package: Package) -> None:
    own = {name: owner for name, owner in package.owners.items() if owner != "root:root"}
    assert own in ({}, {"/var/lib/balancerd": "balancerd:balancerd"})
    for name, mode in package.modes.items():
        if name == "/var/lib/balancerd":
            assert mode == "drwxr-x---"
        elif not mode.startswith("l"):
            assert (mode[5], mode[8]) == ("-", "-"), name
            assert not {"s", "S", "t", "T"} & set(mode), name
    programs = {name for name, mode in package.modes.items() if mode == "-rwxr-xr-x"}
    assert {name for name in programs if not name.endswith(".so")} == {
        "/opt/balancerd/bin/balancerctl",
        "/opt/balancerd/bin/balancerd",
    }


def test_nothing_is_needed_but_python_systemd_and_the_c_library(deb: Package, rpm: Package) -> None:
    assert {re.sub(r"^python3\.\d+$", "python3.x", name) for name in deb.requires} == {
        *("python3.x", "python3", "libc6", "libgcc-s1", "systemd"),
    }
    (python,) = {name for name in rpm.requires if name.startswith("/usr/bin/python3.")}
    assert (rpm.root / "opt/balancerd/bin" / Path(python).name).readlink() == Path(python)
    rest = rpm.requires - {python, "/bin/sh", "systemd", "config(balancerd)", "rtld(GNU_HASH)"}
    assert [name for name in rest if not name.startswith("rpmlib(") and not LIBRARIES.match(name)] == []


def test_scripts_are_those_of_a_shell(package: Package) -> None:
    for name, text in package.scripts.items():
        done = subprocess.run(["sh", "-n"], input=text, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), name


def test_scripts_of_the_rpm_make_the_user_before_his_folder_and_end_the_daemon_with_the_last_package(
    rpm: Package, tmp_path: Path
) -> None:
    assert (ROOT / "systemd/balancerd.sysusers").read_text(encoding="utf-8").strip() in rpm.scripts["PREIN"]
    log = tmp_path / "log"
    for name in ("systemctl", "systemd-sysusers"):
        (tmp_path / name).write_text(f'#!/bin/sh\necho {name} "$@" >> {log}\n', encoding="utf-8")
        (tmp_path / name).chmod(0o755)

    def run(part: str, remaining: int) -> list[str]:
        log.write_text("", encoding="utf-8")
        environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
        subprocess.run(["sh", "-e", "-c", rpm.scripts[part], part, str(remaining)], env=environment, check=True)
        return log.read_text(encoding="utf-8").splitlines()

    assert run("PREIN", 1) == ["systemd-sysusers --replace=/usr/lib/sysusers.d/balancerd.conf -"]
    assert run("POSTIN", 1) == ["systemctl --no-reload preset balancerd.service"]
    assert run("POSTIN", 2) == []
    assert run("PREUN", 1) == []
    assert run("PREUN", 0) == ["systemctl --no-reload disable --now balancerd.service"]
    assert run("POSTUN", 1) == ["systemctl daemon-reload", "systemctl try-restart balancerd.service"]
    assert run("POSTUN", 0) == ["systemctl daemon-reload"]


def test_what_is_bundled_runs_where_it_was_unpacked(package: Package, tmp_path: Path) -> None:
    folder = package.root / "opt/balancerd/bin"
    clean = {**os.environ, "PYTHONPATH": "", "PYTHONDONTWRITEBYTECODE": "1"}

    def run(*words: str | Path) -> str:
        return subprocess.run(
            [folder / "python3", "-I", *words], cwd=tmp_path, env=clean, capture_output=True, text=True, check=True
        ).stdout

    assert run(folder / "balancerd", "--version") == f"balancerd {__version__}\n"
    assert __version__ in run(folder / "balancerctl", "--version")
    run(folder / "balancerctl", "config", "check", package.root / CONFIG[1:])
    alone = {"metrics": {"listen": None}, "control": {"socket": f"{tmp_path}/s"}, "state_directory": str(tmp_path)}
    (tmp_path / "once.yaml").write_text(json.dumps(alone))
    run(folder / "balancerd", "--config", tmp_path / "once.yaml", "--once")
    run("-c", "import textual, balancerd.native._core")


def test_no_file_tells_where_the_package_was_built(package: Package) -> None:
    built = [str(ROOT).encode(), b"BUILDROOT"]
    for path in package.root.rglob("*"):
        if stat.S_ISREG(path.lstat().st_mode):
            data = path.read_bytes()
            assert not any(each in data for each in built), path
