"""What `explain` and `plan` say of a process whose threads are moved."""

from tests.unit.cli.conftest import Run, Serve
from tests.unit.cli.documents import answers
from tests.unit.test_told_threads import KICKED, P, a_tick


def test_people_are_told_that_threads_move(serve: Serve, run: Run) -> None:
    socket = serve(answers(a_tick(KICKED)))
    done = run("explain", str(P.id.pid), socket=socket)
    assert done.exit_code == 0, done.output
    assert "2. gather: move its threads to node 1: steer, " in done.stdout
    assert "(much memory); costs 0.25 s of CPU time, wins 0.100 cores" in done.stdout
    assert "so: moving, steer" in done.stdout
    planned = run("plan", socket=socket)
    assert "threads" in planned.stdout
