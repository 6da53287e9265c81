"""Whose cgroup a path is: paths as real systems show them, each with where that shape was seen."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancerd.kernel.workloads.paths import Membership, parse_path, unescape
from balancerd.model.workload import WorkloadKind

ID = "9bca8d63d5fa610783847915bcff0ecac1273e5b4bed3f6fa1b07350e0135961"
OTHER_ID = "40c03570b6f4c30bc8d69923d37ee698f5cfcced92c7b7df1c47f6f7887378a9"
UID = "2c48913c-b29f-11e7-9350-020968147796"
UID_ = UID.replace("-", "_")
STATIC_UID = "8daa50c3a64c9ff60bb9eab7b44b56fd"
POD, CONTAINER, VM, UNIT, OTHER = (
    WorkloadKind.POD,
    WorkloadKind.CONTAINER,
    WorkloadKind.VM,
    WorkloadKind.UNIT,
    WorkloadKind.OTHER,
)
WHOLE = "the whole path"

UNITS = [
    # systemd-cgls and /proc/PID/cgroup of current distributions
    ("/system.slice/ssh.service", "ssh.service", WHOLE),
    ("/system.slice/system-getty.slice/getty@tty1.service", "getty@tty1.service", WHOLE),
    ("/system.slice/system-postgresql.slice/postgresql@15-main.service", "postgresql@15-main.service", WHOLE),
    (
        r"/system.slice/systemd-fsck@dev-disk-by\x2duuid-1A2B.service",
        r"systemd-fsck@dev-disk-by\x2duuid-1A2B.service",
        WHOLE,
    ),
    ("/init.scope", "init.scope", WHOLE),
    ("/user.slice/user-1000.slice/session-3.scope", "session-3.scope", WHOLE),
    ("/user.slice/user-1000.slice/user@1000.service/init.scope", "user@1000.service/init.scope", WHOLE),
    (
        "/user.slice/user-1000.slice/user@1000.service/app.slice/app-gnome-firefox-2345.scope",
        "user@1000.service/app-gnome-firefox-2345.scope",
        WHOLE,
    ),
    # a service that divides its own cgroup (Delegate=), and one whose name would be a file of the kernel's
    ("/system.slice/slurmd.service/job_7/step_0", "slurmd.service", "/system.slice/slurmd.service"),
    ("/system.slice/_cpu.service", "cpu.service", WHOLE),
    # a process in a slice itself: pharos-cluster issue 440, cgroup v1
    ("/system.slice", "system.slice", None),
    ("/user.slice/user-1000.slice/user@1000.service", "user@1000.service", None),
    # podman quadlet, --cgroups=split: systemctl status in discussions of podman
    (f"/system.slice/nginx.service/libpod-payload-{ID}", "nginx.service", "/system.slice/nginx.service"),
    # cri-o's monitor outside of the pod: microshift pull request 697
    (f"/system.slice/crio-conmon-{ID}.scope", f"crio-conmon-{ID}.scope", WHOLE),
    # removed while processes are still in it: cgroups(7)
    ("/system.slice/ssh.service (deleted)", "ssh.service", "/system.slice/ssh.service"),
]

PODS = [
    # systemd driver, containerd: netdata issue 4868; guaranteed pods have no class of their own
    (f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID_}.slice/cri-containerd-{ID}.scope", UID, ID),
    (
        f"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{UID_}.slice/cri-containerd-{ID}.scope",
        UID,
        ID,
    ),
    (f"/kubepods.slice/kubepods-pod{UID_}.slice/cri-containerd-{ID}.scope", UID, ID),
    (
        f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{STATIC_UID}.slice/cri-containerd-{ID}.scope",
        STATIC_UID,
        ID,
    ),
    # cri-o: runc issue 4620; without .scope: kubernetes issue 120988; the container divides its cgroup (systemd inside)
    (f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID_}.slice/crio-{ID}.scope", UID, ID),
    (f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{STATIC_UID}.slice/crio-{ID}", STATIC_UID, ID),
    (f"/kubepods.slice/kubepods-pod{UID_}.slice/crio-{ID}.scope/container/system.slice/cron.service", UID, ID),
    # docker below the kubelet: pharos-cluster issue 440
    (f"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{UID_}.slice/docker-{ID}.scope", UID, ID),
    # cgroupfs driver: kubernetes' own documentation of the kubelet
    (f"/kubepods/burstable/pod{UID}/{ID}", UID, ID),
    (f"/kubepods/besteffort/pod{UID}/{ID}", UID, ID),
    (f"/kubepods/pod{UID}/{ID}", UID, ID),
    (f"/kubepods/burstable/pod{STATIC_UID}/crio-{ID}", STATIC_UID, ID),
    # runc with a name for systemd given to cgroupfs (k3s, OpenTelemetry's tests), below containerd's own unit or not
    (f"/system.slice/containerd.service/kubepods-besteffort-pod{UID_}.slice:cri-containerd:{ID}", UID, ID),
    (f"/kubepods-burstable-pod{UID_}.slice:cri-containerd:{ID}", UID, ID),
    # kind and minikube: a node that is a container itself; minikube issue 11280, containerd/nri pull request 227
    (
        (
            f"/docker/{OTHER_ID}/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice"
            f"/kubelet-kubepods-besteffort-pod{UID_}.slice/cri-containerd-{ID}.scope"
        ),
        UID,
        ID,
    ),
    (f"/docker/{OTHER_ID}/kubelet/kubepods/besteffort/pod{UID}/{ID}", UID, ID),
    (f"/system.slice/docker-{OTHER_ID}.scope/kubepods/burstable/pod{UID}/{ID}", UID, ID),
    (
        f"/docker/{OTHER_ID}/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{UID_}.slice/crio-{ID}.scope",
        UID,
        ID,
    ),
    # seen from inside a private cgroup namespace: Datadog's and NeuVector's tests
    (f"/../../kubepods-besteffort-pod{UID_}.slice/docker-{ID}.scope", UID, ID),
    (f"/../../kubepods.slice/kubepods-pod{UID_}.slice/cri-containerd-{ID}.scope", UID, ID),
    (f"/../../pod{UID}/{ID}", UID, ID),
]

SHARED_WITH_A_POD = [
    f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID_}.slice",
    f"/kubepods/burstable/pod{UID}",
    # the monitor inside the pod's slice: microshift pull request 697
    f"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{UID_}.slice/crio-conmon-{ID}.scope",
]

CONTAINERS = [
    # docker: cgroupfs and systemd drivers; systemd inside; under another parent (Amazon ECS)
    (f"/docker/{ID}", "docker", f"/docker/{ID}"),
    (f"/docker/{ID}/init.scope", "docker", f"/docker/{ID}"),
    (f"/system.slice/docker-{ID}.scope", "docker", f"/system.slice/docker-{ID}.scope"),
    (f"/system.slice/docker-{ID}.scope/system.slice/nginx.service", "docker", f"/system.slice/docker-{ID}.scope"),
    (f"/ecs/0123456789abcdef0123456789abcdef/{ID}", None, f"/ecs/0123456789abcdef0123456789abcdef/{ID}"),
    # podman: systemd and cgroupfs managers, in a podman pod, rootless with crun's inner cgroup
    (f"/machine.slice/libpod-{ID}.scope", "libpod", f"/machine.slice/libpod-{ID}.scope"),
    (f"/libpod_parent/libpod-{ID}", "libpod", f"/libpod_parent/libpod-{ID}"),
    (
        f"/machine.slice/machine-libpod_pod_{OTHER_ID}.slice/libpod-{ID}.scope",
        "libpod",
        f"/machine.slice/machine-libpod_pod_{OTHER_ID}.slice/libpod-{ID}.scope",
    ),
    (
        f"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope/container",
        "libpod",
        f"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope",
    ),
    # a container of a container: the outer one is what this machine started
    (f"/docker/{ID}/docker/{OTHER_ID}", "docker", f"/docker/{ID}"),
    # nerdctl, and a container by itself in a private cgroup namespace (Kubernetes with cgroup v2)
    (f"/system.slice/nerdctl-{ID}.scope", "nerdctl", f"/system.slice/nerdctl-{ID}.scope"),
    (f"/../cri-containerd-{ID}.scope", "cri-containerd", f"/../cri-containerd-{ID}.scope"),
    (f"/../crio-{ID}.scope", "crio", f"/../crio-{ID}.scope"),
    (f"/system.slice:docker:{ID}", "docker", f"/system.slice:docker:{ID}"),
]

MACHINES = [  # the cgroup of the workload, what follows below it, and what it is
    # LXC, LXD and incus: lxc issues 2782 and 4384, incus pull request 3684; before 3.1, and Proxmox
    ("/lxc.payload.web", "", CONTAINER, "web"),
    ("/lxc.payload.web", "/system.slice/nginx.service", CONTAINER, "web"),
    ("/lxc.payload.web", f"/docker/{ID}", CONTAINER, "web"),
    ("/lxc.payload/web", "/init.scope", CONTAINER, "web"),
    ("/lxc.monitor.web", "", CONTAINER, "web/monitor"),
    ("/lxc.monitor/web", "", CONTAINER, "web/monitor"),
    ("/lxc/100", "/ns/system.slice/ssh.service", CONTAINER, "100"),
    # systemd-nspawn, started by machinectl and by hand
    (r"/machine.slice/machine-debian\x2d12.scope", "/payload", CONTAINER, "debian-12"),
    (r"/machine.slice/systemd-nspawn@web\x2d1.service", "/payload/init.scope", CONTAINER, "web-1"),
    # libvirt: cgroup v2 with libvirt 7 and later, before it, in a partition, and cgroup v1 without systemd
    (r"/machine.slice/machine-qemu\x2d3\x2dinstance\x2d0000001d.scope", "/libvirt/emulator", VM, "instance-0000001d"),
    (r"/machine.slice/machine-qemu\x2d3\x2dinstance\x2d0000001d.scope", "/libvirt/vcpu0", VM, "instance-0000001d"),
    (r"/machine.slice/machine-test.slice/machine-qemu\x2d16\x2dtest14.scope", "/emulator", VM, "test14"),
    ("/machine/qemu-3-win2016.libvirt-qemu", "/emulator", VM, "win2016"),
    ("/machine/instance-000065d7.libvirt-qemu", "/vcpu0", VM, "instance-000065d7"),
    ("/machine/lxc-4-small.libvirt-lxc", "", CONTAINER, "small"),
    (r"/machine.slice/machine-lxc\x2d4\x2dsmall.scope", "", CONTAINER, "small"),
    # Proxmox: guests by number
    ("/qemu.slice/101.scope", "", VM, "101"),
]

NOTHING_KNOWN = [
    ("/", "/", None),
    ("", "/", None),
    ("/..", "/", None),
    ("/batch/job-7", "/batch/job-7", "/batch/job-7"),
    ("/docker/buildkit/t4967jvf8rbufklrhkicskyes", "/docker/buildkit/t4967jvf8rbufklrhkicskyes", WHOLE),
    ("/libpod_parent", "/libpod_parent", WHOLE),
    ("/lxc.payload", "/lxc.payload", WHOLE),
]


@pytest.mark.parametrize(("path", "name", "cgroup"), UNITS)
def test_a_unit_is_called_as_systemctl_calls_it(path: str, name: str, cgroup: str | None) -> None:
    expected = Membership(kind=UNIT, name=name, cgroup=path if cgroup is WHOLE else cgroup)
    assert parse_path(path) == expected


@pytest.mark.parametrize(("path", "uid", "container_id"), PODS)
def test_a_container_of_a_pod_has_the_ids_of_both(path: str, uid: str, container_id: str) -> None:
    found = parse_path(path)
    assert (found.kind, found.pod_uid, found.container_id) == (POD, uid, container_id)
    assert found.cgroup is not None
    assert path.startswith(found.cgroup)
    assert container_id in found.cgroup.rpartition("/")[2]


@pytest.mark.parametrize("path", SHARED_WITH_A_POD)
def test_what_is_of_the_pod_but_of_no_container_shares_its_cgroup(path: str) -> None:
    assert parse_path(path) == Membership(kind=POD, pod_uid=UID)


@pytest.mark.parametrize(("path", "engine", "cgroup"), CONTAINERS)
def test_a_container_has_its_engine_and_id(path: str, engine: str | None, cgroup: str) -> None:
    assert parse_path(path) == Membership(kind=CONTAINER, engine=engine, container_id=ID, cgroup=cgroup)


@pytest.mark.parametrize(("cgroup", "below", "kind", "name"), MACHINES)
def test_guests_and_machines_have_their_names_in_the_path(
    cgroup: str, below: str, kind: WorkloadKind, name: str
) -> None:
    found = parse_path(cgroup + below)
    assert (found.kind, found.name, found.cgroup) == (kind, name, cgroup)


@pytest.mark.parametrize(("path", "name", "cgroup"), NOTHING_KNOWN)
def test_any_other_cgroup_is_called_by_its_path(path: str, name: str, cgroup: str | None) -> None:
    assert parse_path(path) == Membership(kind=OTHER, name=name, cgroup=path if cgroup is WHOLE else cgroup)


def test_kubepods_takes_pods_with_ids_of_any_form() -> None:
    assert parse_path(f"/kubepods/burstable/podhdishd83/{ID}").pod_uid == "hdishd83"
    assert parse_path(f"/elsewhere/podhdishd83/{ID}").pod_uid is None


@pytest.mark.parametrize(
    ("escaped", "plain"),
    [
        (r"a\x2db", "a-b"),
        ("plain", "plain"),
        (r"\xc3\xa9t\xc3\xa9", "été"),
        (r"\xff", "ÿ"),
        (r"\x2", r"\x2"),
        ("été", "été"),
    ],
)
def test_escapes_of_unit_names_are_undone(escaped: str, plain: str) -> None:
    assert unescape(escaped) == plain


WORDS = [
    "..",
    "",
    "kubepods",
    f"pod{UID}",
    ID,
    f"docker-{ID}.scope",
    "lxc",
    "lxc.payload",
    "user@1.service",
    "a.slice",
    ":",
    "\n",
]


@given(st.text(max_size=60) | st.lists(st.sampled_from(WORDS) | st.text(max_size=8), max_size=6).map("/".join))
def test_no_text_is_without_an_answer(path: str) -> None:
    found = parse_path(path)
    assert found.name or found.container_id or found.pod_uid
    assert found.cgroup is None or found.cgroup.startswith("/")
