"""What is applied to a cluster: rendered by kubectl, valid in several versions of Kubernetes, true of the daemon."""

import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from balancerd.config.custody import objection
from balancerd.config.loader import load
from balancerd.kernel.processes.opt_out import parse_environ
from balancerd.plugins import discover
from balancerd.settings import options_by_kind
from tests.unit.control.daemon import Room, running
from tests.unit.deploy.kustomize import ROOT, render
from tests.unit.reports import a_moving_report

OVERLAYS = ("base", "overlays/nfd", "overlays/rollout")
VERSIONS = ("1.30", "1.31", "1.32", "1.33", "1.34", "1.35", "1.36", "1.37")
"""From the first that has appArmorProfile to the newest with schemas in kubernetes-validate."""
MOST_APPLIED_BYTES = 262144
"""What an object's annotations may have in all, where `kubectl apply` keeps the whole object: ValidateAnnotations."""

Object = dict[str, Any]


def of_kind(overlay: str, kind: str) -> list[Object]:
    return [each for each in render(overlay) if each["kind"] == kind]


def pods(overlay: str) -> Iterator[Object]:
    """The pod of every DaemonSet, its labels under "labels"."""
    for each in of_kind(overlay, "DaemonSet"):
        template = each["spec"]["template"]
        yield {**template["spec"], "labels": template["metadata"]["labels"]}


def daemon_of(pod: Object) -> Object:
    (container,) = pod["containers"]
    found: Object = container
    return found


def unit(key: str) -> str:
    """A setting of the unit of systemd that is shipped."""
    text = (ROOT / "systemd" / "balancerd.service").read_text(encoding="utf-8")
    (found,) = re.findall(rf"^{key}=(.*)$", text, re.MULTILINE)
    return str(found)


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_valid_and_has_no_unknown_field(overlay: str, version: str) -> None:
    objects = render(overlay)
    assert {"Namespace", "ServiceAccount", "NetworkPolicy", "ConfigMap", "DaemonSet"} <= {o["kind"] for o in objects}
    for each in objects:
        assert kubernetes_validate.validate(each, version, strict=True) == version


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_everything_is_in_one_namespace_and_what_is_referred_to_is_there(overlay: str) -> None:
    (namespace,) = of_kind(overlay, "Namespace")
    others = [each for each in render(overlay) if each is not namespace]
    assert {each["metadata"]["namespace"] for each in others} == {namespace["metadata"]["name"]}
    names = {(each["kind"], each["metadata"]["name"]) for each in others}
    for pod in pods(overlay):
        assert ("ServiceAccount", pod["serviceAccountName"]) in names
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        configured = [volume["configMap"]["name"] for volume in volumes.values() if "configMap" in volume]
        assert len(configured) == 2
        assert {("ConfigMap", name) for name in configured} <= names
        mounts = [m["name"] for c in pod["initContainers"] + pod["containers"] for m in c["volumeMounts"]]
        assert set(mounts) == set(volumes)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_selectors_choose_their_own_pods_and_no_others(overlay: str) -> None:
    sets = of_kind(overlay, "DaemonSet")
    for one in sets:
        chosen = one["spec"]["selector"]["matchLabels"].items()
        assert [d for d in sets if chosen <= d["spec"]["template"]["metadata"]["labels"].items()] == [one]
    (policy,) = of_kind(overlay, "NetworkPolicy")
    for pod in pods(overlay):
        assert policy["spec"]["podSelector"]["matchLabels"].items() <= pod["labels"].items()
        assert [port["name"] for port in daemon_of(pod)["ports"]] == [policy["spec"]["ingress"][0]["ports"][0]["port"]]
    assert policy["spec"]["egress"] == []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_daemon_has_the_capabilities_of_its_unit_and_no_way_to_more(overlay: str) -> None:
    for pod in pods(overlay):
        assert pod["hostPID"] is True
        assert not {"hostNetwork", "hostIPC", "hostUsers", "shareProcessNamespace"} & pod.keys()
        assert pod["automountServiceAccountToken"] is False
        assert pod["tolerations"] == [{"operator": "Exists"}]
        added = daemon_of(pod)["securityContext"]["capabilities"]["add"]
        assert [f"CAP_{name}" for name in added] == unit("CapabilityBoundingSet").split()
        for container in pod["initContainers"] + pod["containers"]:
            context = container["securityContext"]
            assert context["capabilities"]["drop"] == ["ALL"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["readOnlyRootFilesystem"] is True
            assert context.get("privileged", False) is False
            assert context["seccompProfile"]["type"] in {"Localhost", "RuntimeDefault"}
        assert "add" not in pod["initContainers"][0]["securityContext"]["capabilities"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_daemon_writes_to_its_own_folders_only(overlay: str) -> None:
    for pod in pods(overlay):
        mounts = {mount["mountPath"]: mount for mount in daemon_of(pod)["volumeMounts"]}
        writable = {path for path, mount in mounts.items() if not mount.get("readOnly", False)}
        assert writable == {"/run/balancerd", "/var/lib/balancerd"}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_profile_is_where_the_kubelet_is_told_to_look(overlay: str, tmp_path: Path) -> None:
    """Its container's own command is run, on folders that stand for the mounts."""
    for pod in pods(overlay):
        paths = {volume["name"]: volume for volume in pod["volumes"]}
        assert paths["kubelet-seccomp"]["hostPath"]["path"] == "/var/lib/kubelet/seccomp"
        assert daemon_of(pod)["securityContext"]["seccompProfile"] == {
            "type": "Localhost",
            "localhostProfile": "balancerd.json",
        }
        (config,) = (
            each
            for each in of_kind(overlay, "ConfigMap")
            if each["metadata"]["name"] == paths["seccomp-profile"]["configMap"]["name"]
        )
        container = pod["initContainers"][0]
        (script,) = container["args"]
        for mount in container["volumeMounts"]:
            folder = tmp_path / mount["name"]
            folder.mkdir(exist_ok=True)
            folder.chmod(0o777)  # as an emptyDir is
            script = script.replace(f"{mount['mountPath']}/", f"{folder}/")
        (tmp_path / "seccomp-profile" / "balancerd.json").write_text(config["data"]["balancerd.json"])
        subprocess.run([*container["command"], script], check=True)
        assert [path.name for path in (tmp_path / "kubelet-seccomp").iterdir()] == ["balancerd.json"]
        assert objection((tmp_path / "run").stat()) is None
        written = (tmp_path / "kubelet-seccomp" / "balancerd.json").read_bytes()
        assert written == (ROOT / "deploy/container/seccomp.json").read_bytes()


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_daemon_starts_with_the_fragments_and_arguments_that_it_is_given(overlay: str, tmp_path: Path) -> None:
    plugins = options_by_kind(discover())
    for pod in pods(overlay):
        volume = next(each for each in pod["volumes"] if each["name"] == "config")
        (config,) = (o for o in of_kind(overlay, "ConfigMap") if o["metadata"]["name"] == volume["configMap"]["name"])
        assert list(config["data"]) == ["50-kubernetes-node.yaml"]
        (tmp_path / "fragment.yaml").write_text(config["data"]["50-kubernetes-node.yaml"])
        words = daemon_of(pod).get("args", [])
        assert words[0::2] == ["--set"] * (len(words) // 2)
        loaded = load(tmp_path / "fragment.yaml", overrides=words[1::2], plugins=plugins).config
        assert loaded.metrics.listen is not None
        assert loaded.metrics.listen.host == "0.0.0.0"  # noqa: S104 - it is what Prometheus needs
        assert [loaded.metrics.listen.port] == [port["containerPort"] for port in daemon_of(pod)["ports"]]
        assert loaded.page.enabled is False
        assert loaded.mode == pod["nodeSelector"].get("balancerd/mode", "enforce")


def test_the_command_takes_these_arguments(tmp_path: Path) -> None:
    alone = {"metrics": {"listen": None}, "control": {"socket": str(tmp_path / "s")}, "history": {"enabled": False}}
    (tmp_path / "balancerd.yaml").write_text(json.dumps(alone))
    daemon = Path(sys.executable).with_name("balancerd")
    for pod in pods("overlays/rollout"):
        command = [daemon, "--config", tmp_path / "balancerd.yaml", "--once", *daemon_of(pod)["args"]]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert f'"mode": "{pod["nodeSelector"]["balancerd/mode"]}"' in done.stderr


def test_a_node_runs_one_daemon_at_most() -> None:
    chosen = [pod["nodeSelector"]["balancerd/mode"] for pod in pods("overlays/rollout")]
    assert sorted(chosen) == ["enforce", "observe"]
    assert [pod["labels"]["ring"] for pod in pods("overlays/rollout")] == chosen
    assert len(list(pods("base"))) == 1


def test_node_feature_discovery_says_where() -> None:
    (everywhere,) = pods("base")
    (somewhere,) = pods("overlays/nfd")
    assert somewhere.pop("nodeSelector") == {
        **everywhere.pop("nodeSelector"),
        "feature.node.kubernetes.io/memory-numa": "true",
    }
    assert somewhere == everywhere


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_probes_are_answered(overlay: str, tmp_path: Path) -> None:
    room = Room(socket=tmp_path / "control.sock")
    room.state.emit(a_moving_report(1, moved_pages=1))
    server = room.metrics_server()
    with running(server):
        host, port = server.address
        for pod in pods(overlay):
            for probe in ("livenessProbe", "readinessProbe"):
                asked = daemon_of(pod)[probe]["httpGet"]
                assert asked["port"] == daemon_of(pod)["ports"][0]["name"]
                with urllib.request.urlopen(f"http://{host}:{port}{asked['path']}", timeout=5) as answer:
                    assert answer.status == 200


def test_it_may_cost_what_its_unit_allows() -> None:
    (pod,) = pods("base")
    limits = daemon_of(pod)["resources"]["limits"]
    assert limits == {"memory": unit("MemoryMax").replace("M", "Mi")}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kubectl_apply_can_keep_every_object(overlay: str) -> None:
    for each in render(overlay):
        assert len(json.dumps(each)) < MOST_APPLIED_BYTES


def test_the_pod_that_opts_out_by_an_annotation_is_valid_and_its_variable_is_the_one_that_is_read() -> None:
    page = (ROOT / "docs" / "kubernetes.md").read_text(encoding="utf-8")
    blocks = [yaml.safe_load(text) for text in re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)]
    (pod,) = (block for block in blocks if block.get("kind") == "Pod")
    kubernetes_validate.validate(pod, VERSIONS[-1], strict=True)
    (variable,) = pod["spec"]["containers"][0]["env"]
    key = re.fullmatch(r"metadata\.annotations\['(.+)'\]", variable["valueFrom"]["fieldRef"]["fieldPath"])
    assert key is not None
    text = f"PATH=/bin\0{variable['name']}={pod['metadata']['annotations'][key[1]]}\0"
    assert parse_environ(text.encode())
