"""`balancerctl service` below a directory: what it writes, keeps, removes and refuses, and how failures are undone."""

import errno
import json
import os
import stat
import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

from balancerd.cli.service import obstacles
from balancerd.cli.service.changes import Change, Changes, apply_install
from balancerd.cli.service.files import CONFIG, MARK, PLACES, list_files
from tests.unit.cli.conftest import Run
from tests.unit.test_units import analyze

REPOSITORY = Path(__file__).parents[3]
PROGRAMS = Path(sysconfig.get_path("scripts"))
UNIT = "usr/local/lib/systemd/system/balancerd.service"
FOLDER, FILE = stat.S_IFDIR, stat.S_IFREG


def tree(root: Path) -> dict[str, str | None]:
    """All below a directory: the text of each file, None for a folder."""
    return {str(each.relative_to(root)): each.read_text() if each.is_file() else None for each in root.rglob("*")}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root in which there is what a fresh system has of the folders."""
    for folder in ("etc", "usr/lib/systemd/system", "usr/local/lib", "usr/local/share", "var/lib"):
        (tmp_path / "root" / folder).mkdir(parents=True)
    return tmp_path / "root"


@pytest.fixture
def service(run: Run, root: Path) -> Callable[..., tuple[int, str, str]]:
    """Run a command of `balancerctl service` below the root; return its exit status and what it said."""

    def invoke(*words: str) -> tuple[int, str, str]:
        done = run("service", *words, "--root", str(root))
        return done.exit_code, done.stdout, done.stderr

    return invoke


Service = Callable[..., tuple[int, str, str]]


def test_every_shipped_file_of_systemd_has_its_place() -> None:
    shipped = {str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "systemd").rglob("*.*") if path.is_file()}
    assert set(PLACES) == shipped


def test_installing_writes_what_is_shipped_with_the_programs_of_this_installation(service: Service, root: Path) -> None:
    assert service("install")[0] == 0
    for name, place in PLACES.items():
        shipped = (REPOSITORY / name).read_text(encoding="utf-8").replace("=/usr/bin/balancer", f"={PROGRAMS}/balancer")
        assert (root / place.relative_to("/")).read_text(encoding="utf-8") == MARK + shipped
    assert (root / CONFIG.relative_to("/")).read_bytes() == (REPOSITORY / "config/balancerd.yaml").read_bytes()
    lines = (root / UNIT).read_text(encoding="utf-8").splitlines()
    assert f"ExecStart={PROGRAMS}/balancerd" in lines
    assert f"ExecReload={PROGRAMS}/balancerctl reload" in lines
    modes = {stat.S_IMODE(each.stat().st_mode) for each in root.rglob("*") if each.is_file()}
    assert modes == {0o644}


def test_systemd_finds_no_fault_with_the_unit_that_is_written(service: Service, root: Path) -> None:
    service("install")
    verified = analyze("verify", "--man=no", root / UNIT)
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")


def test_programs_below_the_root_are_named_as_they_will_be(
    service: Service, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda _name: f"{root}/opt/balancerd/bin")
    service("install")
    assert "ExecStart=/opt/balancerd/bin/balancerd\n" in (root / UNIT).read_text(encoding="utf-8")


def test_installing_again_changes_nothing(service: Service, root: Path) -> None:
    service("install")
    before = tree(root)
    _, told, _ = service("install")
    assert {line.split()[0] for line in told.splitlines()} == {"unchanged"}
    assert tree(root) == before


def test_what_a_killed_command_has_left_or_anybody_laid_there_is_not_written_through(
    service: Service, root: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("kept")
    beside = (root / UNIT).with_name(".balancerd.service.new")
    beside.parent.mkdir(parents=True)
    beside.symlink_to(elsewhere)
    old = os.umask(0o077)
    try:
        assert service("install")[0] == 0
    finally:
        os.umask(old)
    assert elsewhere.read_text() == "kept"
    assert (stat.S_IMODE((root / UNIT).stat().st_mode), beside.exists()) == (0o644, False)


def test_an_earlier_unit_is_replaced_and_a_changed_configuration_is_kept(service: Service, root: Path) -> None:
    service("install")
    shipped = tree(root)
    (root / UNIT).write_text(f"{MARK}[Service]\nExecStart=/old\n", encoding="utf-8")
    (root / CONFIG.relative_to("/")).write_text("mode: observe\n", encoding="utf-8")
    _, told, _ = service("install")
    assert f"replaced {root}/{UNIT}" in told
    assert f"kept {root}{CONFIG}: it is yours" in told
    assert tree(root) == {**shipped, "etc/balancerd/balancerd.yaml": "mode: observe\n"}


@pytest.mark.parametrize(
    "folder",
    ["etc/systemd/system", "usr/lib/systemd/system", "lib/systemd/system", "usr/local/lib/systemd/system"],
)
@pytest.mark.parametrize("command", ["install", "remove"])
def test_a_unit_of_somebody_else_is_neither_replaced_nor_removed(
    service: Service, root: Path, folder: str, command: str
) -> None:
    (root / folder).mkdir(parents=True, exist_ok=True)
    (root / folder / "balancerd.service").write_text("[Service]\n")
    before = tree(root)
    code, told, said = service(command)
    assert (code, told) == (1, "")
    assert f"{root}/{folder}/balancerd.service is there already, from a package or by hand" in said
    assert tree(root) == before
    assert service(command, "--dry-run")[0] == 5


@pytest.mark.parametrize("target", ["/dev/null", "/nowhere"])
def test_a_unit_that_is_masked_or_a_link_is_in_the_way(service: Service, root: Path, target: str) -> None:
    (root / "etc/systemd/system").mkdir(parents=True)
    (root / "etc/systemd/system/balancerd.service").symlink_to(target)
    assert service("install")[0] == 1


def test_a_dry_run_prints_every_file_and_changes_nothing(service: Service, root: Path) -> None:
    before = tree(root)
    code, told, _ = service("install", "--dry-run")
    assert (code, tree(root)) == (0, before)
    for file in list_files(PROGRAMS):
        assert f"write {root}{file.path}\n" in told
        assert all(f"    {line}".rstrip() in told for line in file.text.splitlines())
    document = json.loads(service("install", "--dry-run", "--json")[1])
    texts = {each["path"]: each["text"] for each in document["files"]}
    assert texts == {f"{root}{file.path}": file.text for file in list_files(PROGRAMS)}


def test_a_folder_that_cannot_be_made_leaves_nothing_behind(service: Service, root: Path) -> None:
    (root / "etc").rmdir()
    (root / "etc").write_text("no folder")
    before = tree(root)
    code, _, said = service("install")
    assert (code, f"{root}/etc/balancerd" in said) == (1, True)
    assert tree(root) == before


@pytest.mark.parametrize("how", ["a file that cannot be put in place", "a command that fails"])
def test_what_fails_late_is_taken_back(root: Path, how: str) -> None:
    replaced, blocked = root / "etc/replaced", root / "etc/blocked"
    replaced.write_text("old")
    (blocked / "full").mkdir(parents=True)
    before = tree(root)
    changes = [
        Change(path=replaced, action="replace", text="new"),
        Change(path=root / "etc/new/deeper/file", action="write", text="new"),
    ]
    if how == "a command that fails":
        planned = Changes(changes=tuple(changes), after=(("sh", "-c", f"cat {replaced} >&2; exit 1"),))
        with pytest.raises(subprocess.CalledProcessError) as failed:
            apply_install(planned)
        assert failed.value.stderr == "new", "the files are there when systemd is told"
    else:
        with pytest.raises(OSError, match="blocked"):
            apply_install(Changes(changes=(*changes, Change(path=blocked, action="write", text="new"))))
    assert tree(root) == before


def test_removing_leaves_nothing_behind(service: Service, root: Path) -> None:
    before = tree(root)
    service("install")
    code, told, _ = service("remove")
    assert (code, {line.split()[0] for line in told.splitlines()}) == (0, {"removed"})
    assert tree(root) == before
    assert service("remove") == (0, "", "there is nothing to remove\n")


def test_removing_keeps_what_the_operator_and_the_daemon_wrote_and_purging_does_not(
    service: Service, root: Path
) -> None:
    before = tree(root)
    service("install")
    (root / CONFIG.relative_to("/")).write_text("mode: observe\n", encoding="utf-8")
    (root / "etc/balancerd/conf.d").mkdir()
    (root / "var/lib/balancerd").mkdir()
    (root / "var/lib/balancerd/history.sqlite").write_text("")
    service("remove", "--dry-run")
    _, told, _ = service("remove")
    assert f"kept {root}{CONFIG}: it was changed; --purge removes it" in told
    assert f"kept {root}/var/lib/balancerd: what the daemon keeps" in told
    assert tree(root) == {
        **before,
        "etc/balancerd": None,
        "etc/balancerd/balancerd.yaml": "mode: observe\n",
        "etc/balancerd/conf.d": None,
        "var/lib/balancerd": None,
        "var/lib/balancerd/history.sqlite": "",
    }
    _, told, _ = service("remove", "--purge")
    assert {line.split()[0] for line in told.splitlines()} == {"removed"}
    assert tree(root) == before


@pytest.mark.parametrize("command", ["install", "remove"])
def test_only_root_may(run: Run, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    done = run("service", command)
    assert (done.exit_code, done.stdout) == (4, "")
    assert f"sudo {PROGRAMS}/balancerctl service {command}" in done.stderr


def test_who_may_not_look_is_told_so(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_path: Path) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied", "/usr/local/lib")

    monkeypatch.setattr(obstacles, "is_ours", refuse)
    service("install")
    assert service("install", "--dry-run") == (4, "", "balancerctl: [Errno 13] Permission denied: '/usr/local/lib'\n")


def test_without_systemd_it_says_so_and_a_dry_run_tells_what_is_in_the_way(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(obstacles, "BOOTED", tmp_path / "none")
    done = run("service", "install")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "systemd does not run this machine" in done.stderr
    dry = run("service", "install", "--dry-run")
    assert dry.exit_code == 5
    assert "in the way: systemd does not run this machine" in dry.stderr
    assert "run systemctl daemon-reload\n" in dry.stdout


@pytest.mark.parametrize(
    ("place", "setting"),
    [
        ("/home/ann/.local/pipx/venvs/balancerd/bin/balancerd", "ProtectHome="),
        ("/root/.local/share/pipx/venvs/balancerd/bin/balancerd", "ProtectHome="),
        ("/tmp/venv/bin/balancerd", "PrivateTmp="),
        ("/opt/pipx/venvs/balancerd/bin/balancerd", None),
        ("/homes/venv", None),
    ],
)
def test_what_the_unit_hides_is_refused_with_the_way_out(place: str, setting: str | None) -> None:
    told = obstacles.judge_hidden(Path(place))
    assert (told is None) == (setting is None)
    if told is not None:
        assert f"({setting})" in told
        assert "PIPX_HOME=/opt/pipx PIPX_BIN_DIR=/usr/local/bin pipx install balancerd" in told


@pytest.mark.parametrize(
    ("owner", "mode", "told"),
    [
        (0, FOLDER | 0o755, None),
        (0, FOLDER | 0o2775, None),  # Debian's /usr/local, of the group staff
        (0, FILE | 0o755, None),
        (1000, FOLDER | 0o755, "as good as root"),
        (0, FOLDER | 0o757, "as good as root"),
        (0, FILE | 0o777, "as good as root"),
        (0, FOLDER | 0o700, "chmod o+rX"),
        (0, FOLDER | 0o711, None),
        (0, FILE | 0o750, "chmod o+rX"),
        (0, FILE | 0o751, "chmod o+rX"),
    ],
)
def test_programs_that_others_may_change_or_the_daemon_cannot_reach_are_refused(
    owner: int, mode: int, told: str | None
) -> None:
    status = os.stat_result((mode, 0, 0, 1, owner, 50, 0, 0, 0, 0))  # of the group "staff"
    said = obstacles.judge_access(Path("/srv/venv"), status)
    assert said is None if told is None else said is not None and told in said


def test_links_on_the_way_to_a_program_are_looked_at_and_what_they_lead_to(tmp_path: Path) -> None:
    (tmp_path / "real/bin").mkdir(parents=True)
    (tmp_path / "someones").mkdir()
    (tmp_path / "someones/link").symlink_to(tmp_path / "real")
    named = tmp_path / "someones/link/bin"
    places = obstacles.name_both_ways([named])
    assert places == [named, (tmp_path / "real/bin").resolve()]
    ways = obstacles.list_ways(places)
    assert ways[0] == Path("/")
    assert {tmp_path / "someones", tmp_path / "someones/link", (tmp_path / "real").resolve(), *places} <= set(ways)
    assert len(ways) == len(set(ways))


def test_a_path_that_means_something_in_a_unit_is_refused(
    service: Service, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda _name: "/opt/100% mine/bin")
    before = tree(root)
    code, _, said = service("install")
    assert (code, "characters that mean something in a unit" in said) == (1, True)
    assert tree(root) == before
