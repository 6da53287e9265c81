"""python -m tests.bench.locality.inside WORKLOAD RIVAL --work N: the benchmark's one command inside the guest.

Owns which CPUs are used for what, and where the result goes: OUT/result.json, in the shape of measure.py, also when the
run failed; then the exit status is 1. Must not know how anything is measured.

The house-keeping CPU is the machine's last one: this process and the rival keep to it. The workload uses the first CPU
of each node. On a machine with no CPU to spare the last node's workload shares it; good enough to try things out.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.bench.locality import measure, programs, rivals, workloads
from tests.bench.locality.plan import Plan, Workload
from tests.lab.oracle import mark

OUT = Path("/run/lab/out")
NODES = Path("/sys/devices/system/node")


def choose_cpus(cpus_of_node: Mapping[int, Iterable[int]]) -> tuple[int, dict[int, int]]:
    """Return the house-keeping CPU, the last one, and for each node with CPUs the first that workloads can use."""
    by_node = {node: sorted(cpus) for node, cpus in sorted(cpus_of_node.items())}
    house_cpu = max(cpu for cpus in by_node.values() for cpu in cpus)
    return house_cpu, {node: cpus[0] for node, cpus in by_node.items() if cpus}


def read_cpus() -> dict[int, list[int]]:
    """Return the CPUs of each node."""
    folders = NODES.glob("node[0-9]*")
    return {int(node.name[4:]): [int(link.name[3:]) for link in node.glob("cpu[0-9]*")] for node in folders}


def main(arguments: list[str] | None = None) -> int:
    """Run one workload under one rival; 0 when all went well."""
    known: dict[str, Workload] = {**workloads.WORKLOADS, **programs.PROGRAMS}
    parser = argparse.ArgumentParser(prog="python -m tests.bench.locality.inside")
    parser.add_argument("workload", choices=known, metavar="WORKLOAD")
    parser.add_argument("rival", choices=rivals.RIVALS, metavar="RIVAL")
    parser.add_argument("--work", type=int, required=True, help="in the workload's own units")
    parser.add_argument("--mib", type=int, help="the memory of each of its processes")
    told = "a setting of balancerd, in the place of its default; may be repeated"
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=told)
    given = parser.parse_args(arguments)
    rivals.SETTINGS.update(word.split("=", 1) for word in given.set)
    workload, rival = known[given.workload], rivals.RIVALS[given.rival]
    mib = workload.mib if given.mib is None else given.mib
    house_cpu, cpus = choose_cpus(read_cpus())
    os.sched_setaffinity(0, {house_cpu})  # of all that is started here, too; workloads choose their own
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # some programs refuse to be root
        plan = Plan(work=given.work, mib=mib, is_bound=rival.is_bound, cpus=cpus, folder=Path(folder))
        result = measure.run(workload, rival, plan, house_cpu=house_cpu, marker=mark)
    (OUT / "result.json").write_text(json.dumps(result) + "\n", encoding="utf-8")
    return 0 if result["error"] is None else 1


if __name__ == "__main__":
    sys.exit(main())
