"""The real kernel room tells of other managers in its survey, and of who has placed a process."""

import os
import time
from dataclasses import replace
from pathlib import Path

from balancerd.kernel.clock import MonotonicClock
from balancerd.kernel.live import LiveKernel
from balancerd.kernel.neighbours.watch import Neighbours
from balancerd.model.manager import Manager
from balancerd.model.sample import ProcessSample
from balancerd.ports import SurveyScope
from tests.unit.kernel.trees import write_tree
from tests.unit.kernel.worlds import NO_LIMITS

SCOPE = SurveyScope(min_rss_bytes=1 << 20, min_cpu_cores=0.001)


class Landlord(Neighbours):
    """Says that libvirt has placed whoever is asked for."""

    def annotate(self, process: ProcessSample) -> ProcessSample:
        return replace(process, manager=Manager.LIBVIRT)


def test_a_survey_has_the_managers_and_its_busy_processes_who_placed_them(tmp_path: Path) -> None:
    write_tree(tmp_path, {"run/systemd/transient/run-1.service": "NUMAPolicy=bind\n"})
    live = LiveKernel(MonotonicClock(), pace=NO_LIMITS, neighbours=Landlord(root=tmp_path))
    first = live.survey(SCOPE)
    end = time.process_time() + 0.05
    while time.process_time() < end:
        pass
    second = live.survey(SCOPE)
    for survey in (first, second):
        found = {finding.manager: finding for finding in survey.managers}
        assert found[Manager.NUMA_POLICY].detail == "set for run-1.service"
    mine = next(process for process in second.processes if process.id.pid == os.getpid())
    assert mine.manager is Manager.LIBVIRT
    looked = live.look(os.getpid())
    assert looked is not None
    assert looked.manager is Manager.LIBVIRT
    assert live.look(2**22 + 1) is None
    live.close()
