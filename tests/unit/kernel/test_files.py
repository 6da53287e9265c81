import errno
import os
from pathlib import Path

import pytest

from balancerd.kernel.files import read_bytes, read_if_there


def test_a_file_is_read_whole_however_large(tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(b"0123456789" * 100_000)
    assert read_bytes(str(path)) == read_if_there(str(path)) == path.read_bytes()


def test_a_file_that_is_not_there_is_none(tmp_path: Path) -> None:
    assert read_if_there(str(tmp_path / "none")) is None


@pytest.mark.parametrize(("code", "is_gone"), [(errno.ENODEV, True), (errno.EIO, False), (errno.EACCES, False)])
def test_a_node_that_is_just_going_away_is_none_and_any_other_error_is_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, is_gone: bool
) -> None:
    path = tmp_path / "node1"
    path.write_bytes(b"0-3")

    def refuse(_fd: int, _length: int) -> bytes:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "read", refuse)
    if is_gone:
        assert read_if_there(str(path)) is None
    else:
        with pytest.raises(OSError, match=os.strerror(code)):
            read_if_there(str(path))
