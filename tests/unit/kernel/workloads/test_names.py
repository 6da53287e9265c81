"""Names of containers in the files of the kubelet, docker, podman and cri-o."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from balancerd.kernel.errors import ParseError
from balancerd.kernel.workloads.names import (
    HostNames,
    parse_container_log,
    parse_docker_config,
    parse_kubelet_name,
    parse_pod_directory,
    parse_storage,
)
from balancerd.kernel.workloads.paths import Membership
from balancerd.model.workload import WorkloadKind
from tests.unit.kernel.trees import write_tree

ID = "9bca8d63d5fa610783847915bcff0ecac1273e5b4bed3f6fa1b07350e0135961"
PAUSE_ID = "40c03570b6f4c30bc8d69923d37ee698f5cfcced92c7b7df1c47f6f7887378a9"
UID = "2c48913c-b29f-11e7-9350-020968147796"
POD, CONTAINER = WorkloadKind.POD, WorkloadKind.CONTAINER
PODS = f"var/log/pods/shop_web-0_{UID}/nginx/0.log"
LOGS = f"var/log/containers/web-0_shop_nginx-{ID}.log"
OTHER_LOG = f"var/log/containers/web-1_shop_nginx-{PAUSE_ID}.log"
DOCKER = f"var/lib/docker/containers/{ID}/config.v2.json"
OUTSIDE = {"var/lib/docker/config.v2.json": '{"Name": "/engine"}', DOCKER: "{}"}  # what an id of ".." would lead to
STORAGE = "var/lib/containers/storage/overlay-containers"
STORED, VOLATILE = f"{STORAGE}/containers.json", f"{STORAGE}/volatile-containers.json"
TRANSIENT = "run/containers/storage/vfs-containers/containers.json"
KUBELET_NAME = f"k8s_nginx_web-0_shop_{UID}_0"
KUBELET_DOCKER = json.dumps({"Name": f"/k8s_POD_web-0_shop_{UID}_0"})
# as `docker inspect` and podman's own store write them, shortened
DOCKER_CONFIG = json.dumps(
    {"StreamConfig": {}, "State": {"Running": True}, "ID": ID, "Name": "/web", "Driver": "overlay2"}
)


def stored(*names: str, id_: str = ID) -> str:
    return json.dumps(
        [{"id": id_, "names": list(names), "image": "d7af", "metadata": "{}", "flags": {"Volatile": True}}]
    )


def pod(container_id: str | None = ID, engine: str = "cri-containerd") -> Membership:
    return Membership(kind=POD, engine=engine, container_id=container_id, pod_uid=UID)


def container(engine: str | None) -> Membership:
    return Membership(kind=CONTAINER, engine=engine, container_id=ID)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (f"shop_web-0_{UID}", (UID, "shop/web-0")),
        (
            "kube-system_etcd-node.example_8daa50c3a64c9ff60bb9eab7b44b56fd",
            ("8daa50c3a64c9ff60bb9eab7b44b56fd", "kube-system/etcd-node.example"),
        ),
        ("lost+found", None),
        ("a_b", None),
    ],
)
def test_directories_of_pods(name: str, expected: tuple[str, str] | None) -> None:
    assert parse_pod_directory(name) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (f"web-0_shop_nginx-{ID}.log", (ID, "shop/web-0/nginx")),
        (
            f"coredns-5d78c9869d-abcde_kube-system_core-dns-{ID}.log",
            (ID, "kube-system/coredns-5d78c9869d-abcde/core-dns"),
        ),
        ("web-0_shop_nginx-short.log", None),
        ("syslog", None),
    ],
)
def test_logs_of_containers(name: str, expected: tuple[str, str] | None) -> None:
    assert parse_container_log(name) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (f"k8s_nginx_web-0_shop_{UID}_0", "shop/web-0/nginx"),
        (f"k8s_POD_web-0_shop_{UID}_3", "shop/web-0/pause"),
        ("k8s_mine", None),
        ("web", None),
    ],
)
def test_names_that_the_kubelet_gives(name: str, expected: str | None) -> None:
    assert parse_kubelet_name(name) == expected


@pytest.mark.parametrize(
    ("document", "name"), [({"Name": "/web"}, "web"), ({"Name": "/"}, None), ({}, None), ([], None)]
)
def test_the_name_in_a_docker_config(document: Any, name: str | None) -> None:
    assert parse_docker_config(json.dumps(document).encode(), "config.v2.json") == name


def test_the_first_name_of_each_stored_container_counts() -> None:
    text = json.dumps([{"id": "a", "names": ["x", "y"]}, {"id": "b", "names": None}, {"id": "c"}, {"names": ["z"]}, 7])
    assert parse_storage(text.encode(), "containers.json") == {"a": "x"}


@pytest.mark.parametrize("text", [b"", b"{", b"\xff", b"[" * 100_000])
def test_what_is_no_json_is_an_error_with_its_place(text: bytes) -> None:
    with pytest.raises(ParseError, match=r"^f:[01]: not JSON"):
        parse_storage(text, "f")
    with pytest.raises(ParseError, match=r"^f:[01]: not JSON"):
        parse_docker_config(text, "f")


def test_storage_that_is_no_list_is_an_error() -> None:
    with pytest.raises(ParseError, match=r"^f:1: not a list of containers"):
        parse_storage(b"{}", "f")


@pytest.mark.parametrize(
    ("files", "member", "expected"),
    [
        ({PODS: "", LOGS: ""}, pod(), (POD, "shop/web-0/nginx")),
        ({LOGS: ""}, pod(), (POD, "shop/web-0/nginx")),
        ({PODS: ""}, pod(), (POD, "shop/web-0/9bca8d63d5fa")),
        ({PODS: "", LOGS: ""}, pod(PAUSE_ID), (POD, "shop/web-0/40c03570b6f4")),
        ({PODS: "", LOGS: ""}, pod(None), (POD, "shop/web-0")),
        ({}, pod(None), None),
        ({}, pod(), None),
        # the kubelet's own names, in docker and cri-o
        ({DOCKER: KUBELET_DOCKER}, pod(engine="docker"), (POD, "shop/web-0/pause")),
        ({STORED: stored(KUBELET_NAME)}, pod(engine="crio"), (POD, "shop/web-0/nginx")),
        # a private cgroup namespace hides the pod, but not the container
        ({LOGS: ""}, container("cri-containerd"), (POD, "shop/web-0/nginx")),
        # engines by themselves
        ({DOCKER: DOCKER_CONFIG}, container("docker"), (CONTAINER, "web")),
        ({DOCKER: DOCKER_CONFIG}, container(None), (CONTAINER, "web")),
        ({DOCKER: DOCKER_CONFIG}, container("libpod"), None),
        ({STORED: stored("db", "alias")}, container("libpod"), (CONTAINER, "db")),
        ({VOLATILE: stored("db")}, container("libpod"), (CONTAINER, "db")),
        ({TRANSIENT: stored("db")}, container("libpod"), (CONTAINER, "db")),
        ({STORED: stored("db")}, container("docker"), None),
        ({STORED: stored("db", id_=PAUSE_ID)}, container("libpod"), None),
        (OUTSIDE, Membership(kind=CONTAINER, container_id=".."), None),
    ],
)  # fmt: skip
def test_the_best_name_that_is_known_is_found(
    tmp_path: Path, files: dict[str, str], member: Membership, expected: tuple[WorkloadKind, str] | None
) -> None:
    names = HostNames(write_tree(tmp_path, files))
    assert names.find(member, 0.0) == expected
    assert names.unreadable == {}


def test_a_name_that_comes_later_is_found(tmp_path: Path) -> None:
    names = HostNames(write_tree(tmp_path, {PODS: ""}))
    assert names.find(pod(), 0.0) == (POD, "shop/web-0/9bca8d63d5fa")
    write_tree(tmp_path, {LOGS: ""})
    assert names.find(pod(), 1.0) == (POD, "shop/web-0/nginx")


def test_a_directory_is_listed_again_when_it_changed(tmp_path: Path) -> None:
    names = HostNames(write_tree(tmp_path, {LOGS: ""}))
    assert names.find(pod(PAUSE_ID), 0.0) is None
    write_tree(tmp_path, {OTHER_LOG: ""})
    os.utime(tmp_path / "var/log/containers", (1, 1))
    assert names.find(pod(PAUSE_ID), 1.0) == (POD, "shop/web-1/nginx")


def test_a_directory_is_listed_again_after_a_while(tmp_path: Path) -> None:
    names = HostNames(write_tree(tmp_path, {LOGS: ""}))
    logs = tmp_path / "var/log/containers"
    assert names.find(pod(), 0.0) is not None
    before = logs.stat()
    write_tree(tmp_path, {OTHER_LOG: ""})
    os.utime(logs, ns=(before.st_atime_ns, before.st_mtime_ns))  # as if both had happened within one tick of its clock
    if logs.stat().st_size == before.st_size:
        assert names.find(pod(PAUSE_ID), 299.0) is None
    assert names.find(pod(PAUSE_ID), 300.0) == (POD, "shop/web-1/nginx")


def test_what_cannot_be_read_is_noted_and_stops_nothing(tmp_path: Path) -> None:
    files = {DOCKER: "{", f"{STORAGE}/containers.json": "{}", "var/log/containers": "a file"}
    names = HostNames(write_tree(tmp_path, files))
    assert names.find(container(None), 0.0) is None
    assert names.find(container(None), 1.0) is None
    assert list(names.unreadable) == [
        f"{tmp_path}/var/lib/docker/containers",
        f"{tmp_path}/{STORAGE}/containers.json",
    ]
    assert "not a list of containers" in names.unreadable[f"{tmp_path}/{STORAGE}/containers.json"]


def test_a_directory_that_others_may_not_read_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    names = HostNames(write_tree(tmp_path, {LOGS: ""}))
    monkeypatch.setattr(Path, "iterdir", refuse)
    assert names.find(pod(), 0.0) is None
    assert names.unreadable == {f"{tmp_path}/var/log/containers": "Permission denied"}
