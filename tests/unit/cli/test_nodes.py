"""nodes against a server that answers as the daemon does: text, JSON, and machines of many sizes."""

import json
from typing import Any

import pytest

from balancerd.cli.nodes import huge_bytes
from balancerd.control import machine_api
from balancerd.control.state import ControlState
from balancerd.model.report import TickReport
from tests.unit.cli.conftest import Run, Serve
from tests.unit.machine_reports import a_plain_report, a_tiered_report

TIERED = """\
NODE  CPUS  LOAD  SIZE  FREE  HUGE  KNOWN  TIER
   0  0-1    25%  4GiB  2GiB  1GiB   6MiB     4
   1  2-3   100%  4GiB  2GiB  1GiB     0B     4
   2  none     -  4GiB  2GiB  1GiB   1MiB   180
known to balancerd: where the memory of 2 of 3 surveyed processes lies

NODE  LATENCY  BANDWIDTH  NEAREST CPUS   HUGETLB 2MiB
   0    100ns    10GiB/s        node 0  12 of 16 free
   1    100ns    10GiB/s        node 1  12 of 16 free
   2    400ns     1GiB/s      node 0-1  12 of 16 free

DISTANCE   0   1   2
  from 0  10  21  21
  from 1  21  10  21
  from 2  21  21  10

NODE  KIND  DEVICES
   0  nvme  nvme0, nvme1
   1  net   eth0

kernel: NUMA balancing on, demotion off
        transparent huge pages madvise, defrag defer+madvise
"""


def told(report: TickReport | None) -> dict[str, tuple[int, Any]]:
    state = ControlState(lambda: 100.0)
    if report is not None:
        state.emit(report)
    return {"/v1/nodes": (200, machine_api.nodes(state.view(), now=100.5))}


def test_everything_that_a_tiered_machine_tells_is_shown(serve: Serve, run: Run) -> None:
    done = run("nodes", socket=serve(told(a_tiered_report())))
    assert (done.exit_code, done.stdout, done.stderr) == (0, TIERED, "")


def test_in_json_it_is_the_daemons_answer(serve: Serve, run: Run) -> None:
    answers = told(a_tiered_report())
    assert json.loads(run("nodes", "--json", socket=serve(answers)).stdout) == answers["/v1/nodes"][1]


def test_before_the_first_tick_it_says_that_nothing_is_known(serve: Serve, run: Run) -> None:
    done = run("nodes", socket=serve(told(None)))
    assert (done.exit_code, done.stdout) == (0, "no tick yet: nothing is known of the nodes\n")


@pytest.mark.parametrize("nodes", [2, 8, 16])
def test_it_reads_well_on_80_columns_whatever_the_number_of_nodes(serve: Serve, run: Run, nodes: int) -> None:
    lines = run("nodes", socket=serve(told(a_plain_report(nodes, cpus_per_node=32)))).stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) == 2 * (nodes + 1) + 5
    assert lines[nodes].split()[1] == f"{32 * nodes - 32}-{32 * nodes - 1}"


def test_what_no_node_tells_is_left_out(serve: Serve, run: Run) -> None:
    text = run("nodes", socket=serve(told(a_plain_report(1)))).stdout
    assert not {"LATENCY", "HUGETLB", "DISTANCE", "DEVICES"} & set(text.split())
    assert text.splitlines()[-2:] == [
        "kernel: NUMA balancing off, demotion not there",
        "        transparent huge pages not there, defrag not there",
    ]
    assert text.splitlines()[1].split() == ["0", "0-1", "25%", "4GiB", "2GiB", "1GiB", "-", "4"]


def test_an_answer_without_a_machine_shows_the_nodes_all_the_same(serve: Serve, run: Run) -> None:
    from tests.unit.reports import a_report

    lines = run("nodes", socket=serve(told(a_report()))).stdout.splitlines()
    assert lines[0].split() == ["NODE", "CPUS", "LOAD", "SIZE", "FREE", "HUGE", "KNOWN"]
    assert lines[1].split() == ["0", "0-1", "-", "4GiB", "2GiB", "-", "-"]


def test_huge_is_what_lies_in_blocks_of_2_mib_or_more() -> None:
    assert huge_bytes((9,) * 9) == 0
    assert huge_bytes((0,) * 9 + (1, 2)) == (1 + 2 * 2) * 2 << 20
    assert huge_bytes(None) is None
