"""What a configuration sets, and a reload sets anew."""

from pathlib import Path

from balancerd.wiring import Application


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
