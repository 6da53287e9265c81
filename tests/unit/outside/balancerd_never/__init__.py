"""Policies from another package: one leaves everything alone, and says why in its own words; one misbehaves."""

import time
from collections.abc import Iterable

from pydantic import BaseModel

from balancerd.model.decision import Decision, Reason, Skip, Verdict
from balancerd.model.ids import NodeId, ProcessId
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


class WildOptions(BaseModel):
    """In which way to misbehave."""

    how: str


class Wild:
    """Does what no policy may."""

    def __init__(self, name: str, how: str) -> None:
        self.name = name
        self.how = how

    def decide(self, window: Window) -> Iterable[Verdict]:
        """Raise, sleep too long, return nonsense, or end the interpreter."""
        if self.how == "raise":
            raise LookupError("wild")
        if self.how == "exit":
            raise SystemExit(7)
        if self.how == "sleep":
            time.sleep(6)
        for process in window.now.eligible:
            target = NodeId(1000 if self.how == "node" else 0)
            id_ = ProcessId(1 << 30, 1) if self.how == "process" else process.id
            yield Decision(
                policy=self.name,
                process=id_,
                target=target,
                misplaced_bytes=1 << 30,
                gain_cores=1.0,
                cost_seconds=0.1,
            )


class WildPlugin:
    """What the entry point refers to."""

    options = WildOptions
    summary = "Misbehaves."

    def build(self, name: str, options: WildOptions, context: PolicyContext) -> Wild:  # noqa: ARG002 - the port hands it over
        """Return a fresh policy."""
        return Wild(name, options.how)


wild = WildPlugin()
