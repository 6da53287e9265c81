"""What a configuration sets, and a reload sets anew."""

from pathlib import Path

import pytest

from balancerd.daemon import ReloadError
from balancerd.wiring import Application, StartError


def test_a_reload_changes_how_long_a_read_may_take(tmp_path: Path) -> None:
    file = tmp_path / "balancerd.yaml"
    file.write_text("mode: observe\n")
    application = Application(path=file, overrides=())
    assert application._live._reads.timeout_seconds == 0.1
    file.write_text("mode: observe\nselect: {read_timeout: 250ms}\n")
    application._reload()
    assert application._live._reads.timeout_seconds == 0.25
    application._live.close()
    application._clock.close()


def test_moving_threads_is_refused_without_a_directory_for_the_journal(tmp_path: Path) -> None:
    file, state = tmp_path / "balancerd.yaml", tmp_path / "state"
    moving = f"state_directory: {state}\npolicies: [{{name: a, kind: threads}}]\n"
    file.write_text(moving)
    with pytest.raises(StartError, match=f"{state}: No such file or directory: make it"):
        Application(path=file, overrides=())
    file.write_text(f"state_directory: {state}\n")
    application = Application(path=file, overrides=())
    file.write_text(moving)
    with pytest.raises(ReloadError, match="No such file"):
        application._reload()
    state.mkdir()
    application._reload()
    file.write_text("mode: observe\n")
    with pytest.raises(ReloadError, match="state_directory cannot change while running"):
        application._reload()
    application._live.close()
    application._clock.close()
