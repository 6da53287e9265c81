"""A policy from another package: leaves everything alone, and says why in its own words."""

from collections.abc import Iterable

from pydantic import BaseModel

from balancerd.model.decision import Reason, Skip, Verdict
from balancerd.model.sample import Window
from balancerd.ports import PolicyContext


class Options(BaseModel):
    """Its only option."""

    because: str = "no reason"


class Never:
    """Skips every process."""

    def __init__(self, name: str, because: str) -> None:
        self.name = name
        self.because = because

    def decide(self, window: Window) -> Iterable[Verdict]:
        """Return one skip for each process."""
        for process in window.now.eligible:
            yield Skip(by=self.name, process=process.id, reason=Reason.GAIN_BELOW_COST, detail=self.because)


class Plugin:
    """What the entry point refers to."""

    options = Options
    summary = "Never moves anything."

    def build(self, name: str, options: Options, context: PolicyContext) -> Never:  # noqa: ARG002 - the port hands it over
        """Return a fresh policy."""
        return Never(name, options.because)


plugin = Plugin()
