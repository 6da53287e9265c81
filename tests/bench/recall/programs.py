"""The programs whose accesses are sampled: small ones of our own (loops.c, Maps.java), and real ones from Debian.

Owns how each is started and kept at work until its block is left. Must not know how it is watched. Their threads are
pinned, one on each node where they have several. Memory is where it was first touched, which matters to nobody here.
"""

import contextlib
import os
import select
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.bench.locality import debian, postgres, redis
from tests.bench.locality import programs as packaged
from tests.bench.locality.matrix import PYTHON
from tests.bench.locality.plan import Plan
from tests.bench.locality.servers import last_words, pinned
from tests.lab.state import LabError
from tests.lab.workloads import FLAGS, binary

SOURCES = Path(__file__).parent
READY_SECONDS = 300.0
CLIENT_NODE = 1
HEAP_RATIO = 2.5
"""The JVM's heap beside what lives in it: its collector wants room."""

JDK = "openjdk-17-jdk-headless"

HASH_JOIN = """
SET max_parallel_workers_per_gather = 0;
SET enable_mergejoin = off;
SET enable_nestloop = off;
SET work_mem = '256MB';
"""
JOINED = "SELECT count(*) FROM pgbench_accounts a JOIN pgbench_accounts b USING (aid);"


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One program. `run` yields the pid to watch, of a process that is at work."""

    name: str
    summary: str
    mib: int
    run: Callable[[Plan], AbstractContextManager[int]]
    is_packaged: bool = False


@contextlib.contextmanager
def ready(command: Sequence[str], environment: Mapping[str, str], folder: Path) -> Iterator[int]:
    """Run a program that says "ready" once it is at work, and then nothing; its block ends it."""
    log = folder / "program.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command, env=dict(environment), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stream
        )
    assert process.stdout is not None
    try:
        select.select([process.stdout], [], [], READY_SECONDS)
        os.set_blocking(process.stdout.fileno(), False)
        if process.stdout.readline() != b"ready\n":
            raise RuntimeError(f"{command[0]} is not ready: {last_words(log)}")
        yield process.pid
        if process.poll() is not None:
            raise RuntimeError(f"{command[0]} ended with {process.returncode}: {last_words(log)}")
    finally:
        process.kill()
        process.communicate()


def loops(kind: str) -> Callable[[Plan], AbstractContextManager[int]]:
    def run(plan: Plan) -> AbstractContextManager[int]:
        command = [str(binary("loops")), kind, str(plan.mib), _list(plan.cpus)]
        return ready(command, debian.environment(), plan.folder)

    return run


def numpy(plan: Plan) -> AbstractContextManager[int]:
    modules = debian.find_tree(debian.NUMPY) / "usr/lib/python3/dist-packages"
    environment = {**debian.environment(), "PYTHONPATH": str(modules), "OPENBLAS_NUM_THREADS": "1"}
    # -P: what lies beside the script is not for it to import
    command = [PYTHON, "-P", str(SOURCES / "numpy_job.py"), str(plan.mib), _list(plan.cpus)]
    return ready(command, environment, plan.folder)


@contextlib.contextmanager
def java(plan: Plan) -> Iterator[int]:
    heap = f"{round(HEAP_RATIO * plan.mib)}m"
    command = ["java", "-XX:-UsePerfData", f"-Xms{heap}", f"-Xmx{heap}", "-cp", str(binary("maps")), "Maps"]
    taskset = ["taskset", "--cpu-list", _list(plan.cpus)]
    with ready([*taskset, *command, str(plan.mib), str(len(plan.cpus))], os.environ, plan.folder) as pid:
        workers = dict(zip((f"worker-{n}" for n in range(len(plan.cpus))), plan.cpus.values(), strict=True))
        for task in Path(f"/proc/{pid}/task").iterdir():
            name = (task / "comm").read_text(encoding="ascii").strip()
            if name in workers:
                os.sched_setaffinity(int(task.name), {workers.pop(name)})
        if workers:
            raise RuntimeError(f"java has no threads {', '.join(workers)}")
        yield pid


@contextlib.contextmanager
def redis_server(plan: Plan) -> Iterator[int]:
    """A server, and its own client on another node, which sets and gets keys at random for as long as it lasts."""
    with redis.start(plan) as server:
        program = debian.find_tree("redis-tools") / "usr/bin/redis-benchmark"
        socket = plan.folder / "redis" / "socket"
        command = [*redis.client_command(program, socket, redis.keys_of(plan.mib), 1000), "-l", "-q"]
        client = subprocess.Popen(
            pinned(plan.cpus[CLIENT_NODE], command),
            env=debian.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        try:
            yield server.pids[0]
            if client.poll() is not None:
                raise RuntimeError(f"redis-benchmark ended with {client.returncode}")
        finally:
            client.kill()
            client.wait()


@contextlib.contextmanager
def postgres_join(plan: Plan) -> Iterator[int]:
    """One connection that joins the table with itself by hashing, again and again; its server process is watched."""
    over, failed = threading.Event(), list[Exception]()
    with postgres.start(plan) as server, ExitStack() as stack:
        server.ask(HASH_JOIN)

        def join() -> None:
            try:
                while not over.is_set():
                    server.ask(JOINED)
            except RuntimeError as error:
                failed.append(error)

        asking = threading.Thread(target=join)
        asking.start()
        stack.callback(asking.join)
        stack.callback(over.set)
        yield server.pids[0]
        if failed:
            raise failed[0]


ALL = (
    Program(name="list", summary="linked lists in random order, one a thread, four threads", mib=64, run=loops("list")),
    Program(
        name="join",
        summary="a hash join: four threads look up keys of their own in one hash table that all share",
        mib=64,
        run=loops("join"),
    ),
    Program(
        name="memcpy",
        summary="the C library's memcpy (AVX), a MiB at a time: four threads, each its own memory",
        mib=64,
        run=loops("memcpy"),
    ),
    Program(
        name="copy",
        summary="the same by a loop with vector registers (AVX2), two arrays and one index",
        mib=64,
        run=loops("copy"),
    ),
    Program(
        name="matrix",
        summary="C = A B of floats: four threads with rows of their own of A and C, and all of B",
        mib=48,
        run=loops("matrix"),
    ),
    Program(
        name="numpy",
        summary="numpy, four threads: products and sums in arrays of their own, gathering from a table that all read",
        mib=96,
        run=numpy,
        is_packaged=True,
    ),
    Program(
        name="jvm",
        summary="OpenJDK 17: four threads, each with a HashMap that the main thread filled, on G1's heap",
        mib=64,
        run=java,
    ),
    Program(
        name="redis",
        summary="redis-server, one thread: GET and SET of 1000 bytes at random by redis-benchmark",
        mib=64,
        run=redis_server,
        is_packaged=True,
    ),
    Program(
        name="postgres",
        summary="a server process of PostgreSQL: a hash join of a table in the shared buffers with itself",
        mib=64,
        run=postgres_join,
        is_packaged=True,
    ),
)
PROGRAMS: Mapping[str, Program] = {program.name: program for program in ALL}


def prepare(chosen: Sequence[Program], cache: Path) -> None:
    """Build and fetch what these programs are made of, outside. Raises LabError and CalledProcessError."""
    _compile(SOURCES / "loops.c", binary("loops"), ["cc", *FLAGS, "-o", binary("loops")])
    if PROGRAMS["jvm"] in chosen:
        if shutil.which("javac") is None:
            raise LabError(f"the program jvm needs a compiler: apt-get install --no-install-recommends {JDK}")
        _compile(SOURCES / "Maps.java", binary("maps"), ["javac", "-d", binary("maps")])
    if any(program.is_packaged for program in chosen):
        packaged.ensure_programs(cache)


def _compile(source: Path, target: Path, command: Sequence[str | Path]) -> None:
    if target.exists() and target.stat().st_mtime >= source.stat().st_mtime:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run([*command, source], check=True)


def _list(cpus: Mapping[int, int]) -> str:
    return ",".join(map(str, cpus.values()))
