"""loads.c, built once for a run of the tests, and found where they look for it."""

from pathlib import Path

import pytest

from tests.bench.locality import loads


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lab")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BALANCERD_LAB_DIR", str(folder))
        loads.build()
    return folder


@pytest.fixture
def loads_program(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BALANCERD_LAB_DIR", str(built))
