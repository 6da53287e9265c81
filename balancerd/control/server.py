"""The sockets of the daemon and the few threads behind them.

Owns how sockets are made, limited and taken away, and what the kernel says of a peer. cheroot speaks HTTP; it would
create a unix socket open to everyone and remove whatever stood in its place, so sockets are made here and handed over.
All threads are daemonic: a request that hangs never keeps the process alive. It must not know any path or answer.
"""

import contextlib
import errno
import fcntl
import functools
import grp
import logging
import os
import select
import socket
import stat
import struct
import threading
import traceback as tracebacks
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from pathlib import Path
from queue import SimpleQueue
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from cheroot import wsgi

from balancerd.control.access import Peer
from balancerd.control.app import PEER_KEY
from balancerd.control.stream_api import MOST_LISTENERS
from balancerd.control.taking import TakenGateway
from balancerd.streaming import GONE_KEY

THREADS = 3
"""Answering at once, for each listener; a client that sends nothing holds one for TIMEOUT_SECONDS."""

STREAM_THREADS = MOST_LISTENERS
"""More on the control socket: each stream has one for as long as it lasts."""

BACKLOG = 16
TIMEOUT_SECONDS = 5
"""For each wait on a client; keep-alive connections last as long, which no scrape interval needs."""

HEADER_BYTES = 8192
BODY_BYTES = 4096
CONTROL_BODY_BYTES = 64 * 1024
"""On the control socket: a piece of an imported log. Other requests have bounds of their own."""

STOP_SECONDS = 0.3
"""What a request in progress is given when the daemon stops."""

EXPIRATION_SECONDS = 5.0
"""How often an idle server wakes up; a stop wakes it too."""

SO_PEERGROUPS = 59
"""include/uapi/asm-generic/socket.h, since Linux 4.13; Python 3.13 has no name for it."""

_GROUP_BYTES = struct.calcsize("I")
_LARGEST_OPTION_BYTES = 1024
"""What Python's getsockopt() can fetch: 256 groups. Who has more is judged by the primary group alone."""


_NOBODY_THERE = {errno.ECONNREFUSED, errno.ENOENT}


class ServerError(Exception):
    """A listener could not be set up; the message says which and why."""


class HttpServer:
    """A listener that answers with a WSGI application from start() to stop()."""

    def __init__(self, server: "_Server", name: str) -> None:
        self._server = server
        self._name = name

    @property
    def thread_ids(self) -> AbstractSet[int]:
        """The threads that have answered something, as the kernel numbers them: gettid(2)."""
        return self._server.thread_ids

    def stop(self) -> None:
        """Answer nobody any more. Returns within a second, though a request that hangs may outlive it."""
        stopper = threading.Thread(target=self._server.stop, name=f"{self._name}-stop", daemon=True)
        stopper.start()
        for _ in range(9):
            self._wake()
            stopper.join(0.1)
            if not stopper.is_alive():
                return

    def _serve(self, listener: socket.socket) -> None:
        """Answer on a listening socket until stop(), which closes it. Raises OSError."""
        os.environ.pop("LISTEN_PID", None)  # cheroot would take file descriptor 3 for its socket, whoever that is for
        self._server.listening = listener
        started: SimpleQueue[OSError | None] = SimpleQueue()
        threading.Thread(target=self._run, args=(started,), name=self._name, daemon=True).start()
        error = started.get()
        if error is not None:
            listener.close()
            raise error

    def _run(self, started: "SimpleQueue[OSError | None]") -> None:
        self._server.thread_ids.add(threading.get_native_id())
        try:
            self._server.prepare()  # its threads are daemonic because this one is
        except OSError as error:
            started.put(error)
            return
        started.put(None)
        self._server.serve()

    def _wake(self) -> None:
        """Connect, so that the server looks up from waiting and sees that it is to stop."""
        family = self._server.listening_family
        if family is None:
            return
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_STREAM) as caller:
            caller.settimeout(0.05)
            caller.connect(self._server.bind_addr)


class MetricsServer(HttpServer):
    """Listens on TCP; port 0 takes a free one, which `address` tells after start()."""

    def __init__(self, *, host: str, port: int, app: WSGIApplication, on_error: Callable[[str], None]) -> None:
        super().__init__(_Server((host, port), app, on_error), "metrics")

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens: the numeric address and the real port, once it has started."""
        host, port = self._server.bind_addr
        return host, port

    def start(self) -> None:
        """Listen and answer in threads. Raises ServerError."""
        host, port = self.address
        try:
            self._serve(listen_tcp(host, port))
        except OSError as error:
            raise ServerError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error


class ControlServer(HttpServer):
    """Listens on a unix socket; the application finds the Peer of each request under PEER_KEY.

    Owner, and the members of `group` when there is one, may connect. A socket in the way is replaced only when nobody
    answers on it.
    """

    def __init__(self, *, path: str, group: str | None, app: WSGIApplication, on_error: Callable[[str], None]) -> None:
        self._path = Path(path)
        self._group = group
        self._identity: tuple[int, int] | None = None
        server = _Server(path, app, on_error)
        server.max_request_body_size = CONTROL_BODY_BYTES
        super().__init__(server, "control")

    def start(self) -> None:
        """Create the socket, and its directory when missing, and answer in threads. Raises ServerError."""
        try:
            listener = listen_unix(self._path, None if self._group is None else group_id(self._group))
            self._identity = _identity(self._path)
            self._serve(listener)
        except OSError as error:
            raise ServerError(f"cannot listen on {self._path}: {error.strerror or error}") from error

    def stop(self) -> None:
        """Answer nobody any more and remove the socket, unless another one stands in its place by now."""
        super().stop()
        with contextlib.suppress(FileNotFoundError):
            if self._identity is not None and _identity(self._path) == self._identity:
                self._path.unlink()
        self._identity = None


def group_id(name: str) -> int:
    """Return the number of a group. Raises ServerError when there is none of that name."""
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise ServerError(f"control.group: there is no group {name!r}") from None


def listen_tcp(host: str, port: int) -> socket.socket:
    """Return a listening TCP socket at the first address of `host` that can be had. Raises OSError."""
    failed = OSError(f"{host!r} has no address")
    for family, _type, _protocol, _name, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        try:
            return socket.create_server(address[:2], family=family, backlog=BACKLOG, dualstack_ipv6=address[0] == "::")
        except OSError as error:
            failed = error
    raise failed


def listen_unix(path: Path, gid: int | None) -> socket.socket:
    """Return a listening unix socket at `path`, mode 0660 and of group `gid`, or mode 0600 when that is None.

    Raises OSError, and ServerError when the path is taken.
    """
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    with _locked(path.parent):  # two daemons that start at once must not both find the socket stale
        _remove_stale(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            os.fchmod(listener.fileno(), 0o600)  # bind() creates the file with the socket's mode, see unix(7)
            listener.bind(str(path))
            if gid is not None:
                _open_to(path, gid)
            listener.listen(BACKLOG)
        except BaseException:
            listener.close()
            raise
    return listener


def _open_to(path: Path, gid: int) -> None:
    try:
        os.chown(path, -1, gid, follow_symlinks=False)
        path.chmod(0o660)
    except PermissionError:
        path.unlink()
        raise ServerError(
            f"control.group: the daemon is no member of group {gid}, so cannot open {path} to it"
        ) from None


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _remove_stale(path: Path) -> None:
    try:
        kind = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise ServerError(f"cannot listen on {path}: something that is no socket stands there")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.setblocking(False)  # a full backlog is EAGAIN: somebody is there, however busy
        if caller.connect_ex(str(path)) not in _NOBODY_THERE:
            raise ServerError(f"cannot listen on {path}: another daemon answers there")
    path.unlink()


def _identity(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_dev, status.st_ino


class _Gateway(wsgi.Gateway_10):
    """Adds to the WSGI environment the peer's credentials, and how to ask whether it has hung up."""

    def get_environ(self) -> dict[str, Any]:  # type: ignore[override]  # the stub says None by mistake
        environ: dict[str, Any] = super().get_environ()  # type: ignore[no-untyped-call]
        environ[PEER_KEY] = _peer(self.req.conn.socket)
        environ[GONE_KEY] = functools.partial(_has_hung_up, self.req.conn.socket)
        return environ


def _has_hung_up(connection: socket.socket) -> bool:
    """Whether the client has closed its end: nothing that is asked for comes after that."""
    poll = select.poll()
    try:
        poll.register(connection, select.POLLRDHUP)
        return bool(poll.poll(0))
    except (OSError, ValueError):  # ValueError: closed at this end
        return True


def _peer(connection: socket.socket) -> Peer | None:
    try:
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    except OSError:
        return None
    _pid, uid, gid = struct.unpack("3i", credentials)
    groups: Iterable[tuple[int]] = ()
    with contextlib.suppress(OSError):
        groups = struct.iter_unpack("I", connection.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, _LARGEST_OPTION_BYTES))
    return Peer(uid=uid, gid=gid, groups=frozenset(group for (group,) in groups))


class _Server(wsgi.Server):
    """cheroot's server with bounds on everything, whose complaints go to the daemon's log."""

    max_request_header_size = HEADER_BYTES
    max_request_body_size = BODY_BYTES
    expiration_interval = EXPIRATION_SECONDS
    keep_alive_conn_limit = 4
    version = "balancerd"
    listening: socket.socket
    listening_family: socket.AddressFamily | None = None

    def __init__(self, address: tuple[str, int] | str, app: WSGIApplication, on_error: Callable[[str], None]) -> None:
        self.thread_ids: set[int] = set()
        threads = THREADS + STREAM_THREADS if isinstance(address, str) else THREADS
        super().__init__(
            address,
            self._note_thread(app),
            numthreads=threads,
            max=threads,
            request_queue_size=BACKLOG,
            timeout=TIMEOUT_SECONDS,
            accepted_queue_size=BACKLOG,
            accepted_queue_timeout=1,
        )
        self.shutdown_timeout = STOP_SECONDS
        self.gateway = _Gateway if isinstance(address, str) else TakenGateway
        self._on_error = on_error

    def _note_thread(self, app: WSGIApplication) -> WSGIApplication:
        def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            self.thread_ids.add(threading.get_native_id())
            return app(environ, start_response)

        return answer

    def bind(self, _family: int, _kind: int, _protocol: int = 0) -> socket.socket:
        """Take the TCP socket that was made before."""
        return self._take()

    def bind_unix_socket(self, _address: str) -> socket.socket:
        """Take the unix socket that was made before."""
        return self._take()

    def error_log(self, msg: str = "", level: int = logging.INFO, traceback: bool = False) -> None:
        """Pass on what went wrong; what a client did, such as hanging up, is not worth a line."""
        if level >= logging.WARNING:
            self._on_error(f"{msg}\n{tracebacks.format_exc()}" if traceback else msg)

    def _take(self) -> socket.socket:
        self.socket = self.listening
        self.listening_family = self.listening.family
        name = self.listening.getsockname()
        self.bind_addr = name if isinstance(name, str) else name[:2]
        return self.listening
