"""A kind of policy that does not come back while a file is there: for the watchdog. Inside, it is beside balancerd."""

import time
from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel

from balancerd.model.decision import Reason, Skip, Verdict
from balancerd.model.sample import Window
from balancerd.ports import PolicyContext

HANG = Path("/run/hang")


class Options(BaseModel):
    """It has none."""


class Stuck:
    """Leaves every process alone, once it comes back."""

    def __init__(self, name: str) -> None:
        self.name = name

    def decide(self, window: Window) -> Iterable[Verdict]:
        """Wait while the file is there; then return one skip for each process."""
        while HANG.exists():
            time.sleep(0.5)
        return [
            Skip(by=self.name, process=process.id, reason=Reason.GAIN_BELOW_COST, detail="stuck")
            for process in window.now.eligible
        ]


class Plugin:
    """What the entry point refers to."""

    options = Options
    summary = "Hangs."

    def build(self, name: str, options: Options, context: PolicyContext) -> Stuck:  # noqa: ARG002 - the port hands it over
        """Return a fresh policy."""
        return Stuck(name)


plugin = Plugin()
