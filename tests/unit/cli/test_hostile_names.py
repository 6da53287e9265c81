"""Real processes with names that were chosen to do harm, a real daemon that watches them, and all that shows them."""

import contextlib
import http.client
import json
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from balancerd.cli.screen import escape
from balancerd.control.event_client import EventReader
from balancerd.model.printable import is_printable
from tests.unit import hostile
from tests.unit.cli.conftest import Run
from tests.unit.test_daemon import BIN, PATIENCE_SECONDS, Daemon, running
from tests.unit.test_daemon_siege import free_port
from tests.unit.web.reading import Reading

CGROUP_TOPS = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd")
SETTINGS = ("select.min_rss=4MiB", "select.min_cpu=0", "select.min_age=0s", "log.level=debug")


@dataclass(frozen=True, slots=True)
class Watched:
    """A daemon, its port, and the processes by what they are called; one cannot be, in whose place is ""."""

    daemon: Daemon
    port: int
    pids: tuple[int, ...]

    @property
    def socket(self) -> str:
        return str(self.daemon.socket)

    def get(self, path: str) -> tuple[str, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_SECONDS)
        with contextlib.closing(connection):
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.headers["Content-Type"], answer.read()


@contextlib.contextmanager
def made_cgroups() -> Iterator[list[bytes]]:
    """Control groups with hostile names, where this user may make any."""
    top = next((top for top in CGROUP_TOPS if os.access(f"{top}/cgroup.procs", os.W_OK)), None)
    made = [os.path.join(os.fsencode(top), name) for name in hostile.CGROUPS] if top is not None else []  # noqa: PTH118
    try:
        for path in made:
            os.mkdir(path)  # noqa: PTH102 -- bytes
        yield made
    finally:
        for path in made:
            os.rmdir(path)  # noqa: PTH106 -- bytes


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder, port = tmp_path_factory.mktemp("hostile"), free_port()
    settings = [
        word
        for each in (*SETTINGS, f"metrics.listen=127.0.0.1:{port}", f"state_directory={folder}")
        for word in ("--set", each)
    ]
    with made_cgroups() as cgroups:
        command = [os.fsencode(sys.executable), b"-m", b"tests.unit.hostile", bytes(folder), *cgroups, hostile.ARGUMENT]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as them:
            assert them.stdin is not None
            assert them.stdout is not None
            pids = tuple(map(int, them.stdout.readline().split()))
            try:
                with running(folder, *settings) as daemon:
                    wait_until_sampled(daemon, pids)
                    yield Watched(daemon, port, pids)
            finally:
                them.stdin.close()


def wait_until_sampled(daemon: Daemon, pids: tuple[int, ...]) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    missing = {*pids}
    while missing and time.monotonic() < end:
        known = daemon.client.get("/v1/processes")["processes"]
        missing -= {each["pid"] for each in known if each["bytes_by_node"]}
        time.sleep(0.1)
    assert missing == set()


def check_lines(text: str) -> None:
    assert [line for line in text.splitlines() if not is_printable(line)] == []
    assert text.isascii() or text.encode("utf-8")
    assert text.count("\n") == len(text.splitlines())  # nothing else ends a line


def test_the_kernel_gave_them_the_names_that_were_asked_for(watched: Watched) -> None:
    told = [Path(f"/proc/{pid}/comm").read_bytes().removesuffix(b"\n") for pid in watched.pids]
    assert told == [comm[:15] for comm in hostile.COMMS]
    assert hostile.ARGUMENT in Path(f"/proc/{watched.pids[0]}/cmdline").read_bytes()
    assert len(hostile.FILE) <= 255


@pytest.mark.parametrize(
    "words",
    [
        ("ps", "--all"),
        ("ps", "--workloads"),
        ("status",),
        ("nodes",),
        ("plan",),
        ("moves",),
        ("history",),
        ("top", "--batch", "-n", "1"),
        ("top", "--batch", "-n", "1", "--match", "\x1b"),
    ],
)
def test_what_a_command_prints_is_printable(watched: Watched, run: Run, words: tuple[str, ...]) -> None:
    done = run(*words, socket=watched.socket)
    assert done.exit_code == 0, done.output
    check_lines(done.stdout)
    check_lines(done.stderr)


def test_names_are_told_as_their_escapes_and_exactly_in_json(watched: Watched, run: Run) -> None:
    shown = run("ps", "--all", "--limit", "10000", socket=watched.socket).stdout.splitlines()
    document = json.loads(run("ps", "--all", "--limit", "10000", "--json", socket=watched.socket).stdout)
    names = {each["pid"]: each["comm"] for each in document["processes"]}
    for pid, comm in zip(watched.pids, hostile.COMMS, strict=True):
        assert names[pid].encode("utf-8") == comm[:15].decode("utf-8", "backslashreplace").encode("utf-8")
        (line,) = (line for line in shown if line.split()[:1] == [str(pid)])
        assert f"{pid}  {escape(names[pid])} " in line


@pytest.mark.parametrize("number", [0, 3, 8, 15])
def test_one_process_is_told_of_in_printable_lines(watched: Watched, run: Run, number: int, tmp_path: Path) -> None:
    pid = str(watched.pids[number])
    for words in (("explain", pid), ("heat", pid), ("heat", pid, "--format", "table")):
        done = run(*words, socket=watched.socket)
        assert done.exit_code == 0, done.output
        check_lines(done.stdout)
        check_lines(done.stderr)
    for exact in (("explain", pid, "--json"), ("heat", pid, "--format=json")):
        text = run(*exact, socket=watched.socket).stdout
        assert text.isascii()
        assert not {char for char in text if ord(char) < 32} - {"\n"}
    picture = tmp_path / "heat.svg"
    assert run("heat", pid, "--svg", str(picture), socket=watched.socket).exit_code == 0
    drawn = ET.parse(picture)  # noqa: S314 -- what we drew
    assert {element.tag.partition("}")[2] for element in drawn.iter()} <= {"svg", "rect", "text"}
    texts = [element.text or "" for element in drawn.iter() if element.tag.endswith("text")]
    assert all(map(is_printable, texts))
    assert any(escape(os.fsdecode(hostile.FILE))[:20].split("\\n")[0] in each for each in texts)


def test_a_terminal_is_told_nothing_to_do(watched: Watched) -> None:
    ours, theirs = pty.openpty()
    command = [str(BIN / "balancerctl"), "--socket", watched.socket, "ps", "--all"]
    with subprocess.Popen(command, stdout=theirs, env={**os.environ, "TERM": "xterm", "COLUMNS": "200"}) as child:
        os.close(theirs)
        arrived = b""
        with contextlib.suppress(OSError):  # EIO: the other end is closed
            while select.select([ours], [], [], PATIENCE_SECONDS)[0] and (piece := os.read(ours, 65536)):
                arrived += piece
    os.close(ours)
    assert child.returncode == 0
    text = arrived.decode("utf-8").replace("\r\n", "\n")
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    check_lines(plain)
    assert "─" in plain
    assert r"\x1b]0;owned\x07" in plain
    assert "[bold]red[/]" in plain


def test_every_line_of_the_log_is_one_event(watched: Watched) -> None:
    watched.daemon.wait_for("reason changed", pid=watched.pids[-1])
    text = watched.daemon.log.read_text(encoding="ascii")
    assert not {char for char in text if ord(char) < 32 or ord(char) == 127} - {"\n"}
    assert {"tick", "reason changed"} <= {json.loads(line)["event"] for line in text.splitlines()}


def test_a_scrape_is_what_was_meant(watched: Watched) -> None:
    kind, body = watched.get("/metrics")
    assert kind.startswith("text/plain")
    text = body.decode("utf-8")
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert all(name.startswith(("balancerd_", "process_", "python_")) for name in families)
    labels = [value for family in families.values() for each in family.samples for value in each.labels.values()]
    assert all(map(is_printable, labels))
    assert max(map(len, labels)) <= 200
    if shutil.which("promtool") is not None:
        done = subprocess.run(["promtool", "check", "metrics"], input=body, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()


def test_the_page_has_no_element_that_a_name_has_made(watched: Watched) -> None:
    kind, body = watched.get("/")
    assert kind == "text/html; charset=utf-8"
    page = Reading(body)
    assert page.all("script") == [{"src": "/page.js", "defer": None}]
    assert page.all("img") == []
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert [text for text in page.texts if not is_printable(text.replace("\n", ""))] == []
    values = [value for _, attributes in page.elements for value in attributes.values() if value is not None]
    assert [value for value in values if not is_printable(value)] == []


def test_a_stream_holds_one_document_for_each_event(watched: Watched) -> None:
    for event in EventReader(watched.socket, "/v1/stream").read():
        if event:
            assert event["tick"] > 0
            break


def test_a_recording_has_none_of_the_names_and_is_replayed(watched: Watched, run: Run, tmp_path: Path) -> None:
    trace = tmp_path / "trace.gz"
    done = run("record", str(trace), "--for", "1s", socket=watched.socket)
    assert done.exit_code == 0, done.output
    check_lines(done.stdout)
    packed = subprocess.run(["gzip", "-dc", trace], capture_output=True, check=True).stdout
    assert not [name for name in (b"owned", b"script", b"yyyy", b"xxxx") if name in packed]
    replayed = run("replay", str(trace))
    assert replayed.exit_code == 0, replayed.output
    check_lines(replayed.stdout)
