"""Whose cgroup a path is: the words of systemd, Kubernetes, container engines and libvirt in /proc/PID/cgroup.

Owns the spelling of such paths, for cgroup v1 and v2 alike; any text gives an answer. It must not know the files in
which containers have names, nor what the daemon does with a workload.

A pod comes first, wherever it stands: it may be a container inside a container (kind) or below a service. Next is a
guest or the outermost container, since whoever looks at this machine started that one. Next is a unit.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from balancerd.model.workload import WorkloadKind

_DELETED: Final = " (deleted)"  # the kernel's word behind the path of a removed cgroup, cgroups(7)
_ID: Final = r"[0-9a-f]{64}"
_UID: Final = r"[0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32}"  # the second: hash of a static pod

_POD_SLICE = re.compile(r"(?:[\w.-]+-)?kubepods(?:-burstable|-besteffort)?-pod(?P<uid>[0-9A-Za-z_]+)\.slice")
_POD_DIRECTORY = re.compile(rf"pod(?P<uid>{_UID})")
_ODD_POD_DIRECTORY = re.compile(r"pod(?P<uid>[0-9A-Za-z._-]+)")  # below kubepods only
_QOS: Final = frozenset({"burstable", "besteffort", "guaranteed"})
_COLONS = re.compile(r"(?P<slice>[^:]+\.slice):(?P<engine>[a-z][a-z0-9-]*):(?P<id>[0-9A-Za-z_.-]+)")
_CONTAINER = re.compile(rf"(?:(?P<engine>[a-z][a-z0-9-]*)-)?(?P<id>{_ID})(?:\.scope)?")
_MONITOR: Final = "conmon"
_SPLIT: Final = "libpod-payload"
_LXC = re.compile(r"lxc\.(?P<role>payload|monitor)(?:[.-](?P<name>.+))?")
_LIBVIRT_V1 = re.compile(r"(?:(?P<driver>qemu|lxc)-[0-9]+-)?(?P<name>.+)\.libvirt-(?P<type>qemu|lxc)")
_LIBVIRT_DOMAIN = re.compile(r"(?P<driver>qemu|lxc)-[0-9]+-(?P<name>.+)")
_UNIT = re.compile(r".+\.(?:service|scope)")
_USER_MANAGER = re.compile(r"user@.+\.service")
_ESCAPE = re.compile(r"\\x([0-9a-fA-F]{2})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """What a path alone tells.

    `name` is what it calls the workload, empty where it holds only ids. `cgroup` is the path that holds all of the
    workload, None where it shares one. `container_id` is an engine's id, `pod_uid` as Kubernetes writes it.
    """

    kind: WorkloadKind
    name: str = ""
    cgroup: str | None = None
    engine: str | None = None
    container_id: str | None = None
    pod_uid: str | None = None


def parse_path(path: str) -> Membership:
    """Say whose cgroup `path` is.

    A path that a private cgroup namespace shows, with ".." in front, is read from where it is known.
    """
    parts = [part for part in path.removesuffix(_DELETED).split("/") if part]
    names = [part for part in parts if part != ".."]
    if not names:
        return Membership(kind=WorkloadKind.OTHER, name="/")
    return (
        _find_pod(parts)
        or _find_container(parts)
        or _find_unit(parts)
        or Membership(kind=WorkloadKind.OTHER, name=_path(parts), cgroup=_path(parts))
    )


def unescape(name: str) -> str:
    r"""Undo the escapes of unit names: "debian\x2d12" is "debian-12"; see systemd-escape(1)."""
    text = _ESCAPE.sub(lambda found: chr(int(found[1], 16)), name)
    if text.isascii():
        return text
    try:  # an escape stands for a byte, and several of them for one character
        return text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return text


def _path(parts: Sequence[str]) -> str:
    return "/" + "/".join(parts)


def _find_pod(parts: Sequence[str]) -> Membership | None:
    """Look for a pod, and for its container in the very next part of the path."""
    below_kubepods = False
    for index, part in enumerate(parts):
        colons = _COLONS.fullmatch(part)
        found = _POD_SLICE.fullmatch(part if colons is None else colons["slice"]) or _POD_DIRECTORY.fullmatch(part)
        if found is None and below_kubepods:
            found = _ODD_POD_DIRECTORY.fullmatch(part)
        if found is None:
            below_kubepods = part.endswith("kubepods") or (below_kubepods and part in _QOS)
            continue
        uid = found["uid"].replace("_", "-")
        if colons is not None:
            engine, container = colons["engine"], colons["id"]
            return Membership(
                kind=WorkloadKind.POD,
                cgroup=_path(parts[: index + 1]),
                engine=engine,
                container_id=container,
                pod_uid=uid,
            )
        inner = _CONTAINER.fullmatch(parts[index + 1]) if index + 1 < len(parts) else None
        if inner is None or _is_monitor(inner["engine"]):
            return Membership(kind=WorkloadKind.POD, pod_uid=uid)
        return Membership(
            kind=WorkloadKind.POD,
            cgroup=_path(parts[: index + 2]),
            engine=inner["engine"],
            container_id=inner["id"],
            pod_uid=uid,
        )
    return None


def _find_container(parts: Sequence[str]) -> Membership | None:
    """Look for a guest or a container, from the outside in."""
    for index, part in enumerate(parts):
        parent = parts[index - 1] if index else ""
        cgroup = _path(parts[: index + 1])
        if (kind_and_name := _named_machine(part, parent)) is not None:
            kind, name = kind_and_name
            return Membership(kind=kind, name=name, cgroup=cgroup)
        if (lxc := _LXC.fullmatch(part)) is not None:
            return _lxc(lxc["role"], lxc["name"], parts, index)
        if part == "lxc" and index + 1 < len(parts):  # before LXC 3.1, and Proxmox still
            return _lxc("payload", None, parts, index)
        if (colons := _COLONS.fullmatch(part)) is not None and not _is_monitor(colons["engine"]):
            engine, id_ = colons["engine"], colons["id"]
            return Membership(kind=WorkloadKind.CONTAINER, cgroup=cgroup, engine=engine, container_id=id_)
        found = _CONTAINER.fullmatch(part)
        if found is None or _is_monitor(found["engine"]) or found["engine"] == _SPLIT:
            continue  # with --cgroups=split, podman divides the cgroup of a unit, which has the better name
        engine = found["engine"] or (parent if parent.isalpha() else None)
        return Membership(kind=WorkloadKind.CONTAINER, cgroup=cgroup, engine=engine, container_id=found["id"])
    return None


def _named_machine(part: str, parent: str) -> tuple[WorkloadKind, str] | None:
    """Read what has its name in the path: guests and containers of libvirt, systemd-nspawn and Proxmox."""
    if (old := _LIBVIRT_V1.fullmatch(part)) is not None:
        return WorkloadKind.VM if old["type"] == "qemu" else WorkloadKind.CONTAINER, old["name"]
    if part.startswith("machine-") and part.endswith(".scope"):
        name = unescape(part.removeprefix("machine-").removesuffix(".scope"))
        domain = _LIBVIRT_DOMAIN.fullmatch(name)
        if domain is None:
            return WorkloadKind.CONTAINER, name
        return WorkloadKind.VM if domain["driver"] == "qemu" else WorkloadKind.CONTAINER, domain["name"]
    if part.startswith("systemd-nspawn@") and part.endswith(".service"):
        return WorkloadKind.CONTAINER, unescape(part.removeprefix("systemd-nspawn@").removesuffix(".service"))
    if parent == "qemu.slice" and part.endswith(".scope"):
        return WorkloadKind.VM, part.removesuffix(".scope")
    return None


def _lxc(role: str, name: str | None, parts: Sequence[str], index: int) -> Membership | None:
    """Read "lxc.payload.NAME", or "lxc.payload/NAME" as of LXC 3.1, or "lxc/NAME"."""
    if name is None:
        if index + 1 >= len(parts):
            return None
        index, name = index + 1, parts[index + 1]
    shown = f"{name}/monitor" if role == "monitor" else name
    return Membership(kind=WorkloadKind.CONTAINER, name=shown, cgroup=_path(parts[: index + 1]), engine="lxc")


def _find_unit(parts: Sequence[str]) -> Membership | None:
    """Look for a unit: a service or scope, else the innermost slice, in which a process may stand by itself.

    Units of a user's own manager are named behind it: "user@1000.service/app.service".
    """
    manager = ""
    for index, part in enumerate(parts):
        unit = part.removeprefix("_")  # how systemd keeps "cpu.service" apart from the kernel's files
        if _UNIT.fullmatch(unit) is None:
            continue
        if _USER_MANAGER.fullmatch(unit) is not None and not manager:
            manager = unit
            continue
        name = f"{manager}/{unit}" if manager else unit
        return Membership(kind=WorkloadKind.UNIT, name=name, cgroup=_path(parts[: index + 1]))
    if manager:
        return Membership(kind=WorkloadKind.UNIT, name=manager)
    if parts[-1].endswith(".slice"):
        return Membership(kind=WorkloadKind.UNIT, name=parts[-1])
    return None


def _is_monitor(engine: str | None) -> bool:
    return engine is not None and engine.endswith(_MONITOR)
