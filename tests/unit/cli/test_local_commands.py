"""config, policies and doctor: what works without a daemon."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from balancerd.kernel.doctor import probes
from balancerd.kernel.doctor.files import Check, CheckStatus
from tests.unit.cli.conftest import Run, Serve
from tests.unit.cli.documents import answers


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The metadata of an installed package that offers follow-cpu, whether balancerd itself is installed or not."""
    metadata = tmp_path / "site/offer-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: offer\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[balancerd.policies]\nfollow-cpu = balancerd.policies.follow_cpu:plugin\n"
    )
    monkeypatch.syspath_prepend(str(metadata.parent))


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "balancerd.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.usefixtures("installed")
def test_config_check_of_a_good_file_is_silent_on_stdout(tmp_path: Path, run: Run) -> None:
    path = written(tmp_path, "mode: observe\npolicies:\n  - {name: home, kind: follow-cpu}\n")
    done = run("config", "check", path)
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", f"{path}: no findings\n")
    told = json.loads(run("config", "check", "--json", path).stdout)
    assert told == {"schema": 1, "path": path, "findings": []}


@pytest.mark.usefixtures("installed")
def test_config_check_prints_each_finding_with_its_place_and_exits_5(tmp_path: Path, run: Run) -> None:
    path = written(
        tmp_path, "mode: observe\nmigrate:\n  rate_limt: 1GiB/s\npolicies:\n  - {name: a, kind: follow-gpu}\n"
    )
    done = run("config", "check", path)
    assert done.exit_code == 5
    lines = done.stdout.splitlines()
    assert lines[0] == f"{path}:3:3: error: unknown key 'rate_limt' (did you mean 'rate_limit'?)"
    assert lines[1] == f"{path}:5:21: error: unknown kind of policy 'follow-gpu' (did you mean 'follow-cpu'?)"
    told = json.loads(run("config", "check", "--json", path).stdout)
    assert told["findings"][0] == {
        "path": path,
        "line": 3,
        "column": 3,
        "severity": "error",
        "message": "unknown key 'rate_limt' (did you mean 'rate_limit'?)",
    }


@pytest.mark.usefixtures("installed")
def test_config_check_looks_into_the_options_of_a_policy_and_at_settings_laid_over(tmp_path: Path, run: Run) -> None:
    path = written(tmp_path, "policies:\n  - {name: home, kind: follow-cpu, no_such_option: 1}\n")
    done = run("config", "check", path, "--set", "tick_interval=never")
    assert done.exit_code == 5
    assert "unknown key 'no_such_option'" in done.stdout
    assert "tick_interval" in done.stdout


@pytest.mark.usefixtures("installed")
def test_config_check_of_a_missing_file_is_a_finding(tmp_path: Path, run: Run) -> None:
    path = str(tmp_path / "none\x1b.yaml")
    done = run("config", "check", path)
    assert done.exit_code == 5
    assert done.stdout == rf"{tmp_path}/none\x1b.yaml: error: cannot read it: there is no such file" + "\n"


@pytest.mark.usefixtures("installed")
def test_config_show_writes_out_every_default_and_what_was_set(tmp_path: Path, run: Run) -> None:
    path = written(tmp_path, "select: {min_rss: 32MiB}\n")
    shown = yaml.safe_load(run("config", "show", path, "--set", "mode=observe").stdout)
    assert (shown["select"]["min_rss"], shown["mode"], shown["tick_interval"]) == ("32MiB", "observe", "2s")
    told = json.loads(run("config", "show", "--json", path).stdout)
    assert (told["schema"], told["path"]) == (1, path)
    assert told["config"]["select"]["min_rss"] == "32MiB"
    assert told["origins"] == {"select.min_rss": f"{path}:1:19"}
    assert run("config", "show", "--origin", path).stdout == f"{path}:1:19: select.min_rss\n"


@pytest.mark.usefixtures("installed")
def test_what_config_show_prints_is_a_file_without_findings(tmp_path: Path, run: Run) -> None:
    shown = run("config", "show", written(tmp_path, "")).stdout
    assert run("config", "check", written(tmp_path, shown)).exit_code == 0


@pytest.mark.usefixtures("installed")
def test_config_show_of_a_bad_file_prints_no_configuration(tmp_path: Path, run: Run) -> None:
    done = run("config", "show", written(tmp_path, "mode: perhaps\n"))
    assert (done.exit_code, done.stdout) == (5, "")
    assert ":1:7: error:" in done.stderr


def test_config_schema_is_a_json_schema_that_knows_the_keys(run: Run) -> None:
    schema = json.loads(run("config", "schema").stdout)
    assert {"mode", "tick_interval", "select", "migrate", "metrics", "control", "policies"} <= set(schema["properties"])
    assert json.loads(run("config", "schema", "--json").stdout) == {"schema": 1, "json_schema": schema}


@pytest.mark.usefixtures("installed")
def test_policies_list_names_kinds_and_what_they_do(run: Run) -> None:
    done = run("policies", "list")
    assert done.exit_code == 0
    title, *rows = done.stdout.splitlines()
    assert title.split() == ["KIND", "MODULE", "SUMMARY"]
    modules = {
        "access": "balancerd.policies.access",
        "cold-eviction": "balancerd.policies.cold_eviction",
        "cpuset-follow": "balancerd.policies.cpuset_follow",
        "drain": "balancerd.policies.drain",
        "follow-cpu": "balancerd.policies.follow_cpu",
        "interleave": "balancerd.policies.interleave",
        "packing": "balancerd.policies.packing",
        "rule": "balancerd.policies.rule",
        "threads": "balancerd.policies.threads",
        "tiering": "balancerd.policies.tiering",
    }
    assert {kind: module for kind, module, *_ in map(str.split, rows)} == modules
    told = json.loads(run("policies", "list", "--json").stdout)["policies"]
    assert {each["kind"]: each["module"] for each in told} == modules
    assert all(row.endswith(each["summary"]) for row, each in zip(rows, told, strict=True))
    assert {each["options_schema"]["type"] for each in told} == {"object"}


def test_a_policy_that_cannot_be_loaded_is_named_and_the_exit_code_is_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    metadata = tmp_path / "site/broken-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[balancerd.policies]\nbroken = no_such_module:plugin\n")
    monkeypatch.syspath_prepend(str(metadata.parent))
    for command in (["policies", "list"], ["config", "check"], ["config", "show"]):
        done = run(*command)
        assert (done.exit_code, done.stdout) == (1, "")
        assert "'broken' (no_such_module:plugin) cannot be loaded" in done.stderr


CHECKS = (
    Check(name="one", status=CheckStatus.OK, seen="fine"),
    Check(name="three", status=CheckStatus.WARNING, seen="slow\x1b", fix="sysctl -w x=0"),
    Check(name="four", status=CheckStatus.INFO, seen="6.1"),
    Check(name="five", status=CheckStatus.UNKNOWN, seen="unknown: no file"),
)
BROKEN = Check(name="six", status=CheckStatus.FAILURE, seen="refused", fix="--cap-add=SYS_PTRACE")

DOCTOR = """\
✓ one                fine
! three              slow\\x1b
                     fix: sysctl -w x=0
· four               6.1
? five               unknown: no file
✗ six                refused
                     fix: --cap-add=SYS_PTRACE
· manager-mempolicy  processes with memory of an explicit mempolicy, among those looked at: 1
                     fix: none needed, it is respected; to have it balanced, start the process without numactl
✓ control-socket     the daemon answers on {socket}
"""


def test_doctor_lines_up_the_checks_with_symbols_and_fixes(
    serve: Serve, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    socket = serve(answers())
    monkeypatch.setattr(probes, "examine", lambda: (*CHECKS, BROKEN))
    done = run("doctor", socket=socket)
    assert (done.exit_code, done.stdout) == (5, DOCTOR.format(socket=socket))
    assert done.stderr == "1 failure, 1 warning\n"


def test_doctor_without_a_failure_exits_0_even_without_a_daemon(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "examine", lambda: CHECKS)
    done = run("doctor", "--json")
    assert done.exit_code == 0
    told = json.loads(done.stdout)
    assert told["totals"] == {"ok": 1, "info": 2, "warning": 1, "failure": 0, "unknown": 1}
    assert told["checks"][1] == {"name": "three", "status": "warning", "seen": "slow\x1b", "fix": "sysctl -w x=0"}
    assert told["checks"][-1] == {
        "name": "control-socket",
        "status": "info",
        "seen": f"no daemon answers on {tmp_path}/nobody",
        "fix": "as root: systemctl start balancerd",
    }


@pytest.mark.parametrize(
    ("answer", "status"), [((403, {"error": "not you"}), "warning"), ((500, {"error": "broken"}), "failure")]
)
def test_doctor_tells_a_socket_that_refuses_from_one_that_fails(
    serve: Serve, run: Run, monkeypatch: pytest.MonkeyPatch, answer: tuple[int, object], status: str
) -> None:
    monkeypatch.setattr(probes, "examine", tuple)
    [check] = json.loads(run("doctor", "--json", socket=serve({"/v1/status": answer})).stdout)["checks"]
    assert check["status"] == status


def test_doctor_on_this_machine_in_ascii(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "BALANCERD_SOCKET": str(tmp_path / "nobody")}
    code = "from balancerd.cli.control import main; main()"
    done = subprocess.run([sys.executable, "-c", code, "doctor"], env=environment, capture_output=True, check=False)
    lines = done.stdout.decode("ascii").splitlines()
    checks = [line for line in lines if not line.startswith(" ")]
    assert len(checks) == 46
    assert {line[:2] for line in checks} <= {"+ ", "- ", "! ", "x ", "? "}
    assert done.returncode == (5 if any(line.startswith("x ") for line in checks) else 0)
