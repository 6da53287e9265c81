"""DAMON's schemes from sysfs, as root reads them and as others do."""

import os
from pathlib import Path

import pytest

from balancerd.kernel.neighbours.damon import Schemes, read_schemes
from tests.unit.kernel.trees import write_tree

TOP = "kernel/mm/damon/admin/kdamonds"


def kdamond(number: int, state: str, *actions: str) -> dict[str, str]:
    """The files of one kdamond, as Linux 6.12 shows them."""
    base = f"{TOP}/{number}"
    files = {f"{base}/state": f"{state}\n", f"{base}/contexts/0/schemes/nr_schemes": f"{len(actions)}\n"}
    files |= {f"{base}/contexts/0/schemes/{n}/action": f"{action}\n" for n, action in enumerate(actions)}
    return files


@pytest.mark.parametrize(
    ("files", "at_work"),
    [
        ({}, ()),
        ({f"{TOP}/nr_kdamonds": "0\n"}, ()),
        (kdamond(0, "on", "migrate_cold"), ("kdamond 0: migrate_cold",)),
        (kdamond(0, "off", "migrate_cold"), ()),
        (kdamond(0, "on", "stat"), ()),
        (kdamond(0, "on", "hugepage", "lru_prio", "pageout"), ("kdamond 0: lru_prio", "kdamond 0: pageout")),
        (kdamond(0, "on", "stat") | kdamond(1, "on", "migrate_hot"), ("kdamond 1: migrate_hot",)),
        ({"module/damon_reclaim/parameters/enabled": "Y\n"}, ("damon_reclaim",)),
        ({"module/damon_lru_sort/parameters/enabled": "N\n"}, ()),
    ],
)
def test_schemes_that_move_or_reclaim_are_at_work_while_their_kdamond_is_on(
    tmp_path: Path, files: dict[str, str], at_work: tuple[str, ...]
) -> None:
    found = read_schemes(str(write_tree(tmp_path, files)))
    assert (found.at_work, found.unreadable) == (at_work, None)


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
@pytest.mark.parametrize(
    ("files", "suspect"),
    [
        (kdamond(0, "on", "migrate_cold"), True),
        (kdamond(0, "on"), False),
        ({"module/damon_reclaim/parameters/enabled": "Y\n"}, True),
        ({"module/damon_reclaim/parameters/enabled": "Y\n", "module/damon_stat/version": ""}, False),
    ],
)
def test_who_may_not_read_the_files_learns_from_the_directories(
    tmp_path: Path, files: dict[str, str], suspect: bool
) -> None:
    write_tree(tmp_path, files)
    for path in (tmp_path, *tmp_path.parents, *tmp_path.rglob("*")):
        if path.is_dir():
            path.chmod(path.stat().st_mode | 0o755)
        else:
            path.chmod(0o600)
    os.seteuid(65534)
    try:
        found = read_schemes(str(tmp_path))
    finally:
        os.seteuid(0)
    assert found.at_work == ()
    assert found.unreadable is not None
    assert found.unreadable.endswith(("state", "enabled"))
    assert found.suspect is suspect


def test_this_machine_can_be_read() -> None:
    assert isinstance(read_schemes("/sys"), Schemes)
