import errno
import os
from pathlib import Path

import pytest

from balancerd.kernel.errors import ParseError
from balancerd.kernel.machine.values import (
    parse_choice,
    parse_number,
    parse_truth,
    read_choice,
    read_number,
    read_truth,
)
from tests.unit.kernel.trees import MACHINES

KERNEL = MACHINES / "memory-only-tier-6.12/sys/kernel/mm"


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        (b"always [madvise] never\n", "madvise"),
        (b"always defer [defer+madvise] madvise never\n", "defer+madvise"),
        (b"[always] within_size\n", "always"),
    ],
)
def test_what_stands_in_brackets_is_chosen(text: bytes, chosen: str) -> None:
    assert parse_choice(text, "enabled") == chosen


@pytest.mark.parametrize(("text", "truth"), [(b"true\n", True), (b"false\n", False), (b"1\n", True), (b"0\n", False)])
def test_truth_is_written_in_two_ways(text: bytes, truth: bool) -> None:
    assert parse_truth(text, "demotion_enabled") is truth


def test_captured_settings_are_read() -> None:
    assert read_choice(f"{KERNEL}/transparent_hugepage/enabled") == "always"
    assert read_choice(f"{KERNEL}/transparent_hugepage/defrag") == "madvise"
    assert read_truth(f"{KERNEL}/numa/demotion_enabled") is False
    assert read_number(f"{KERNEL}/transparent_hugepage/hpage_pmd_size") == 2 << 20


def test_what_is_not_there_is_not_known(tmp_path: Path) -> None:
    path = str(tmp_path / "none")
    assert (read_number(path), read_truth(path), read_choice(path)) == (None, None, None)


def test_what_may_not_be_read_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, _flags: int, **_: object) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    monkeypatch.setattr(os, "open", refuse)  # root may read everything, whatever the mode
    path = f"{KERNEL}/numa/demotion_enabled"
    assert (read_number(path), read_truth(path), read_choice(path)) == (None, None, None)


@pytest.mark.parametrize(
    ("parse", "text"),
    [(parse_number, b"many\n"), (parse_number, b""), (parse_truth, b"maybe\n"), (parse_choice, b"always never\n")],
)
def test_another_text_is_an_error_that_names_its_file(parse: object, text: bytes) -> None:
    assert callable(parse)
    with pytest.raises(ParseError, match=r"^/sys/x:1: "):
        parse(text, "/sys/x")
