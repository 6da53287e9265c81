"""Units, pods and guests in cgroup paths: shapes of systemd, the kubelet's two drivers, and libvirt."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balancerd.kernel.neighbours.cgroup_names import GuestCgroup, PodCgroup, guest_of, pod_of, units_of

UID = "8f5cbd4b-1234-4d66-8c02-ba91f0b7f5a5"
SLICE_UID = UID.replace("-", "_")
MIRROR = "5b9d7a2f1c8e4a3b9d6f0e1c2b3a4d5e"
"""A static pod is named by a hash."""


@pytest.mark.parametrize(
    ("cgroup", "units"),
    [
        ("/system.slice/postgresql@15-main.service", ("system.slice", "postgresql@15-main.service")),
        (
            "/system.slice/system-getty.slice/getty@tty1.service",
            ("system.slice", "system-getty.slice", "getty@tty1.service"),
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/a.service",
            ("user.slice", "user-1000.slice", "user@1000.service"),
        ),
        ("/machine.slice/machine-deb.scope/payload/system.slice/nginx.service", ("machine.slice", "machine-deb.scope")),
        ("/init.scope", ("init.scope",)),
        ("/", ()),
        ("", ()),
        ("/docker/0123456789ab", ()),
    ],
)
def test_units_are_those_of_the_hosts_own_manager(cgroup: str, units: tuple[str, ...]) -> None:
    assert units_of(cgroup) == units


@pytest.mark.parametrize(
    ("cgroup", "uid", "guaranteed"),
    [
        (f"/kubepods.slice/kubepods-pod{SLICE_UID}.slice/cri-containerd-3f1e.scope", UID, True),
        (
            f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{SLICE_UID}.slice/crio-3f1e.scope",
            UID,
            False,
        ),
        (f"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{SLICE_UID}.slice", UID, False),
        (f"/kubepods/pod{UID}/3f1e", UID, True),
        (f"/kubepods/burstable/pod{UID}/3f1e", UID, False),
        (f"/kubepods/besteffort/pod{MIRROR}/3f1e", MIRROR, False),
        (
            f"/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{SLICE_UID}.slice/cri-containerd-3f1e.scope",
            UID,
            True,
        ),
        (f"/../../kubepods-pod{SLICE_UID}.slice/cri-containerd-3f1e.scope", UID, True),
    ],
)
def test_a_pods_uid_is_written_as_the_kubelet_does(cgroup: str, uid: str, guaranteed: bool) -> None:
    assert pod_of(cgroup) == PodCgroup(uid=uid, guaranteed=guaranteed)


@pytest.mark.parametrize(
    "cgroup", ["/", f"/machine.slice/libpod-pod{UID}.scope", f"/podman/pod{UID}", "/kubepods.slice"]
)
def test_what_is_no_pod_of_kubernetes_is_none(cgroup: str) -> None:
    assert pod_of(cgroup) is None


SCOPE = r"/machine.slice/machine-qemu\x2d3\x2dweb\x2d01.scope"


@pytest.mark.parametrize(
    ("cgroup", "guest"),
    [
        (f"{SCOPE}/libvirt/emulator", GuestCgroup(name="web-01", path=SCOPE)),
        ("/machine/qemu-3-web.libvirt-qemu/emulator", GuestCgroup(name="web", path="/machine/qemu-3-web.libvirt-qemu")),
        (r"/machine.slice/machine-lxc\x2d3\x2dweb.scope", None),
        ("/machine.slice/machine-deb.scope", None),
    ],
)
def test_a_guest_is_known_by_its_scope(cgroup: str, guest: GuestCgroup | None) -> None:
    assert guest_of(cgroup) == guest


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(["kubepods.slice", "pod", "pod-", r"\x2d", "a.scope", "", "..", "é\udcff"])).map("/".join)
)
def test_any_path_is_understood_somehow(cgroup: str) -> None:
    units_of(cgroup)
    pod_of(cgroup)
    guest_of(cgroup)
