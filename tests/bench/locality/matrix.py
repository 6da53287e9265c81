"""A job of numpy as a workload: its matrix was made on another node than it computes on. See matrix_job.py."""

import contextlib
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.bench.locality import debian
from tests.bench.locality.latencies import gaps_of
from tests.bench.locality.plan import BEGIN, DONE, THREE_QUARTERS, Mark, Plan, Running
from tests.bench.locality.servers import last_words, move, pinned
from tests.bench.victim import Gaps

HOME_NODE, WRONG_NODE = 0, 2
SCRIPT = Path(__file__).with_name("matrix_job.py")
PYTHON = "/usr/bin/python3"
"""The one that Debian's numpy is built for."""

ROWS, COLUMNS, PERIOD, FACTORS = 128, 1024, 1021, 7
"""As in matrix_job.py, which can import nothing from here."""


def expected_sum(first: int, n: int, mib: int) -> int:
    """Return the sum of the products of n panels from turn `first` on, computed without floats."""
    vector = [column % FACTORS for column in range(COLUMNS)]
    base = sum((row * COLUMNS + column) % PERIOD * vector[column] for row in range(ROWS) for column in range(COLUMNS))
    return n * base + ROWS * sum(vector) * sum(number % mib for number in range(first, first + n))


def parse_worked(line: str) -> tuple[int, list[int]]:
    """Read the answer to "work": the sum of the products, and the nanoseconds of each panel. Raises RuntimeError."""
    word, *numbers = line.split() or [""]
    if word != "worked" or not numbers:
        raise RuntimeError(f"the job said {line!r}")
    return int(numbers[0]), [int(number) for number in numbers[1:]]


class Job:
    """A process of matrix_job.py. It is ready once started."""

    def __init__(self, process: "subprocess.Popen[str]", plan: Plan, log: Path) -> None:
        self._process, self._plan, self._log = process, plan, log
        self._times_ns: list[int] = []
        self._expect("ready")

    @property
    def pids(self) -> tuple[int, ...]:
        return (self._process.pid,)

    @property
    def gaps(self) -> Mapping[str, Gaps]:
        """The time of each product of a panel of 1 MiB and the vector."""
        return {"product": gaps_of(self._times_ns)}

    def work(self, mark: Mark) -> None:
        if not self._plan.is_bound:
            move(lambda: self.pids, self._plan.cpus[HOME_NODE])
        first = self._plan.work * 3 // 4
        mark(BEGIN)
        early = self._compute(first)
        mark(THREE_QUARTERS)
        late = self._compute(self._plan.work - first)
        mark(DONE)
        for line, before, n in ((early, 0, first), (late, first, self._plan.work - first)):
            total, times_ns = parse_worked(line)
            if total != expected_sum(before, n, self._plan.mib) or len(times_ns) != n:
                raise RuntimeError(f"the sum of {len(times_ns)} products is {total}, which is wrong")
            self._times_ns += times_ns

    def finish(self) -> str:
        self._say("verify")
        told = self._expect("verified")
        if int(told.split()[1]) != self._plan.mib * ROWS * COLUMNS:
            raise RuntimeError(f"the job said {told!r}")
        self._say("end")
        if self._process.wait():
            raise RuntimeError(f"the job ended with {self._process.returncode}: {last_words(self._log)}")
        return told

    def spoil(self, panel: int) -> None:
        """Change one word of the matrix, so that finish() must find it."""
        self._say(f"spoil {panel}")
        self._expect("spoilt")

    def _compute(self, n: int) -> str:
        self._say(f"work {n}")
        return self._expect("worked")

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise RuntimeError(f"the job ended: {last_words(self._log)}") from error

    def _expect(self, word: str) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().rstrip("\n")
        if line.split()[:1] != [word]:
            raise RuntimeError(f"the job said {line!r} instead of {word!r}: {last_words(self._log)}")
        return line


@contextlib.contextmanager
def start(plan: Plan) -> Iterator[Running]:
    """Run the job; its matrix is made where it is first pinned."""
    modules = debian.find_tree(debian.NUMPY) / "usr/lib/python3/dist-packages"
    # One thread in whichever BLAS; numpy's own code has no more
    environment = {**debian.environment(), "PYTHONPATH": str(modules), "OPENBLAS_NUM_THREADS": "1"}
    cpu, log = plan.cpus[HOME_NODE if plan.is_bound else WRONG_NODE], plan.folder / "numpy.log"
    # -P: what lies beside the script is not for it to import
    command = pinned(cpu, [PYTHON, "-P", SCRIPT, str(plan.mib)])
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stream, text=True
        )
    try:
        yield Job(process, plan, log)
    finally:
        process.kill()
        process.communicate()
