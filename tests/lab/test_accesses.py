"""Accesses of real processes on a real kernel: what moves by register sampling, by perf logs alone, by hint faults, and
what is spread.

And `balancerctl heat`, which draws what is known of them. One daemon for all, since starting one takes long here; its
configuration says what each test is about.
"""

import gzip
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from balancerd.native import migrate_process
from tests.lab.balancing import SWITCH, eager_balancing, is_balancing
from tests.lab.service import Balancerd
from tests.lab.workloads import Ended, logged
from tests.lab.workloads.logged import N_SAMPLES, Logged
from tests.lab.workloads.team import MIB, Team

pytestmark = [pytest.mark.topology("four-nodes"), pytest.mark.timeout(180)]

PART_MIB = 8
PART_PAGES = PART_MIB * 256
PAGES = 4 * PART_PAGES
CONFIG = """
accesses: {{sources: [{sources}], log_directory: {logs}}}
policies:
  - {{name: home, kind: follow-cpu}}
  - {{name: parts, kind: access, min_cpu: 0.05, min_rss: 8MiB}}
  - {{name: shared, kind: interleave, min_cpu: 0.1, min_rss: 8MiB, min_shared: 16MiB}}
"""
BRISK = {
    "select.min_age": "1s",
    "select.min_rss": "8MiB",
    "tick_interval": "1s",
    "migrate.duty_cycle": "100%",
    "migrate.cooldown": "1s",  # who would move something back does not wait
    "accesses.budget": "50%",  # emulated, judging takes 50 times as long
}


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("logs")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, logs: Path) -> Iterator[Balancerd]:
    assert not is_balancing()
    with Balancerd(tmp_path_factory.mktemp("daemon"), config_of(logs), overrides=BRISK) as daemon:
        yield daemon


def config_of(logs: Path, sources: str = "") -> str:
    return CONFIG.format(logs=logs, sources=sources)


def verdict(daemon: Balancerd, pid: int, by: str) -> tuple[str, str]:
    """The reason and the detail of what one policy said of a process last; empty where it said nothing."""
    told = [each for each in daemon.explain(pid)["verdicts"] if each["by"] == by]
    return (told[-1]["reason"], told[-1]["detail"]) if told else ("", "")


def wait_until_asked_for(daemon: Balancerd, team: Logged) -> None:
    """Wait until the policy wants the accesses of a team, and nobody can tell them."""
    wanted = ("not-watched", "accesses.sources is empty")
    daemon.wait_for(lambda: verdict(daemon, team.pid, "parts") == wanted, 60.0, "word of the team")
    assert team.moved().all == 0
    assert team.home_shares() == (1.0, 0.0, 0.0, 0.0)


def wait_until_home(daemon: Balancerd, team: Logged) -> None:
    try:
        took = daemon.wait_for(lambda: min(team.home_shares()) >= 0.95, 45.0, "parts at home")
    finally:
        print(team.home_shares(), team.moved(), daemon.explain(team.pid)["verdicts"])
    daemon.wait_ticks(2)
    moved = team.moved()
    print(f"parts at home after {took:.1f} s: precision {moved.precision:.3f}, recall {moved.recall:.3f}")
    assert moved.precision >= 0.95
    assert moved.recall >= 0.95
    assert daemon.moved_pages(team.pid) == moved.all  # nothing else, and nothing twice
    daemon.check_accounts()


@pytest.mark.parametrize("kind", [pytest.param("base", marks=pytest.mark.thorough), "thp"])
def test_what_main_touched_goes_to_the_threads_that_use_it(kind: str, daemon: Balancerd, logs: Path) -> None:
    daemon.reload(config_of(logs, "registers"))
    with Team(kind, PART_MIB, busy_percent=20, how="calm") as team:
        began = time.monotonic()
        shares: list[tuple[float, tuple[float, ...]]] = []

        def is_home() -> bool:
            # the first one is before the daemon has seen it: all of it is where main has touched it
            shares.append((time.monotonic() - began, team.at_home()))
            return min(shares[-1][1]) >= 0.95

        is_home()
        assert shares[0][1] == pytest.approx((1.0, 0.0, 0.0, 0.0), abs=0.01)
        try:
            took = daemon.wait_for(is_home, 90.0, "parts at home")
        finally:
            for seconds, told in shares:
                print(f"{seconds:6.1f} s: " + " ".join(f"{share:.3f}" for share in told))
            print(daemon.explain(team.pid)["verdicts"])
        print(f"{kind}: parts at home after {took:.1f} s: {team.at_home()}")
        daemon.wait_for(lambda: verdict(daemon, team.pid, "parts")[0] == "well-placed", 60.0, "good placement")
        moved = daemon.moved_pages(team.pid)
        assert 0.95 * 3 * PART_PAGES <= moved <= 1.05 * 3 * PART_PAGES  # nothing moved twice
        daemon.check_accounts()
        assert team.end() == Ended(status=0, told=f"verified {PAGES} pages")


def test_an_imported_log_has_the_right_pages_moved_and_heat_draws_them(
    daemon: Balancerd, logs: Path, tmp_path: Path
) -> None:
    daemon.reload(config_of(logs))
    with Logged() as team:
        wait_until_asked_for(daemon, team)
        path = tmp_path / "accesses.txt"
        path.write_text(team.log(), encoding="ascii")
        began = time.monotonic()
        done = daemon.balancerctl("import-log", str(path))
        print(f"imported in {time.monotonic() - began:.1f} s: {done.stdout}{done.stderr}")
        assert done.returncode == 0
        assert f"process {team.pid}: {N_SAMPLES} counted\n" in done.stdout
        wait_until_home(daemon, team)
        assert verdict(daemon, team.pid, "parts")[0] == "well-placed"
        check_heat(daemon, team.pid, tmp_path / "heat.svg")
        assert team.end() == Ended(status=0, told=f"verified {4 * logged.PART_MIB * 256} pages")


def check_heat(daemon: Balancerd, pid: int, drawing: Path) -> None:
    """Each part is drawn on its node, as used from there, in text and as a file; a pid of nobody is told as such."""
    done = daemon.balancerctl("heat", str(pid), "--format", "picture")
    print(done.stdout, done.stderr)
    assert done.returncode == 0
    assert f"Process {pid} (team): " in done.stdout
    assert "accesses: by perf-log of 4 threads" in done.stdout
    lines = done.stdout.splitlines()
    strips = {name: "".join(line[15:] for line in lines if line[9:15] == f" {name} ") for name in ("node", "use ")}
    # a cell is 2 MiB: of each part the beginning and the rest, of which it is not known but for the last one's
    assert "0*1*2*30" in strips["node"]
    assert "=.=.=.=+" in strips["use "]
    done = daemon.balancerctl("heat", str(pid), "--svg", str(drawing))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", f"written to {drawing}\n")
    texts = [element.text or "" for element in ET.parse(drawing).getroot()]  # noqa: S314 - our own file
    assert {f"node {node}" for node in range(4)} <= set(texts)
    assert any(text.startswith(f"Process {pid} (team)") for text in texts)
    unknown = daemon.balancerctl("heat", "4194303")  # below the largest pid_max, and nobody's
    assert (unknown.returncode, unknown.stdout, unknown.stderr) == (1, "", "balancerctl: there is no process 4194303\n")


@pytest.mark.thorough
def test_a_log_that_appears_in_the_directory_has_the_right_pages_moved(daemon: Balancerd, logs: Path) -> None:
    daemon.reload(config_of(logs))
    with Logged() as team:
        wait_until_asked_for(daemon, team)
        (logs / "accesses.gz.part").write_bytes(gzip.compress(team.log().encode("ascii")))
        (logs / "accesses.gz.part").rename(logs / "accesses.gz")
        wait_until_home(daemon, team)
        told = [line["told"] for line in daemon.log_lines("perf log")]
        print(told)
        assert len(told) == 1
        assert told[0].startswith(f"{logs}/accesses.gz: ")
        assert told[0].endswith(f"counted: {N_SAMPLES} of process {team.pid}")


def test_what_all_share_is_spread_once_and_comes_home_when_the_threads_gather(daemon: Balancerd, logs: Path) -> None:
    daemon.reload(config_of(logs, "registers"))
    with Team("base", PART_MIB, busy_percent=20, how="shared") as team:
        whole = ((team.parts[0][0], team.parts[-1][1]),)
        assert team.pages_by_node(whole) == ((PAGES, 0, 0, 0),)
        try:
            took = daemon.wait_for(lambda: verdict(daemon, team.pid, "shared")[0] == "balanced", 90.0, "a spread")
        finally:
            print(team.pages_by_node(whole), daemon.explain(team.pid)["verdicts"])
        (held,) = team.pages_by_node(whole)
        moved = daemon.moved_pages(team.pid)
        print(f"spread after {took:.1f} s: {held}, {moved} pages moved")
        for pages in held:  # no bandwidths are told of this machine: each node has a quarter of the regions, or nearly
            assert abs(pages - PAGES / 4) <= 2 * 512
        regions = [(start, start + 2 * MIB) for start in range(*whole[0], 2 * MIB)]
        split = [by_node for by_node in team.pages_by_node(regions) if max(by_node) < 0.99 * 512]
        assert split == []  # a region goes to one node as a whole
        assert moved == PAGES - held[0]  # each page once, and none elsewhere
        daemon.wait_ticks(4)
        assert team.pages_by_node(whole) == (held,)
        assert daemon.moved_pages(team.pid) == moved
        assert verdict(daemon, team.pid, "shared")[0] == "balanced"
        team.gather(2)
        try:
            took = daemon.wait_for(lambda: team.pages_by_node(whole)[0][2] >= 0.99 * PAGES, 90.0, "all of it at home")
        finally:
            print(team.pages_by_node(whole), daemon.explain(team.pid)["verdicts"])
        daemon.wait_ticks(4)  # what was seen of its accesses is of before
        print(f"home after {took:.1f} s, {daemon.explain(team.pid)['verdicts']}")
        assert team.pages_by_node(whole)[0][2] >= 0.99 * PAGES
        assert verdict(daemon, team.pid, "home")[0] == "well-placed"
        assert [verdict(daemon, team.pid, by)[0] for by in ("parts", "shared")] == ["one-home", "one-home"]
        daemon.check_accounts()
        assert team.end() == Ended(status=0, told=f"verified {PAGES} pages")


@pytest.mark.thorough
def test_hint_faults_move_what_the_kernel_has_not_and_nothing_twice(daemon: Balancerd, logs: Path) -> None:
    with ExitStack() as stack:
        stack.enter_context(eager_balancing())
        daemon.reload(config_of(logs, "hint-faults"))
        team = stack.enter_context(Team("base", PART_MIB, busy_percent=20, how="calm"))
        # the kernel's balancing and the daemon both bring the parts home; who was first does not matter
        daemon.wait_for(lambda: min(team.at_home()) >= 0.95, 60.0, "parts at home")
        all_told = f"{4 * PART_MIB} MiB lie where the threads run"
        daemon.wait_for(lambda: verdict(daemon, team.pid, "parts")[1].startswith(all_told), 60.0, "word of every page")
        accesses = daemon.client.get(f"/v1/processes/{team.pid}/heat")["accesses"]
        first = daemon.moved_pages(team.pid)
        print(f"{accesses}; balancerd moved {first} of {3 * PART_PAGES} pages")
        assert accesses["method"] == "hint-faults"
        assert accesses["threads"] >= 4
        assert first <= 3 * PART_PAGES
        daemon.wait_ticks(2)
        assert daemon.moved_pages(team.pid) == first
        # somebody moves all of it back, and the kernel balances no more: what the faults have told still holds
        SWITCH.write_text("0", encoding="ascii")
        for node in (1, 2, 3):
            migrate_process(team.pid, (node,), (0,))
        took = daemon.wait_for(lambda: min(team.at_home()) >= 0.95, 45.0, "parts at home again")
        daemon.wait_ticks(2)
        again = daemon.moved_pages(team.pid) - first
        print(f"from faults alone: {again} of {3 * PART_PAGES} pages after {took:.1f} s")
        assert 0.95 * 3 * PART_PAGES <= again <= 3 * PART_PAGES
        assert min(team.at_home()) >= 0.95
        daemon.check_accounts()
        assert team.end() == Ended(status=0, told=f"verified {PAGES} pages")
