"""The figures of one fault, counted while it is tried, and left in a file.

Owns what is counted, the seed, and the file. Must not know what is done to whom.
"""

import json
import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

from tests.lab.service import Balancerd
from tests.lab.workloads import Ended

OUT = Path("/run/lab/out/faults")
PATIENCE = 3
"""After so many tries that went wrong there are no more: what went wrong is known by then."""

KEPT_CHARACTERS = 600


@dataclass(slots=True, kw_only=True)
class Figures:
    """What is kept of one fault. `lacking` tells why it could not be tried at all; `counted` is what else happened."""

    fault: str
    what: str
    topology: str
    kernel: str
    seed: int
    tries: int = 0
    survived: int = 0
    pages_lost: int = 0
    workload_errors: int = 0
    wrongly_moved_pages: int = 0
    seconds: float = 0.0
    lacking: str = ""
    counted: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Whether all came through, and nothing was lost."""
        return self.survived == self.tries and not (self.pages_lost or self.workload_errors or self.wrongly_moved_pages)


class Tally:
    """Counts one fault. `dice` chooses moments and places, the same ones for the same seed."""

    def __init__(self, fault: str, what: str, *, tries: int, seed: int) -> None:
        self.dice = random.Random(f"{seed} {fault}")  # noqa: S311 - repeatable, not secret
        self.figures = Figures(
            fault=fault,
            what=what,
            topology=os.environ.get("BALANCERD_LAB_TOPOLOGY", ""),
            kernel=os.uname().release,
            seed=seed,
        )
        self._wanted = tries
        self._began = time.monotonic()

    @property
    def tries(self) -> Iterator[int]:
        """The numbers of the tries, until there were enough, or too many went wrong."""
        for number in range(self._wanted):
            if len(self.figures.failures) >= PATIENCE:
                return
            yield number

    @contextmanager
    def trying(self) -> Iterator[None]:
        """One try: it survives when the block comes to its end. What went wrong is kept, and others may be tried."""
        self.figures.tries += 1
        try:
            yield
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what this try came to
            told = f"try {self.figures.tries}: {type(error).__name__}: {error}"[:KEPT_CHARACTERS]
            print(told)
            self.figures.failures.append(told)
        else:
            self.figures.survived += 1

    def count(self, event: str, number: int = 1) -> None:
        """Count something that happened, which tells what the tries were worth."""
        self.figures.counted[event] = self.figures.counted.get(event, 0) + number

    def verify(self, ended: Ended, pages: int) -> None:
        """Hold a workload to its word: so many pages of it are as they were, or pages are lost."""
        if ended != Ended(status=0, told=f"verified {pages} pages"):
            self.figures.workload_errors += 1
            self.figures.pages_lost += pages if ended.told.startswith("corrupt") else 0
            raise AssertionError(f"a workload said {ended.told!r} and ended with {ended.status}")

    def lose(self, submitted: int, told: int) -> None:
        """Count pages that were submitted and of which nobody has told what became."""
        self.figures.pages_lost += submitted - told
        assert submitted == told, f"{submitted} pages were submitted, and told of {told}"

    def stay(self, moved_pages: int) -> None:
        """Count pages that moved where none should have."""
        self.figures.wrongly_moved_pages += moved_pages
        assert moved_pages == 0, f"{moved_pages} pages moved that should not have"

    def audit(self, daemon: Balancerd) -> None:
        """The daemon goes on, no tick of it failed, and it tells what became of every page that it submitted."""
        daemon.wait_ticks(1)
        status = daemon.status()
        totals = status["totals"]
        self.lose(totals["submitted_pages"], sum(totals["pages"].values()))
        assert totals["failed_ticks"] == 0, daemon.log_text()[-2000:]
        assert status["policy_errors"] == {}, status["policy_errors"]

    def lack(self, why: str) -> None:
        """Put down that the fault cannot be tried here, and why."""
        self.figures.lacking = why

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is not None:
            self.figures.failures.append(f"{type(error).__name__}: {error}"[:KEPT_CHARACTERS])
        self.figures.seconds = round(time.monotonic() - self._began, 1)
        OUT.mkdir(exist_ok=True)
        path = OUT / f"{self.figures.fault}.json"
        path.write_text(json.dumps(asdict(self.figures), indent=1) + "\n", encoding="utf-8")
        print(path.read_text(encoding="utf-8"))
        if error is None:
            assert self.figures.is_clean, "; ".join(self.figures.failures) or self.figures
            assert self.figures.tries or self.figures.lacking, "it was never tried"
