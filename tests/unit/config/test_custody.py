"""In whose hands a file is: real files, real users where root can be them, and nothing that can be exchanged."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from balancerd.config import custody
from balancerd.config.custody import ExposedError, check_kept, objection, open_kept

NOBODY, STRANGER = 65534, 4242
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")


@pytest.fixture(autouse=True)
def privileged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(custody, "is_privileged", lambda: True)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """One that is read, two directories below."""
    (tmp_path / "a/b").mkdir(parents=True)
    path = tmp_path / "a/b/file"
    path.write_text("said")
    path.chmod(0o644)
    return path


def read(path: Path | str) -> str:
    with os.fdopen(open_kept(path)) as stream:
        return stream.read()


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o644, 0o755, 0o640])
def test_what_others_may_only_read_is_nobody_elses(file: Path, mode: int) -> None:
    file.chmod(mode)
    assert objection(file.stat()) is None
    assert read(file) == "said"


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666, 0o1646])
def test_what_others_may_write_to_is_refused_with_the_fix(file: Path, mode: int) -> None:
    file.chmod(mode)
    with pytest.raises(ExposedError) as refused:
        read(file)
    why = f"others than root and the daemon's user may write to it, its mode is {mode:04o}"
    assert refused.value.strerror == f"{file}: {why}: chmod go-w {file}"
    subprocess.run(f"chmod go-w {file}", shell=True, check=True)  # noqa: S602 -- what it says is what helps
    assert read(file) == "said"


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o777])
@pytest.mark.parametrize("above", [0, 1])
def test_so_is_what_lies_where_others_may_put_another_one(file: Path, above: int, mode: int) -> None:
    file.parents[above].chmod(mode)
    with pytest.raises(ExposedError) as refused:
        read(file)
    assert str(refused.value.strerror).endswith(f"chmod go-w {file.parents[above]}")


def test_in_a_directory_like_tmp_others_touch_what_is_theirs_alone(file: Path) -> None:
    file.parent.chmod(0o1777)
    assert read(file) == "said"
    check_kept(file.parent, shared=True)
    with pytest.raises(ExposedError):  # but may add files
        check_kept(file.parent)


def test_a_link_is_judged_by_where_it_leads(file: Path, tmp_path: Path) -> None:
    (tmp_path / "here").symlink_to("a/b/../b/file")
    (tmp_path / "there").symlink_to(tmp_path / "a")
    assert read(tmp_path / "here") == read(tmp_path / "there/b/file") == "said"
    file.parent.chmod(0o777)
    for path in ("here", "there/b/file"):
        with pytest.raises(ExposedError):
            read(tmp_path / path)


def test_a_link_that_leads_to_itself_is_an_error(file: Path) -> None:
    file.unlink()
    file.symlink_to(file.name)
    with pytest.raises(OSError, match="symbolic links"):
        read(file)


def test_paths_may_be_relative(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    assert read("./file") == read("../b//file") == "said"
    file.parent.chmod(0o777)
    with pytest.raises(ExposedError):
        read("file")


def test_the_null_device_masks_a_file_though_everybody_may_write_to_it(file: Path) -> None:
    file.unlink()
    file.symlink_to("/dev/null")
    assert read(file) == ""


def test_what_was_handed_over_as_a_descriptor_is_taken() -> None:
    ours, theirs = os.pipe()
    os.write(theirs, b"piped")
    os.close(theirs)
    assert read(f"/dev/fd/{ours}") == "piped"
    os.close(ours)


def test_what_is_not_there_is_an_error_like_any_other(file: Path) -> None:
    file.unlink()
    with pytest.raises(FileNotFoundError):
        read(file)
    check_kept(file)  # whoever makes it judges it


def test_who_may_write_the_code_may_write_its_configuration(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = tmp_path / "code"
    code.mkdir()
    monkeypatch.setattr(custody, "_CODE", code)
    file.chmod(0o664)
    code.chmod(0o755)
    assert objection(file.stat()) is not None
    code.chmod(0o775)
    assert objection(file.stat()) is None
    file.chmod(0o666)
    assert objection(file.stat()) is not None


@root_only
def test_another_group_and_another_owner_than_those_of_the_code_are_others(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = tmp_path / "code"
    code.mkdir()
    code.chmod(0o775)
    monkeypatch.setattr(custody, "_CODE", code)
    os.chown(code, STRANGER, STRANGER)
    file.chmod(0o664)
    assert "mode is 0664" in str(objection(file.stat()))
    os.chown(file, STRANGER, STRANGER)
    assert objection(file.stat()) is None
    os.chown(code, 0, 0)
    assert objection(file.stat()) == f"it belongs to user {STRANGER}: chown root"


def test_what_is_judged_is_what_is_read(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exchange(_status: os.stat_result, *, shared: bool = False) -> None:
        if not shared:  # the file itself, at the end of the way
            file.rename(file.with_name("old"))
            file.write_text("exchanged")

    monkeypatch.setattr(custody, "objection", exchange)
    assert read(file) == "said"


def test_descriptors_are_closed_whatever_comes_of_it(file: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    read(file)
    file.parent.chmod(0o777)
    with pytest.raises(ExposedError):
        read(file)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


@root_only
@pytest.mark.parametrize("above", [0, 1])
def test_what_belongs_to_another_user_is_refused(file: Path, above: int) -> None:
    whose = (file, *file.parents)[above]
    os.chown(whose, STRANGER, -1)
    with pytest.raises(ExposedError, match=f"{whose}: it belongs to user {STRANGER}: chown root {whose}"):
        read(file)


@root_only
def test_a_link_that_another_user_has_put_into_tmp_is_refused(file: Path) -> None:
    file.parent.chmod(0o1777)
    link = file.with_name("link")
    link.symlink_to(file)
    assert read(link) == "said"
    os.chown(link, STRANGER, STRANGER, follow_symlinks=False)
    with pytest.raises(ExposedError, match=f"user {STRANGER}"):
        read(link)


AS_NOBODY = """
import ctypes, os, sys
from pathlib import Path
from balancerd.config import custody
from balancerd.config.custody import ExposedError, is_privileged, open_kept
os.close(open_kept("/dev/null"))  # what it imports is imported while that can be read
assert is_privileged()
if sys.argv[1] == "capable":
    ctypes.CDLL(None).prctl(28, 1 << 2)  # PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP: capabilities stay
os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
assert is_privileged() is (sys.argv[1] == "capable")
custody._CODE = Path(sys.argv[2])  # of the user that it has become
for path in sys.argv[2:]:
    try:
        os.close(open_kept(path))
        print("read")
    except ExposedError:
        print("refused")
"""


@root_only
@pytest.mark.parametrize(
    ("rights", "told"), [("none", ["read"] * 4), ("capable", ["read", "read", "refused", "refused"])]
)
def test_a_user_with_capabilities_is_careful_and_one_without_reads_what_it_may(rights: str, told: list[str]) -> None:
    folder = Path(tempfile.mkdtemp(dir="/run"))  # where everybody can get to
    try:
        folder.chmod(0o755)
        paths = [folder / name for name in ("own", "roots", "stranger", "open")]
        for path, owner, mode in zip(paths, (NOBODY, 0, STRANGER, NOBODY), (0o600, 0o644, 0o644, 0o666), strict=True):
            path.touch()
            path.chmod(mode)
            os.chown(path, owner, owner)
        command = [sys.executable, "-c", AS_NOBODY, rights, *map(str, paths)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.split() == told
    finally:
        shutil.rmtree(folder)


@root_only
def test_root_without_any_capability_is_careful_too() -> None:
    command = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-c"]
    program = "from balancerd.config.custody import is_privileged; print(is_privileged())"
    assert subprocess.run([*command, program], capture_output=True, text=True, check=True).stdout == "True\n"


@root_only
def test_a_directory_that_was_mounted_read_only_for_the_daemon_is_taken(tmp_path: Path) -> None:
    """As a ConfigMap of Kubernetes is, whose mode is 0777; with the same, not mounted, beside it."""
    script = f"""
        mkdir -p {tmp_path}/map/inner {tmp_path}/mounted && chmod 0777 {tmp_path}/map/inner
        echo said > {tmp_path}/map/inner/file && chmod 0644 {tmp_path}/map/inner/file && chmod 0777 {tmp_path}/map
        echo said > {tmp_path}/map/file
        chmod 0644 {tmp_path}/map/file
        mount --bind {tmp_path}/map {tmp_path}/mounted
        try() {{ {sys.executable} -c 'import sys
from balancerd.config.custody import open_kept
open_kept(sys.argv[1])' "$1" 2>/dev/null && echo read || echo refused; }}
        try {tmp_path}/map/file; try {tmp_path}/mounted/file
        mount -o remount,bind,ro {tmp_path}/mounted
        try {tmp_path}/map/file; try {tmp_path}/mounted/file; try {tmp_path}/mounted/inner/file
    """
    done = subprocess.run(["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True, check=True)
    assert (done.stdout.split(), done.stderr) == (["refused", "refused", "refused", "read", "refused"], "")
