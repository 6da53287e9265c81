"""What containers are called: names in files that the kubelet and the engines leave on the machine.

Owns where these files are and how they read. All are optional, most can be read by root only, and nobody is asked
through a socket, so that no lookup waits for another program. It must not know cgroup paths beyond the ids in them.
"""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Generic, TypeVar

from balancerd.kernel.errors import ParseError
from balancerd.kernel.files import read_bytes
from balancerd.kernel.workloads.paths import Membership
from balancerd.model.workload import WorkloadKind

SHORT_ID_CHARACTERS: Final = 12
"""As docker and podman show ids."""
_BELIEVED_SECONDS: Final = 300.0
"""A directory that changes twice within one tick of the file system's clock may look unchanged, so it is read again."""
_POD_DIRECTORY = re.compile(r"(?P<namespace>[^_]+)_(?P<pod>[^_]+)_(?P<uid>[^_]+)")
_CONTAINER_LOG = re.compile(r"(?P<pod>[^_]+)_(?P<namespace>[^_]+)_(?P<container>[^_]+)-(?P<id>[0-9a-f]{64})\.log")
_KUBELET_NAME = re.compile(r"k8s_(?P<container>[^_]+)_(?P<pod>[^_]+)_(?P<namespace>[^_]+)_[^_]+_[0-9]+")
_FULL_ID = re.compile(r"[0-9a-f]{64}")
_STORAGE_FILES: Final = ("containers.json", "volatile-containers.json")
_PODMAN_ENGINES: Final = frozenset({"libpod", "crio"})
Value = TypeVar("Value")


def parse_pod_directory(name: str) -> tuple[str, str] | None:
    """Read the name of a directory in /var/log/pods into the pod's uid and "namespace/pod"; None: it is no pod's."""
    found = _POD_DIRECTORY.fullmatch(name)
    return None if found is None else (found["uid"], f"{found['namespace']}/{found['pod']}")


def parse_container_log(name: str) -> tuple[str, str] | None:
    """Read the name of a file in /var/log/containers into a container's id and "namespace/pod/container"."""
    found = _CONTAINER_LOG.fullmatch(name)
    return None if found is None else (found["id"], f"{found['namespace']}/{found['pod']}/{found['container']}")


def parse_kubelet_name(name: str) -> str | None:
    """Read what the kubelet called a container of docker or cri-o, "k8s_CONTAINER_POD_NAMESPACE_UID_ATTEMPT"."""
    found = _KUBELET_NAME.fullmatch(name)
    if found is None:
        return None
    container = "pause" if found["container"] == "POD" else found["container"]
    return f"{found['namespace']}/{found['pod']}/{container}"


def parse_docker_config(text: bytes, path: str) -> str | None:
    """Parse a container's config.v2.json of docker into its name, None when it has none. Raises ParseError."""
    document = _load(text, path)
    name = document.get("Name") if isinstance(document, dict) else None
    return (name.removeprefix("/") or None) if isinstance(name, str) else None


def parse_storage(text: bytes, path: str) -> dict[str, str]:
    """Parse containers.json of podman's and cri-o's storage into the first name of each id. Raises ParseError."""
    document = _load(text, path)
    if not isinstance(document, list):
        raise ParseError(path, 1, text, "not a list of containers")
    names: dict[str, str] = {}
    for each in document:
        match each:
            case {"id": str(id_), "names": [str(name), *_]}:
                names[id_] = name
    return names


class HostNames:
    """Finds names below `root`. Remembers what it read while it is the same, for five minutes at most.

    `unreadable` holds what could not be read, with the reason, for someone to say once; what is not there is not in it.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        logs, self._docker = root / "var/log", root / "var/lib/docker/containers"
        self._pods = _Remembered(logs / "pods", lambda path: _list_names(path, parse_pod_directory))
        self._logs = _Remembered(logs / "containers", lambda path: _list_names(path, parse_container_log))
        self._storages = (root / "var/lib/containers/storage", root / "run/containers/storage")
        self._stored: dict[Path, _Remembered[dict[str, str]]] = {}
        self.unreadable: dict[str, str] = {}

    def find(self, member: Membership, now: float) -> tuple[WorkloadKind, str] | None:
        """Return the name of a pod's or container's cgroup at `now` seconds, and which of both it is; None: unknown."""
        id_ = member.container_id
        if id_ is None:
            pod = self._pod(member.pod_uid, now)
            return None if pod is None else (WorkloadKind.POD, pod)
        if _FULL_ID.fullmatch(id_) is None:
            return None
        if (name := self._of(self._logs, now).get(id_)) is not None:
            return WorkloadKind.POD, name
        if (name := self._engine_name(member.engine, id_, now)) is not None:
            by_kubelet = parse_kubelet_name(name)
            return (member.kind, name) if by_kubelet is None else (WorkloadKind.POD, by_kubelet)
        pod = self._pod(member.pod_uid, now)
        return None if pod is None else (WorkloadKind.POD, f"{pod}/{id_[:SHORT_ID_CHARACTERS]}")

    def _pod(self, uid: str | None, now: float) -> str | None:
        return None if uid is None else self._of(self._pods, now).get(uid)

    def _engine_name(self, engine: str | None, id_: str, now: float) -> str | None:
        name = None if engine in _PODMAN_ENGINES else self._docker_name(id_)
        return name if name is not None or engine == "docker" else self._stored_name(id_, now)

    def _docker_name(self, id_: str) -> str | None:
        path = f"{self._docker}/{id_}/config.v2.json"
        try:
            return parse_docker_config(read_bytes(path), path)
        except (OSError, ParseError) as error:
            self._note(self._docker, error)
            return None

    def _stored_name(self, id_: str, now: float) -> str | None:
        for storage in self._storages:
            for path in (path for name in _STORAGE_FILES for path in sorted(storage.glob(f"*-containers/{name}"))):
                kept = self._stored.setdefault(path, _Remembered(path, _read_storage))
                if (name := self._of(kept, now).get(id_)) is not None:
                    return name
        return None

    def _of(self, kept: "_Remembered[dict[str, str]]", now: float) -> Mapping[str, str]:
        try:
            return kept.read(now)
        except (OSError, ParseError) as error:
            self._note(kept.path, error)
            return {}

    def _note(self, path: Path, error: OSError | ParseError) -> None:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            what = error.strerror if isinstance(error, OSError) else None
            self.unreadable.setdefault(str(path), what or str(error))


class _Remembered(Generic[Value]):
    """What `read` makes of a path, made again when the path has changed or was read long ago."""

    def __init__(self, path: Path, read: Callable[[Path], Value]) -> None:
        self.path = path
        self._read = read
        self._known: tuple[tuple[int, int, int], float, Value] | None = None

    def read(self, now: float) -> Value:
        """Return what the path holds at `now` seconds. Raises what `read` raises."""
        status = self.path.stat()
        stamp = (status.st_ino, status.st_size, status.st_mtime_ns)
        if self._known is None or self._known[0] != stamp or now - self._known[1] >= _BELIEVED_SECONDS:
            self._known = (stamp, now, self._read(self.path))
        return self._known[2]


def _list_names(path: Path, parse: Callable[[str], tuple[str, str] | None]) -> dict[str, str]:
    return dict(found for entry in path.iterdir() if (found := parse(entry.name)) is not None)


def _read_storage(path: Path) -> dict[str, str]:
    return parse_storage(read_bytes(str(path)), str(path))


def _load(text: bytes, path: str) -> object:
    try:
        document: object = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ParseError(path, getattr(error, "lineno", 0), text, f"not JSON: {error}") from error
    return document
