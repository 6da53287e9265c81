"""The control socket for real: cheroot, a unix socket, the client; peers of other users are child processes."""

import errno
import json
import os
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from balancerd.control.client import ControlClient, ControlFailure, NotPermitted, NotRunning
from balancerd.control.listening import ServerError
from balancerd.control.server import ControlServer
from tests.unit.control.daemon import Room, running
from tests.unit.reports import a_moving_report, a_process, a_process_report

NOBODY = 65534


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(socket=tmp_path / "run" / "control.sock")


@pytest.fixture
def served(room: Room) -> Iterator[Room]:
    with running(room.server()):
        yield room


def raw(path: Path, request: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.settimeout(10)
        caller.connect(str(path))
        caller.sendall(request)
        answer = b""
        with suppress(ConnectionResetError):  # what it did not read of a request that it refused
            while chunk := caller.recv(65536):
                answer += chunk
    return answer


@dataclass(frozen=True)
class User:
    uid: int
    gid: int
    groups: tuple[int, ...] = ()


def as_user(user: User, room: Room, method: str, path: str) -> str:
    """Ask from a child that has dropped to another user; the answer, or the failure with its exit code and HTTP status.

    Only root can become someone else. For anybody else see `other_user`.
    """
    program = f"""
import os
from balancerd.control.client import ControlClient, ControlFailure
if os.geteuid() == 0:
    os.setgroups({list(user.groups)})
    os.setresgid({user.gid}, {user.gid}, {user.gid})
    os.setresuid({user.uid}, {user.uid}, {user.uid})
try:
    print("answered", ControlClient({str(room.socket)!r}).{method}({path!r})["schema"])
except ControlFailure as failure:
    print(type(failure).__name__, failure.exit_code, failure.code)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.strip()


def other_user(room: Room, *, reader_gid: int | None) -> ControlServer:
    """A server for whom the asking child is neither root nor the daemon's user, whoever runs the tests."""
    server = room.server(reader_gid=reader_gid)
    if os.geteuid() != 0:
        access = room.app(reader_gid)
        access._access = type(access._access)(own_uid=os.geteuid() + 1, reader_gid=reader_gid)
        server = room.server(app=access)
    return server


@pytest.fixture
def open_room() -> Iterator[Room]:
    """A room whose directory anybody may enter, so that the second door can be tried: pytest's own are closed."""
    with tempfile.TemporaryDirectory(prefix="balancerd-test-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        yield Room(socket=directory / "control.sock")


def test_the_client_gets_status_processes_and_one_process(served: Room) -> None:
    served.state.emit(a_moving_report(5))
    served.now = 103.0
    status = served.client.get("/v1/status")
    assert (status["schema"], status["version"], status["pid"], status["tick"]["age_seconds"]) == (
        1,
        "1.2.3",
        4711,
        3.0,
    )
    assert [process["pid"] for process in served.client.get("/v1/processes")["processes"]] == [77, 4242]
    explained = served.client.get("/v1/processes/4242")["process"]
    assert (explained["reason"], explained["outcome"]["pages"]) == ("misplaced", {"moved": 1000, "eacces": 24})
    assert served.errors == []


def test_a_process_outside_the_last_report_is_looked_at_and_one_that_is_not_there_is_404(served: Room) -> None:
    served.known[99] = a_process_report(a_process(99, comm="late"))
    assert served.client.get("/v1/processes/99")["process"]["comm"] == "late"
    with pytest.raises(ControlFailure, match="there is no process 98") as failure:
        served.client.get("/v1/processes/98")
    assert (failure.value.code, failure.value.exit_code) == (404, 1)


def test_reload_is_passed_on_and_answered_at_once(served: Room) -> None:
    assert served.client.post("/v1/reload") == {"schema": 1, "accepted": True}
    assert served.reloads == 1


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/", 404),
        ("GET", "/v1/statuses", 404),
        ("GET", "/v1/processes/1/maps", 404),
        ("GET", "/v1/processes/../../etc/passwd", 404),
        ("GET", "/v1/processes/-1", 400),
        ("GET", "/v1/processes/0", 400),
        ("GET", "/v1/processes/%D9%A4%D9%A2", 400),
        ("GET", "/v1/processes/99999999999999999999", 400),
        ("POST", "/v1/status", 405),
        ("DELETE", "/v1/processes/1", 405),
        ("BREW", "/v1/processes", 405),
        ("GET", "/v1/reload", 405),
    ],
)
def test_what_does_not_exist_is_refused_in_json_and_counted(served: Room, method: str, path: str, code: int) -> None:
    answer = raw(served.socket, f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    head, body = answer.split(b"\r\n\r\n", 1)
    assert head.startswith(f"HTTP/1.1 {code} ".encode())
    assert b"Content-Type: application/json" in head
    assert json.loads(body)["schema"] == 1
    assert json.loads(body)["error"]
    label = method if method != "BREW" else "other"
    counted = f'balancerd_control_requests_total{{code="{code}",method="{label}"}} 1.0'
    assert counted in served.metrics.render()[1].decode()
    assert served.reloads == 0


def test_a_huge_or_broken_request_is_refused_and_the_next_one_is_answered(served: Room) -> None:
    huge = b"GET /v1/status HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 20000 + b"\r\n\r\n"
    assert raw(served.socket, huge)[:12] == b"HTTP/1.1 413"
    body = b"POST /v1/reload HTTP/1.1\r\nHost: x\r\nContent-Length: 999999\r\n\r\n"
    assert raw(served.socket, body)[:12] == b"HTTP/1.1 413"
    assert raw(served.socket, b"GET /v1/processes/\xd9\xa4 HTTP/1.1\r\nHost: x\r\n\r\n")[:12] == b"HTTP/1.1 400"
    assert raw(served.socket, b"\x00\xff nonsense\r\n\r\n")[:12] == b"HTTP/1.1 400"
    assert served.client.get("/v1/status")["schema"] == 1
    assert served.reloads == 0


def test_an_answer_to_head_has_no_body(served: Room) -> None:
    answer = raw(served.socket, b"HEAD /v1/status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert (head.split(b"\r\n")[0], body) == (b"HTTP/1.1 405 Method Not Allowed", b"")


def test_a_body_in_chunks_is_refused_and_not_taken_for_none(served: Room) -> None:
    head = b"POST /v1/pause HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert raw(served.socket, head + b'f\r\n{"seconds": 60}\r\n0\r\n\r\n').startswith(b"HTTP/1.1 411 ")
    assert served.switches.halt() is None


def test_a_callback_that_fails_is_answered_500_and_told_to_the_log(room: Room) -> None:
    def fail(_pid: int) -> None:
        raise RuntimeError("unexpected")

    app = room.app()
    app._look = fail
    server = room.server(app=app)
    with running(server):
        with pytest.raises(ControlFailure) as failure:
            room.client.get("/v1/processes/1")
        assert failure.value.code == 500
        assert room.client.get("/v1/status")["schema"] == 1
    assert "RuntimeError: unexpected" in room.errors[0]


def test_the_socket_is_closed_to_others_and_its_directory_is_made(served: Room) -> None:
    assert stat.S_IMODE(served.socket.stat().st_mode) == 0o600
    assert stat.S_IMODE(served.socket.parent.stat().st_mode) == 0o755


def test_with_a_group_the_socket_is_0660_and_belongs_to_it(room: Room) -> None:
    import grp

    group = grp.getgrgid(os.getgroups()[-1] if os.getgroups() else os.getegid())
    with running(room.server(group=group.gr_name, reader_gid=group.gr_gid)):
        status = room.socket.stat()
        assert (stat.S_IMODE(status.st_mode), status.st_gid) == (0o660, group.gr_gid)
        assert room.client.get("/v1/status")["schema"] == 1


def test_a_group_that_does_not_exist_is_said_so(room: Room) -> None:
    with pytest.raises(ServerError, match=r"control: there is no group 'no-such-group': see group and change_group"):
        room.server(group="no-such-group").start()
    assert not room.socket.exists()


def test_another_user_is_refused_by_the_kernel_or_by_the_daemon(open_room: Room) -> None:
    who = User(uid=NOBODY, gid=NOBODY)
    with running(other_user(open_room, reader_gid=None)):
        open_room.socket.chmod(0o666)
        for method, path in (("get", "/v1/status"), ("get", "/nowhere"), ("post", "/v1/reload")):
            assert as_user(who, open_room, method, path) == "NotPermitted 4 403"
        if os.geteuid() == 0:
            open_room.socket.chmod(0o600)
            assert as_user(who, open_room, "get", "/v1/status") == "NotPermitted 4 None"
    assert open_room.reloads == 0


@pytest.mark.parametrize("membership", ["primary", "supplementary"])
def test_a_member_of_the_group_may_read_but_not_change(open_room: Room, membership: str) -> None:
    group = 54321 if os.geteuid() == 0 else os.getegid()
    with running(other_user(open_room, reader_gid=group)):
        open_room.socket.chmod(0o666)
        who = User(NOBODY, group) if membership == "primary" else User(NOBODY, NOBODY, (7, group))
        assert as_user(who, open_room, "get", "/v1/status") == "answered 1"
        assert as_user(who, open_room, "post", "/v1/reload") == "NotPermitted 4 403"
    assert open_room.reloads == 0


def test_credentials_in_headers_are_not_believed(open_room: Room) -> None:
    with running(other_user(open_room, reader_gid=None)):
        open_room.socket.chmod(0o666)
        request = (
            b"GET /v1/status HTTP/1.1\r\nHost: x\r\nX-Remote-Uid: 0\r\nX_Remote_Uid: 0\r\nConnection: close\r\n\r\n"
        )
        program = f"""
import os, socket
if os.geteuid() == 0:
    os.setgroups([]); os.setresgid({NOBODY}, {NOBODY}, {NOBODY}); os.setresuid({NOBODY}, {NOBODY}, {NOBODY})
s = socket.socket(socket.AF_UNIX); s.connect({str(open_room.socket)!r})
s.sendall({request!r})
print(s.recv(12).decode())
"""
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "HTTP/1.1 403"


def test_the_socket_is_gone_after_stop_and_the_daemon_can_start_again(room: Room) -> None:
    for _ in range(2):
        with running(room.server()):
            assert room.client.get("/v1/status")["schema"] == 1
        assert not room.socket.exists()
        with pytest.raises(NotRunning) as failure:
            room.client.get("/v1/status")
        assert failure.value.exit_code == 3


def test_a_socket_left_by_a_killed_daemon_is_replaced(room: Room) -> None:
    room.socket.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(room.socket))
    with pytest.raises(NotRunning):
        room.client.get("/v1/status")
    with running(room.server()):
        assert room.client.get("/v1/status")["schema"] == 1


def test_a_socket_on_which_someone_answers_is_left_alone(served: Room) -> None:
    second = Room(socket=served.socket)
    with pytest.raises(ServerError, match="another daemon answers there"):
        second.server().start()
    assert served.client.get("/v1/status")["schema"] == 1


def test_a_busy_listener_counts_as_someone_even_when_its_backlog_is_full(room: Room) -> None:
    room.socket.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as waiting:
        busy.bind(str(room.socket))
        busy.listen(0)
        waiting.connect(str(room.socket))
        with pytest.raises(ServerError, match="another daemon answers there"):
            room.server().start()


def test_a_file_in_the_way_is_not_removed(room: Room) -> None:
    room.socket.parent.mkdir()
    room.socket.write_text("precious")
    with pytest.raises(ServerError, match="something that is no socket"):
        room.server().start()
    assert room.socket.read_text() == "precious"


def test_stopping_does_not_remove_the_socket_of_a_successor(room: Room) -> None:
    server = room.server()
    with running(server):
        room.socket.unlink()
        with socket.socket(socket.AF_UNIX) as successor:
            successor.bind(str(room.socket))
            server.stop()
            assert room.socket.exists()


def test_of_two_daemons_that_start_at_once_over_a_stale_socket_one_serves(room: Room) -> None:
    room.socket.parent.mkdir()
    for _ in range(10):
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(room.socket))
        servers = [room.server(), room.server()]
        refused: list[ServerError] = []
        go = threading.Barrier(2)

        def start(server: ControlServer, go: threading.Barrier = go, refused: list[ServerError] = refused) -> None:
            go.wait()
            try:
                server.start()
            except ServerError as error:
                refused.append(error)

        threads = [threading.Thread(target=start, args=(server,)) for server in servers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(refused) == 1
        assert room.client.get("/v1/status")["schema"] == 1
        for server in servers:
            server.stop()


def test_a_request_that_hangs_does_not_hold_up_stopping(room: Room) -> None:
    hanging, release = threading.Event(), threading.Event()

    def hang(_pid: int) -> None:
        hanging.set()
        release.wait(30)

    app = room.app()
    app._look = hang
    with running(room.server(app=app)):
        asker = threading.Thread(target=lambda: raw(room.socket, b"GET /v1/processes/1 HTTP/1.0\r\n\r\n"))
        asker.start()
        assert hanging.wait(10)
    release.set()
    asker.join()


def test_a_silent_connection_does_not_hold_up_stopping_or_others(room: Room) -> None:
    with running(room.server()), socket.socket(socket.AF_UNIX) as silent:
        silent.connect(str(room.socket))
        assert room.client.get("/v1/status")["schema"] == 1


def test_stopping_ends_all_threads(room: Room) -> None:
    before = threading.active_count()
    with running(room.server()):
        assert room.client.get("/v1/status")["schema"] == 1
    end = time.monotonic() + 10
    while threading.active_count() > before:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_the_client_says_when_whoever_answers_is_not_the_daemon(tmp_path: Path) -> None:
    path = tmp_path / "other.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen(1)

        def answer() -> None:
            connection, _ = other.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(ControlFailure, match="no JSON object"):
            ControlClient(str(path)).get("/v1/status")
        thread.join()


def test_the_client_waits_where_many_do(tmp_path: Path) -> None:
    path = tmp_path / "busy.sock"
    with socket.socket(socket.AF_UNIX) as busy, ExitStack() as stack:
        busy.bind(str(path))
        busy.listen(0)
        first = stack.enter_context(socket.socket(socket.AF_UNIX))
        first.connect(str(path))
        second = stack.enter_context(socket.socket(socket.AF_UNIX))
        second.setblocking(False)
        assert second.connect_ex(str(path)) == errno.EAGAIN
        told: list[object] = []
        asker = threading.Thread(target=lambda: told.append(ControlClient(str(path)).get("/v1/status")))
        asker.start()
        asker.join(0.2)
        assert asker.is_alive()
        stack.enter_context(busy.accept()[0])
        connection, _ = busy.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{"schema": 1}')
        asker.join(10)
    assert told == [{"schema": 1}]


def test_the_client_gives_up_on_a_daemon_that_does_not_answer(tmp_path: Path) -> None:
    path = tmp_path / "mute.sock"
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(path))
        mute.listen(1)
        with pytest.raises(ControlFailure, match=r"no answer on .*timed out") as failure:
            ControlClient(str(path), timeout_seconds=0.05).get("/v1/status")
    assert not isinstance(failure.value, NotRunning | NotPermitted)


def test_the_client_imports_none_of_the_daemons_dependencies() -> None:
    program = """
import sys, balancerd.control.client
heavy = {"pydantic", "prometheus_client", "cheroot", "structlog", "cffi", "_cffi_backend"}
heavy |= {"yaml", "psutil", "rich", "click"}
print(sorted(heavy & {name.split(".")[0] for name in sys.modules}))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
