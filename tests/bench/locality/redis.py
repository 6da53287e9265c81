"""Redis as a workload: a server whose keys were stored on another node than it serves them from, and its own client.

redis-benchmark sets and gets keys drawn at random from all of them, in batches: first SET, then GET, and both again for
the last quarter. Which keys it draws differs from run to run, as it seeds itself from the clock; how many does not.
"""

import contextlib
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.bench.locality import debian
from tests.bench.locality.latencies import joined, parse_redis_benchmark
from tests.bench.locality.plan import BEGIN, DONE, THREE_QUARTERS, Mark, Plan, Running
from tests.bench.locality.servers import move, output, pinned, running, wait_for_end, wait_until
from tests.bench.victim import Gaps

HOME_NODE, WRONG_NODE, CLIENT_NODE = 0, 2, 1
VALUE_BYTES = 1000
BYTES_PER_KEY = 1120
"""What a key and such a value take with their entry of the table, as INFO memory tells of 119,000 of them."""

CLIENTS, PIPELINE = 4, 8

# 12 digits, as redis-benchmark writes the number of a key
LOAD = """
for i = 0, ARGV[1] - 1 do
  local number = string.format('%012d', i)
  redis.call('SET', 'key:' .. number, number .. string.rep('v', ARGV[2] - 12))
end
return redis.call('DBSIZE')
"""

# The client sets one and the same value everywhere: it seeds the bytes it makes up with a constant.
VERIFY = """
local own, theirs, wrong, value = 0, 0, 0, false
for i = 0, ARGV[1] - 1 do
  local number = string.format('%012d', i)
  local found = redis.call('GET', 'key:' .. number)
  if found == number .. string.rep('v', ARGV[2] - 12) then
    own = own + 1
  elseif found and #found == tonumber(ARGV[2]) and (not value or found == value) then
    value = found
    theirs = theirs + 1
  else
    wrong = wrong + 1
  end
end
return {redis.call('DBSIZE'), own, theirs, wrong}
"""


def keys_of(mib: int) -> int:
    """How many keys take so much memory."""
    return (mib << 20) // BYTES_PER_KEY


def batches(work: int) -> tuple[int, int]:
    """Split requests into those of each kind before and after three quarters; both kinds get as many."""
    first = work * 3 // 8
    return first, max(1, work // 2 - first)


def server_command(program: Path, socket: Path) -> list[str]:
    """Return how the server is started: nothing is ever written to disk, and nobody reaches it from outside."""
    return [str(program), "--port", "0", "--unixsocket", str(socket), "--save", "", "--appendonly", "no"]


def client_command(program: Path, socket: Path, keys: int, requests: int) -> list[str]:
    """Return how the client makes so many SET and then so many GET requests, in its own two tests of these names."""
    where = [str(program), "-s", str(socket), "-t", "set,get", "-r", str(keys), "-n", str(requests)]
    return [*where, "-d", str(VALUE_BYTES), "-c", str(CLIENTS), "-P", str(PIPELINE), "--precision", "3"]


def check(told: str, keys: int) -> str:
    """Judge what VERIFY returned; raises RuntimeError unless each key holds its own value or the client's."""
    words = told.split()
    if len(words) != 4 or words[0] != str(keys) or words[3] != "0" or words[2] == "0":
        raise RuntimeError(f"of {keys} keys (keys, untouched, set, wrong) are {told.split()}")
    return f"verified {keys} keys, {words[2]} of them set by the client"


class _Redis:
    """A server with its keys."""

    def __init__(self, process: "subprocess.Popen[bytes]", plan: Plan, log: Path, socket: Path) -> None:
        self._process, self._plan, self._log, self._socket = process, plan, log, socket
        self._keys = keys_of(plan.mib)
        self._tools = debian.find_tree("redis-tools") / "usr/bin"
        self._environment = debian.environment()
        self._gaps: dict[str, Gaps] = {}

    @property
    def pids(self) -> tuple[int, ...]:
        return (self._process.pid,)

    @property
    def gaps(self) -> Mapping[str, Gaps]:
        """What the client waited for replies, by kind of request; several requests wait together for each answer."""
        return self._gaps

    def answers(self) -> bool:
        try:
            return self._ask("PING") == "PONG"
        except RuntimeError:
            return False

    def load(self) -> None:
        told = self._ask("EVAL", LOAD, "0", str(self._keys), str(VALUE_BYTES))
        if told != str(self._keys):
            raise RuntimeError(f"the server stored {told} keys instead of {self._keys}")

    def work(self, mark: Mark) -> None:
        if not self._plan.is_bound:
            move(lambda: self.pids, self._plan.cpus[HOME_NODE])
        mark(BEGIN)
        parts = []
        for requests, number in zip(batches(self._plan.work), (THREE_QUARTERS, DONE), strict=True):
            command = client_command(self._tools / "redis-benchmark", self._socket, self._keys, requests)
            told = self._client(command)
            mark(number)
            parts.append(parse_redis_benchmark(told, "redis-benchmark"))
        self._gaps = joined(parts)

    def finish(self) -> str:
        told = check(self._ask("EVAL", VERIFY, "0", str(self._keys), str(VALUE_BYTES)), self._keys)
        self._ask("SHUTDOWN", "NOSAVE")
        wait_for_end(self._process, self._log)
        return told

    def _ask(self, *words: str) -> str:
        return self._client([str(self._tools / "redis-cli"), "-s", str(self._socket), *words]).strip()

    def _client(self, command: list[str]) -> str:
        return output(pinned(self._plan.cpus[CLIENT_NODE], command), self._environment, self._plan.folder)


@contextlib.contextmanager
def start(plan: Plan) -> Iterator[Running]:
    """Run a server whose keys are stored where it is first pinned."""
    folder = plan.folder / "redis"
    folder.mkdir()
    socket, log, program = folder / "socket", folder / "log", folder / "redis-server"
    # Debian's is a link to a program of redis-tools, which goes by the name that it was called
    linked = (debian.find_tree("redis-server") / "usr/bin/redis-server").readlink().name
    program.symlink_to(debian.find_tree("redis-tools") / "usr/bin" / linked)
    cpu = plan.cpus[HOME_NODE if plan.is_bound else WRONG_NODE]
    with running(pinned(cpu, server_command(program, socket)), debian.environment(), log) as process:
        redis = _Redis(process, plan, log, socket)
        wait_until(redis.answers, process, log)
        redis.load()
        yield redis
