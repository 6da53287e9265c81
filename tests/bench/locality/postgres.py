"""PostgreSQL as a workload: a server whose shared buffers were filled on another node, and sums that pgbench asks for.

The table and its index fit the buffers, which are shared memory that several processes map. pgbench asks for the sum of
a thousand accounts at a time, prepared, with the same random ones in every run: its built-in select of one account is
done from the caches, and asks memory for 20 lines.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.bench.locality import debian
from tests.bench.locality.latencies import joined, parse_pgbench_log
from tests.bench.locality.plan import BEGIN, DONE, THREE_QUARTERS, Mark, Plan
from tests.bench.locality.servers import (
    descendants,
    last_words,
    move,
    output,
    pinned,
    running,
    unprivileged,
    wait_for_end,
    wait_until,
)
from tests.bench.victim import Gaps

HOME_NODE, WRONG_NODE, CLIENT_NODE = 0, 2, 1
MIB_PER_SCALE = 16
"""80.6 MB of accounts and 13.5 MB of their index at scale 6 are 15 MiB each; the rest is for all else."""

ACCOUNTS_PER_SCALE = 100_000
CLIENTS = 1
"""A second one would wait for the only CPU all the time, and balancerd moves nothing while tasks wait that much."""

USER = "bench"
SETTINGS = {
    "listen_addresses": "",
    "huge_pages": "off",
    "fsync": "off",  # selects write nothing; the tables are made faster
    "autovacuum": "off",  # nothing else reads the tables
    "jit": "off",
}

WARM = """
CREATE EXTENSION pg_prewarm;
SELECT pg_prewarm('pgbench_accounts') + pg_prewarm('pgbench_accounts_pkey') > 0;
"""

# Every column of every row; the index is read for itself, so that this process has mapped all of both.
CHECKSUM = """
SELECT count(*), sum(hashtext(t::text)) FROM pgbench_accounts t;
SET enable_seqscan = off;
SET enable_bitmapscan = off;
SELECT sum(aid) FROM (SELECT aid FROM pgbench_accounts ORDER BY aid OFFSET 0) t;
RESET ALL;
"""
THE_END = "-- the end --"

SCRIPT = """\\set first random(1, :accounts - 999)
SELECT sum(abalance) FROM pgbench_accounts WHERE aid BETWEEN :first AND :first + 999;
"""

_PROCESSED = re.compile(r"^number of transactions actually processed: ([0-9]+)/", re.MULTILINE)


def scale_of(mib: int) -> int:
    """Return the scale whose tables fit buffers of so much memory. Raises ValueError when none does."""
    if mib < MIB_PER_SCALE:
        raise ValueError(f"PostgreSQL needs {MIB_PER_SCALE} MiB at least")
    return mib // MIB_PER_SCALE


def batches(work: int) -> tuple[int, int]:
    """Split transactions into those of each client before and after three quarters."""
    first = work * 3 // 4 // CLIENTS
    return first, max(1, work // CLIENTS - first)


def server_command(program: Path, data: Path, sockets: Path, mib: int) -> list[str]:
    """Return how the server is started; nobody reaches it but through a socket in `sockets`."""
    settings = {**SETTINGS, "shared_buffers": f"{mib}MB", "unix_socket_directories": str(sockets)}
    return [
        str(program),
        "-D",
        str(data),
        *(word for key, value in settings.items() for word in ("-c", f"{key}={value}")),
    ]


def client_command(program: Path, script: Path, accounts: int, transactions: int, log_prefix: Path) -> list[str]:
    """Return how pgbench runs a script so many times with each of its connections, and logs how long each one took."""
    how = [str(program), f"--file={script}", "--no-vacuum", "--protocol=prepared", "--random-seed=1"]
    return [
        *how,
        f"--define=accounts={accounts}",
        f"--client={CLIENTS}",
        f"--transactions={transactions}",
        "--log",
        f"--log-prefix={log_prefix}",
        "postgres",
    ]


def parse_processed(text: str) -> int:
    """Return how many transactions pgbench tells it has made. Raises RuntimeError when it tells nothing."""
    match = _PROCESSED.search(text)
    if match is None:
        raise RuntimeError(f"pgbench said {text!r}")
    return int(match[1])


class _Session:
    """A connection that stays open; its process of the server has mapped whatever it has read."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self._log = log
        with log.open("wb") as stream:
            self._process = subprocess.Popen(
                command, env=dict(environment), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stream, text=True
            )

    def ask(self, statements: str) -> list[str]:
        """Return the lines of the answers. Raises RuntimeError when a statement failed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(f"{statements}\n\\echo {THE_END}\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise RuntimeError(f"psql ended: {last_words(self._log)}") from error
        lines: list[str] = []
        for line in self._process.stdout:
            if line.rstrip("\n") == THE_END:
                return lines
            lines.append(line.rstrip("\n"))
        raise RuntimeError(f"psql ended: {last_words(self._log)}")

    def end(self) -> None:
        """Close the connection."""
        self._process.communicate()

    def kill(self) -> None:
        """End psql, whatever it does."""
        self._process.kill()
        self._process.communicate()


class Postgres:
    """A server whose table is in its buffers."""

    def __init__(self, process: "subprocess.Popen[bytes]", plan: Plan, folder: Path, session: _Session) -> None:
        self._process, self._plan, self._folder, self._session = process, plan, folder, session
        self._pgbench, self._environment = _program(debian.POSTGRES, "pgbench"), _environment(folder)
        (pid,) = session.ask("SELECT pg_backend_pid();")
        self._reader = int(pid)
        self._gaps: dict[str, Gaps] = {}
        session.ask(WARM)
        self._sums = session.ask(CHECKSUM)

    @property
    def pids(self) -> tuple[int, ...]:
        """Only that of an idle connection, which has read all the buffers and so maps them; others map the same."""
        return (self._reader,)

    @property
    def gaps(self) -> Mapping[str, Gaps]:
        """How long each transaction took, as pgbench logged it."""
        return self._gaps

    def ask(self, statements: str) -> list[str]:
        """Have the idle connection do something; returns the lines of the answers. Raises RuntimeError."""
        return self._session.ask(statements)

    def work(self, mark: Mark) -> None:
        if not self._plan.is_bound:
            move(lambda: descendants(self._process.pid), self._plan.cpus[HOME_NODE])
        mark(BEGIN)
        told = []
        for transactions, number in zip(batches(self._plan.work), (THREE_QUARTERS, DONE), strict=True):
            told.append((self._sum(transactions, number), CLIENTS * transactions))
            mark(number)
        for text, transactions in told:
            if parse_processed(text) != transactions:
                raise RuntimeError(f"pgbench made not all of {transactions} transactions: {text}")
        self._gaps = joined(
            {"sum": parse_pgbench_log(path.read_text(encoding="ascii"), str(path))}
            for path in sorted(self._plan.folder.glob("latencies-*"))
        )

    def finish(self) -> str:
        sums = self._session.ask(CHECKSUM)
        accounts = self._accounts
        if sums != self._sums or not sums[0].startswith(f"{accounts}|"):
            raise RuntimeError(f"the sums of {accounts} accounts are {sums}, and were {self._sums}")
        self._session.end()
        self._process.send_signal(signal.SIGINT)  # fast shutdown, postgres(1)
        wait_for_end(self._process, self._folder / "log")
        return f"verified {accounts} accounts"

    @property
    def _accounts(self) -> int:
        return scale_of(self._plan.mib) * ACCOUNTS_PER_SCALE

    def _sum(self, transactions: int, number: int) -> str:
        script, log = self._plan.folder / "sum.sql", self._plan.folder / f"latencies-{number}"
        script.write_text(SCRIPT, encoding="ascii")
        command = client_command(self._pgbench, script, self._accounts, transactions, log)
        return output(pinned(self._plan.cpus[CLIENT_NODE], command), self._environment, self._plan.folder)


@contextlib.contextmanager
def start(plan: Plan) -> Iterator[Postgres]:
    """Run a server in a cluster of its own.

    It refuses to be root, and runs as nobody then: `plan.folder` lets everybody in, and what is above it must, too.
    """
    plan.folder.chmod(0o711)
    folder = plan.folder / "postgres"
    folder.mkdir()
    if not os.geteuid():
        shutil.chown(folder, "nobody", "nogroup")
    data, log, environment = folder / "data", folder / "log", _environment(folder)
    cpu, client_cpu = plan.cpus[HOME_NODE if plan.is_bound else WRONG_NODE], plan.cpus[CLIENT_NODE]
    init = [str(_program(debian.POSTGRES, "initdb")), "-D", str(data), "-U", USER, "--auth=trust", "--encoding=UTF8"]
    output(pinned(cpu, unprivileged([*init, "--no-locale", "--no-sync", "--no-instructions"])), environment, folder)
    server = server_command(_program(debian.POSTGRES, "postgres"), data, folder, plan.mib)
    psql = [str(_program(debian.POSTGRES_CLIENT, "psql")), "-XqAt", "-v", "ON_ERROR_STOP=1"]
    with running(pinned(cpu, unprivileged(server)), environment, log, signal.SIGQUIT) as process:
        wait_until(lambda: _answers([*psql, "-c", "SELECT 1", "postgres"], environment, folder), process, log)
        fill = [str(_program(debian.POSTGRES, "pgbench")), "--initialize", "--quiet", f"--scale={scale_of(plan.mib)}"]
        output(pinned(client_cpu, [*fill, "postgres"]), environment, folder)
        session = _Session(pinned(client_cpu, [*psql, "postgres"]), environment, plan.folder / "psql.log")
        try:
            yield Postgres(process, plan, folder, session)
        finally:
            session.kill()


def _answers(command: Sequence[str], environment: Mapping[str, str], folder: Path) -> bool:
    try:
        return output(command, environment, folder).strip() == "1"
    except RuntimeError:
        return False


def _environment(sockets: Path) -> dict[str, str]:
    return {**debian.environment(), "PGHOST": str(sockets), "PGUSER": USER}


def _program(package: str, name: str) -> Path:
    found = sorted((debian.find_tree(package) / "usr/lib/postgresql").glob(f"*/bin/{name}"))
    return found[-1]
