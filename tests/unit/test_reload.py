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


def test_a_reload_keeps_to_the_history_that_is_written(tmp_path: Path) -> None:
    file = tmp_path / "balancerd.yaml"
    file.write_text(f"state_directory: {tmp_path}\n")
    application = Application(path=file, overrides=())
    assert application._history_file == tmp_path / "history.sqlite"
    file.write_text(f"state_directory: {tmp_path}\nhistory: {{enabled: false}}\n")
    with pytest.raises(ReloadError, match="history cannot change while running"):
        application._reload()
    application._live.close()
    application._clock.close()
    application = Application(path=file, overrides=())
    assert application._history_file is None
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


def test_a_mode_that_is_ordered_holds_until_the_next_reload(tmp_path: Path) -> None:
    file = tmp_path / "balancerd.yaml"
    file.write_text("mode: observe\n")
    application = Application(path=file, overrides=())
    assert application._obey() is None
    application._switches.order_mode("enforce")
    running = application._obey()
    assert running is not None
    assert running.summary.startswith("enforce: home")
    assert application._tell_config()["config"]["mode"] == "enforce"
    assert application._obey() is None
    application._switches.order_mode("enforce")
    assert application._obey() is None
    assert application._reload().summary.startswith("observe: home")
    application._live.close()
    application._clock.close()


def test_a_pause_reaches_the_engine_and_ends_what_moves(tmp_path: Path) -> None:
    file = tmp_path / "balancerd.yaml"
    file.write_text("mode: observe\n")
    application = Application(path=file, overrides=())
    assert not application._should_stop()
    application._switches.pause(None)
    assert application._should_stop()
    application._obey()
    assert application._memory.pause.tell(0.0) == "paused by an operator"
    application._switches.resume()
    application._obey()
    assert application._memory.pause.tell(0.0) is None
    assert not application._should_stop()
    application._live.close()
    application._clock.close()
