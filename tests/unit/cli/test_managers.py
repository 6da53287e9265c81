"""Other managers in the answer of the control socket and in `balancerctl status`."""

from dataclasses import replace

from balancerd.control import api
from balancerd.control.state import ControlState
from balancerd.model.manager import REMEDY, Manager, ManagerFinding
from balancerd.model.report import TickReport
from tests.unit.cli.conftest import Run, Serve
from tests.unit.cli.documents import answers
from tests.unit.reports import a_process, a_process_report, a_report


def a_watched_report() -> TickReport:
    numad = ManagerFinding(manager=Manager.NUMAD, active=True, detail="running with pid 7", pids=(7,))
    damos = ManagerFinding(
        manager=Manager.DAMOS, active=False, unreadable="/sys/kernel/mm/damon/admin/kdamonds/0/state"
    )
    narrowed = a_process_report(replace(a_process(), manager=Manager.AFFINITY, manager_detail="it may run on CPUs 1"))
    report = a_report(processes=(narrowed,))
    return replace(
        report,
        survey=replace(report.survey, managers=(numad, damos)),
        yield_to=frozenset({Manager.NUMAD, Manager.DAMOS}),
    )


def test_status_tells_of_every_manager_whether_it_is_at_work_and_whom_it_holds() -> None:
    state = ControlState(lambda: 1.0)
    state.emit(a_watched_report())
    managers = api.status(state.view(), version="1", pid=1, now=2.0)["managers"]
    assert [each["manager"] for each in managers] == [manager.value for manager in Manager]
    told = {each["manager"]: each for each in managers}
    assert told["numad"] == {
        "manager": "numad",
        "active": True,
        "yields": True,
        "processes": None,
        "detail": "running with pid 7",
        "pids": [7],
        "fix": REMEDY[Manager.NUMAD],
        "unreadable": None,
    }
    assert (told["damos"]["active"], told["damos"]["unreadable"]) == (
        False,
        "/sys/kernel/mm/damon/admin/kdamonds/0/state",
    )
    assert (told["affinity"]["active"], told["affinity"]["processes"], told["affinity"]["yields"]) == (True, 1, False)


def test_the_command_shows_those_at_work_and_what_balancerd_does_about_them(serve: Serve, run: Run) -> None:
    done = run("status", socket=serve(answers(a_watched_report())))
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    first = lines.index("MANAGER   PROCESSES  BALANCERD  SEEN")
    assert lines[first + 1 : first + 4] == [
        "numad             -  yields     running with pid 7",
        "affinity          1  goes on    it may run on some of the CPUs only",
        "",
    ]
