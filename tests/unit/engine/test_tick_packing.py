"""Packing and follow-cpu in one engine, on nodes whose free memory is what processes leave of them."""

from collections.abc import Mapping

from balancerd import plugins
from balancerd.config.schema import Config, MigrateConfig, PolicyConfig, SelectConfig
from balancerd.engine.tick import Engine
from balancerd.model.decision import Decision, Reason
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.report import TickReport
from balancerd.model.sample import Survey
from balancerd.ports import SurveyScope
from balancerd.settings import build_policies, build_settings
from tests.unit.fakes import GIB, MIB, FakeClock, FakeKernel, make_process

NODE_MIB = 8192
KEEP_MIB = 1000


class Crowded(FakeKernel):
    """Nodes of 8 GiB, of which others use `used_mib`."""

    used_mib: Mapping[int, float] = {}

    def survey(self, scope: SurveyScope) -> Survey:
        for node in range(4):
            held = sum(each.get(NodeId(node), 0.0) for each in self.mib.values())
            self.free_bytes[node] = round(NODE_MIB - self.used_mib.get(node, 0.0) - held) * MIB
        return super().survey(scope)


def make_config(rate_limit_bytes_per_second: int = GIB) -> Config:
    packing = PolicyConfig.model_validate({"name": "pack", "kind": "packing", "keep_free": f"{KEEP_MIB}MiB"})
    home = PolicyConfig(name="home", kind="follow-cpu")
    return Config(
        select=SelectConfig(min_age_seconds=30.0, scan_budget_ratio=1.0),
        policies=(packing, home),
        migrate=MigrateConfig(rate_limit_bytes_per_second=rate_limit_bytes_per_second),
    )


class Run:
    """Ticks every two seconds."""

    def __init__(self, config: Config) -> None:
        self.clock = FakeClock()
        self.kernel = Crowded(self.clock)
        settings = build_settings(config, plugins.discover())
        self.engine = Engine(
            kernel=self.kernel,
            clock=self.clock,
            policies=build_policies(config, plugins.discover(), (6, 12)),
            settings=settings,
            should_stop=lambda: False,
            memory=settings.new_memory(),
        )

    def add(self, pid: int, mib: Mapping[int, float], *, run: int | None = None) -> ProcessId:
        process = make_process(
            pid,
            rss_bytes=round(sum(mib.values()) * MIB),
            **({"cpu_cores": 0.0, "run_seconds": None} if run is None else {"run": {run: 2.0}}),
        )
        self.kernel.add(process, mib)
        return process.id

    def ticks(self, number: int) -> list[TickReport]:
        reports = []
        for _ in range(number):
            reports.append(self.engine.tick())
            self.clock.time += 2.0
        return reports

    def mib(self, process: ProcessId, node: int) -> float:
        return self.kernel.mib[process].get(NodeId(node), 0.0)

    def free_mib(self, node: int) -> float:
        return self.kernel.free_bytes[node] / MIB


def test_a_node_that_is_short_gets_room_from_who_idles_and_no_more_than_it_lacks() -> None:
    run = Run(make_config())
    busy, idle = run.add(1, {0: 2000}, run=0), run.add(2, {0: 2000})
    run.kernel.used_mib = {0: NODE_MIB - 4500.0}  # 500 are left
    run.ticks(8)
    assert run.free_mib(0) >= 1250 - 2
    assert run.mib(busy, 0) == 2000
    assert run.mib(idle, 1) == 2000 - run.mib(idle, 0)
    assert 740 <= run.mib(idle, 1) <= 760


def test_follow_cpu_does_not_bring_back_what_made_room() -> None:
    run = Run(make_config())
    process = run.add(1, {0: 2000}, run=0)
    run.kernel.used_mib = {0: NODE_MIB - 2500.0}
    reports = run.ticks(200)
    assert run.mib(process, 1) >= 740
    moved = sum(outcome.moved_pages for report in reports for outcome in report.outcomes) * 4096 / MIB
    assert moved < 800, "it moved once"
    claimed = [v for report in reports[20:] for v in report.plan.rejected if v.reason is Reason.CLAIMED]
    assert claimed, "follow-cpu would like to"
    assert "kept-away" in claimed[-1].detail
    run.kernel.used_mib = {0: NODE_MIB - 6000.0}
    run.ticks(60)
    assert run.mib(process, 0) > 1990, "when there is room it comes home"


def test_the_pages_that_move_are_those_of_the_short_node_and_budgets_hold() -> None:
    run = Run(make_config(32 * MIB))
    run.add(1, {0: 1000, 3: 500})
    run.kernel.used_mib = {0: NODE_MIB - 1500.0}
    reports = run.ticks(30)
    steps = [outcome.step for report in reports for outcome in report.outcomes]
    assert len(steps) > 5
    assert {(step.target, tuple((step.target_of or {}).items())) for step in steps} == {
        (NodeId(1), ((NodeId(1), NodeId(1)), (NodeId(0), NodeId(1))))
    }
    assert run.free_mib(0) >= 1250 - 2


def test_a_process_that_is_stuck_is_left_for_others() -> None:
    run = Run(make_config())
    stuck, other = run.add(1, {0: 2000}), run.add(2, {0: 2000}, run=0)
    run.kernel.stuck_mib[stuck] = 2000.0
    run.kernel.used_mib = {0: NODE_MIB - 4500.0}
    run.ticks(30)
    assert run.mib(stuck, 0) == 2000
    assert run.mib(other, 1) >= 740


def test_it_says_what_it_does_of_everybody() -> None:
    run = Run(make_config())
    for pid in range(1, 6):
        run.add(pid, {pid % 2: 700}, run=pid % 2)
    run.kernel.used_mib = {0: NODE_MIB - 2000.0}
    report = run.ticks(3)[-1]
    told = [v for v in report.verdicts if (v.policy if isinstance(v, Decision) else getattr(v, "by", "")) == "pack"]
    assert {v.process.pid for v in told} == {1, 2, 3, 4, 5}
