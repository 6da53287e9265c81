import errno
import os
from pathlib import Path

import pytest

from balancerd.kernel.files import MOST_BYTES, read_beginning, read_bytes, read_if_there


def test_a_file_is_read_whole_however_large(tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(b"0123456789" * 100_000)
    assert read_bytes(str(path)) == read_if_there(str(path)) == path.read_bytes()


@pytest.mark.parametrize("size", [0, 1, 65536, 65537, 200_000])
def test_no_more_is_read_than_was_asked_for_and_what_is_larger_is_an_error(tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(size))
    assert read_bytes(str(path), most_bytes=size) == path.read_bytes()
    for most_bytes in filter(None, (size // 2, size - 1)):
        assert read_beginning(str(path), max(0, most_bytes)) == path.read_bytes()[: max(0, most_bytes)]
    if size:
        with pytest.raises(OSError, match=f"more than {size - 1} bytes"):
            read_bytes(str(path), most_bytes=size - 1)


def test_a_file_without_an_end_costs_no_memory_without_a_bound() -> None:
    assert read_beginning("/dev/zero", 1 << 20) == bytes(1 << 20)
    with pytest.raises(OSError, match=f"more than {MOST_BYTES} bytes"):
        read_bytes("/dev/zero")


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
