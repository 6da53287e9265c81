"""What a scrape shows after some ticks; the text judged by promtool; scraping while the loop writes."""

import re
import subprocess
import threading
from dataclasses import replace

import prometheus_client
import pytest
from prometheus_client.parser import text_string_to_metric_families

from balancerd.metrics import Metrics
from balancerd.metrics.catalogue import catalogue
from balancerd.model.decision import Reason, Skip
from balancerd.model.event import HistoryFigures
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.judged import MoveResult
from balancerd.model.manager import Manager, ManagerFinding
from balancerd.model.migration import RunsNow
from balancerd.model.page_status import NEVER_SUBMITTED, PageStatus
from balancerd.model.report import Failure, PolicyFailure
from balancerd.model.sample import Pressure
from tests.unit.every_metric import full_metrics
from tests.unit.fakes import make_access_window, make_verified
from tests.unit.reports import (
    MIB,
    a_decision,
    a_judged_move,
    a_moving_report,
    a_process,
    a_process_report,
    a_report,
    a_topology,
    an_eviction,
    an_eviction_outcome,
    an_outcome,
)

SAMPLE = re.compile(r"([a-zA-Z_:]+)(?:\{(.*)\})? (\S+)")


def scrape(metrics: Metrics) -> dict[str, float]:
    """Every sample by its name with labels, as the text format writes them."""
    lines = metrics.render()[1].decode().splitlines()
    matches = [SAMPLE.fullmatch(line) for line in lines if not line.startswith("#")]
    return {f"{m[1]}{{{m[2]}}}" if m[2] else m[1]: float(m[3]) for m in matches if m is not None}


def new_metrics() -> Metrics:
    return Metrics(version="1.2.3", unix_seconds=lambda: 1_000_000.0)


def test_how_the_history_is_kept_is_told_and_nothing_where_none_is() -> None:
    samples = scrape(full_metrics())
    assert samples["balancerd_history_events_total"] == 70
    assert samples['balancerd_history_lost_events_total{cause="queue"}'] == 2
    assert samples['balancerd_history_errors_total{error="corrupt"}'] == 1
    assert [samples[f"balancerd_history_{name}"] for name in ("up", "rows", "bytes")] == [1, 50, 4096]
    assert not any("history" in name for name in scrape(new_metrics()))


def test_trouble_with_the_history_is_told_and_what_is_not_known_is_not() -> None:
    metrics = Metrics(version="1", history=lambda: HistoryFigures(trouble="disk full"))
    samples = scrape(metrics)
    assert samples["balancerd_history_up"] == 0
    assert "balancerd_history_rows" not in samples


def test_how_fast_the_kernel_copies_is_told_by_both_nodes() -> None:
    samples = scrape(full_metrics())
    assert samples['balancerd_migration_copy_bytes_per_second{from_node="1",to_node="0"}'] == 2e9


def test_judged_moves_are_counted_by_policy_and_result_and_a_pause_is_told() -> None:
    metrics, pid = new_metrics(), ProcessId(1, 1)
    worse = a_judged_move(pid, policy="other", result=MoveResult.WORSE)
    metrics.emit(a_report(judged=(a_judged_move(pid), worse), paused="node 1 ran out of memory during a move"))
    assert scrape(metrics)["balancerd_paused"] == 1.0
    metrics.emit(a_report(judged=(a_judged_move(pid),)))
    samples = scrape(metrics)
    assert samples['balancerd_moves_judged_total{policy="home",result="improved"}'] == 2
    assert samples['balancerd_moves_judged_total{policy="other",result="worse"}'] == 1
    assert samples["balancerd_paused"] == 0.0


def test_bytes_and_pages_add_up_over_ticks() -> None:
    metrics = new_metrics()
    for number in (1, 2, 3):
        metrics.emit(a_moving_report(number, moved_pages=1000, shared_pages=24))
    samples = scrape(metrics)
    assert samples['balancerd_migrated_bytes_total{from_node="1",reason="misplaced",to_node="0"}'] == 3 * 1000 * 4096
    assert samples['balancerd_migration_pages_total{status="moved"}'] == 3000
    assert samples['balancerd_migration_pages_total{status="eacces"}'] == 72
    assert samples['balancerd_migration_failed_pages_total{status="eacces"}'] == 72
    assert 'balancerd_migration_failed_pages_total{status="moved"}' not in samples
    assert samples['balancerd_ticks_total{outcome="success"}'] == 3
    assert samples['balancerd_decisions_total{action="migrate",policy="home"}'] == 3


def test_every_page_is_counted_under_its_status_and_the_sum_is_what_was_submitted() -> None:
    pages = {status: index + 1 for index, status in enumerate(set(PageStatus) - NEVER_SUBMITTED)}
    outcome = an_outcome(ProcessId(1, 1), pages=pages, moved_from={1: pages[PageStatus.MOVED]})
    metrics = new_metrics()
    metrics.emit(a_report(outcomes=(outcome,)))
    samples = scrape(metrics)
    counted = {k: v for k, v in samples.items() if k.startswith("balancerd_migration_pages_total")}
    failed = {k: v for k, v in samples.items() if k.startswith("balancerd_migration_failed_pages_total")}
    assert len(counted) == len(pages)
    assert sum(counted.values()) == outcome.submitted_pages
    assert sum(failed.values()) == outcome.submitted_pages - outcome.moved_pages


def test_samples_of_accesses_are_counted_by_what_they_told_and_the_lost_ones_too() -> None:
    metrics = new_metrics()
    name = "balancerd_access_samples_total"
    assert scrape(metrics)[f'{name}{{result="hit",source="registers"}}'] == 0
    window = make_access_window(samples=800, hits=700, lost_samples=5, cut_samples=3, throttled=2, cpu_seconds=0.25)
    for _ in range(2):
        metrics.emit(replace(a_moving_report(), accesses=(window,)))
    samples = scrape(metrics)
    told = {k: samples[f'{name}{{result="{k}",source="registers"}}'] for k in ("hit", "no-address", "lost", "cut")}
    assert told == {"hit": 1400, "no-address": 200, "lost": 10, "cut": 6}
    assert samples['balancerd_access_throttled_total{source="registers"}'] == 4
    assert samples['balancerd_access_cpu_seconds_total{source="registers"}'] == 0.5


def test_each_process_is_counted_in_one_state() -> None:
    metrics = new_metrics()
    metrics.emit(a_moving_report())
    states = {k: v for k, v in scrape(metrics).items() if k.startswith("balancerd_processes{")}
    assert states['balancerd_processes{state="small"}'] == 90
    assert states['balancerd_processes{state="kernel-thread"}'] == 120
    assert states['balancerd_processes{state="moving"}'] == 1
    assert states['balancerd_processes{state="unselected"}'] == 1
    assert sum(states.values()) == 90 + 120 + 2


@pytest.mark.parametrize("reason", [Reason.COOLDOWN, Reason.TARGET_FULL, Reason.MIGRATION_BUDGET])
def test_a_decision_that_the_plan_turns_down_is_counted_against_its_policy(reason: Reason) -> None:
    process = a_process()
    skip = Skip(by="plan", process=process.id, reason=reason)
    seen = a_process_report(process, verdicts=(a_decision(process.id, policy="mine"), skip))
    metrics = new_metrics()
    metrics.emit(a_report(processes=(seen,), rejected=(skip,), steps=()))
    samples = scrape(metrics)
    assert samples[f'balancerd_decisions_suppressed_total{{policy="mine",reason="{reason.value}"}}'] == 1
    assert samples['balancerd_plan_pending_bytes{policy="mine"}'] == 256 * MIB


def test_of_two_policies_the_one_whose_claim_came_second_is_suppressed() -> None:
    process = a_process()
    first, second = a_decision(process.id, policy="first"), a_decision(process.id, policy="second")
    skip = Skip(by="plan", process=process.id, reason=Reason.CLAIMED)
    outcome = an_outcome(process.id, policy="first")
    metrics = new_metrics()
    metrics.emit(
        a_report(
            processes=(a_process_report(process, verdicts=(first, second, skip)),),
            outcomes=(outcome,),
            rejected=(skip,),
        )
    )
    suppressed = {k: v for k, v in scrape(metrics).items() if "suppressed" in k}
    assert suppressed == {'balancerd_decisions_suppressed_total{policy="second",reason="claimed"}': 1}


def test_a_step_that_observe_mode_did_not_take_is_a_suppressed_decision_and_stays_pending() -> None:
    process = a_process()
    outcome = an_outcome(process.id, pages={}, call_seconds=(), stopped_by=Reason.OBSERVE_MODE)
    metrics = new_metrics()
    seen = a_process_report(process, verdicts=(a_decision(process.id),), outcome=outcome)
    metrics.emit(a_report(mode="observe", processes=(seen,), outcomes=(outcome,)))
    samples = scrape(metrics)
    assert samples['balancerd_decisions_suppressed_total{policy="home",reason="observe-mode"}'] == 1
    assert samples['balancerd_plan_pending_bytes{policy="home"}'] == 256 * MIB
    assert samples['balancerd_mode{mode="observe"}'] == 1
    assert samples['balancerd_mode{mode="enforce"}'] == 0


def test_pending_bytes_fall_by_what_was_moved_and_to_zero_when_nothing_is_wanted() -> None:
    metrics = new_metrics()
    metrics.emit(a_moving_report(moved_pages=1000))
    assert scrape(metrics)['balancerd_plan_pending_bytes{policy="home"}'] == 256 * MIB - 1000 * 4096
    metrics.emit(a_report(number=2))
    assert scrape(metrics)['balancerd_plan_pending_bytes{policy="home"}'] == 0


@pytest.mark.parametrize("reason", [Reason.NO_ACCESS, Reason.VANISHED, Reason.UNREADABLE, Reason.BLOCKED])
def test_a_miss_that_the_engine_repeats_is_counted_once_until_it_happens_again(reason: Reason) -> None:
    process = a_process()
    missed = a_process_report(process, verdicts=(Skip(by="kernel", process=process.id, reason=reason),))
    metrics = new_metrics()
    name = f'balancerd_source_errors_total{{error="{reason.value}",source="sample"}}'
    metrics.emit(a_report(number=1, processes=(missed,)))
    metrics.emit(a_report(number=2, processes=(missed,)))
    assert scrape(metrics)[name] == 1
    metrics.emit(a_report(number=3))
    metrics.emit(a_report(number=4, processes=(missed,)))
    assert scrape(metrics)[name] == 2
    assert scrape(metrics)['balancerd_source_errors_total{error="vanished",source="survey"}'] == 4 * 3


def test_failed_and_degraded_ticks_are_told_apart() -> None:
    metrics = new_metrics()
    metrics.tick_failed("migrate", "OSError")
    failure = PolicyFailure(cause=Failure.NONSENSE, detail="node 17, which is not online")
    metrics.emit(a_report(policy_errors={"mine": "node 17, which is not online"}, disabled={"mine": failure}))
    samples = scrape(metrics)
    assert samples['balancerd_policy_disabled{cause="nonsense",policy="mine"}'] == 1
    assert samples['balancerd_ticks_total{outcome="failure"}'] == 1
    assert samples['balancerd_ticks_total{outcome="degraded"}'] == 1
    assert samples['balancerd_ticks_total{outcome="success"}'] == 0
    assert samples['balancerd_source_errors_total{error="OSError",source="migrate"}'] == 1
    assert samples['balancerd_source_errors_total{error="exception",source="policy/mine"}'] == 1


def test_a_bad_reload_is_told_and_keeps_the_time_of_the_last_good_one() -> None:
    metrics = new_metrics()
    metrics.reload(succeeded=True, at=500.0)
    metrics.reload(succeeded=False, at=600.0)
    samples = scrape(metrics)
    assert samples["balancerd_config_last_reload_successful"] == 0
    assert samples["balancerd_config_last_reload_success_timestamp_seconds"] == 500


def test_what_is_not_known_is_absent_and_not_zero() -> None:
    samples = scrape(new_metrics())
    for absent in ("mode", "processes", "kernel_numa_balancing_mode", "migration_limit", "tick_last", "config_last"):
        assert not [name for name in samples if name.startswith(f"balancerd_{absent}")]
    assert samples['balancerd_build_info{version="1.2.3"}'] == 1
    assert samples["process_resident_memory_bytes"] > MIB


def test_histograms_put_each_observation_below_its_inclusive_bound() -> None:
    metrics = new_metrics()
    metrics.emit(a_report(outcomes=(an_outcome(ProcessId(1, 1), call_seconds=(0.0001, 0.005, 0.0051, 7.0)),)))
    samples = scrape(metrics)
    name = "balancerd_migration_call_duration_seconds"
    assert samples[f'{name}_bucket{{le="0.00025"}}'] == 1
    assert samples[f'{name}_bucket{{le="0.005"}}'] == 2
    assert samples[f'{name}_bucket{{le="0.01"}}'] == 3
    assert samples[f'{name}_bucket{{le="+Inf"}}'] == samples[f"{name}_count"] == 4
    assert samples[f"{name}_sum"] == pytest.approx(7.0102)
    assert samples['balancerd_tick_phase_duration_seconds_count{phase="survey"}'] == 1


def test_the_topology_is_told_with_sparse_memory_and_cpus() -> None:
    metrics = new_metrics()
    metrics.emit(a_report(topology=a_topology(3, memory_only={2})))
    samples = scrape(metrics)
    assert samples['balancerd_numa_distance{from_node="0",to_node="2"}'] == 21
    assert samples['balancerd_numa_distance{from_node="2",to_node="2"}'] == 10
    assert samples['balancerd_numa_node_info{cpus="0-1",memory="true",numa_node="0"}'] == 1
    assert samples['balancerd_numa_node_info{cpus="",memory="true",numa_node="2"}'] == 1


def test_strange_methods_do_not_become_labels() -> None:
    metrics = new_metrics()
    for method in ("GET", "BREW", "ÄÖÜ"):
        metrics.control_request(method, 405)
    requests = {k: v for k, v in scrape(metrics).items() if "control_requests" in k}
    assert requests == {
        'balancerd_control_requests_total{code="405",method="GET"}': 1,
        'balancerd_control_requests_total{code="405",method="other"}': 2,
    }


def test_clients_that_a_listener_let_go_are_counted_by_reason() -> None:
    metrics = new_metrics()
    for listener, reason in (("control", "slow-request"), ("control", "slow-request"), ("metrics", "no-seat")):
        metrics.turned_away(listener, reason)
    turned_away = {k: v for k, v in scrape(metrics).items() if "turned_away" in k}
    assert turned_away == {
        'balancerd_http_turned_away_total{listener="control",reason="slow-request"}': 2,
        'balancerd_http_turned_away_total{listener="metrics",reason="no-seat"}': 1,
    }


def test_promtool_finds_nothing_to_say_about_the_full_catalogue() -> None:
    text = full_metrics().render()[1]
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    families = set(re.findall(r"^# TYPE (balancerd_\S+) ", text.decode(), re.MULTILINE))
    samples = text.decode()
    for family in families:
        assert re.search(rf"^{family}(_bucket)?[ {{]", samples, re.MULTILINE), f"{family} has no value"
    assert families == {metric.name for metric in catalogue()}


def test_the_catalogue_tells_of_each_metric_what_a_scrape_does() -> None:
    told = {}
    for family in text_string_to_metric_families(full_metrics().render()[1].decode()):
        if family.name.startswith("balancerd_"):
            name = f"{family.name}_total" if family.type == "counter" else family.name
            labels = {label for sample in family.samples for label in sample.labels} - {"le"}
            told[name] = (family.type, labels, family.documentation)
    assert told == {metric.name: (metric.kind, {*metric.labels}, metric.text) for metric in catalogue()}


def test_no_label_names_a_process_or_a_kubernetes_node_and_nothing_is_created() -> None:
    text = full_metrics().render()[1].decode()
    labels = {name for line in text.splitlines() for name in re.findall(r'[{,]([a-z_]+)="', line)}
    assert labels.isdisjoint({"pid", "tid", "comm", "cmdline", "address", "node", "uid"})
    assert "4242" not in text
    assert "spin" not in text
    assert "_created" not in text


def test_openmetrics_is_given_to_who_asks_for_it() -> None:
    content_type, body = full_metrics().render("application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    assert body.endswith(b"# EOF\n")
    assert full_metrics().render()[0].startswith("text/plain; version=0.0.4")


def test_two_daemons_in_one_process_do_not_share_anything() -> None:
    first, second = new_metrics(), new_metrics()
    first.emit(a_moving_report())
    assert scrape(second)['balancerd_ticks_total{outcome="success"}'] == 0
    assert not [m.name for m in prometheus_client.REGISTRY.collect() if m.name.startswith("balancerd")]


def test_scraping_while_the_loop_writes_never_shows_half_a_tick() -> None:
    metrics = new_metrics()
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            metrics.emit(a_moving_report(number, moved_pages=10, shared_pages=1))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(50):
            samples = scrape(metrics)
            ticks = samples['balancerd_ticks_total{outcome="success"}']
            assert samples['balancerd_migration_pages_total{status="moved"}'] == 10 * ticks
            assert samples['balancerd_migration_pages_total{status="eacces"}'] == ticks
    finally:
        stop.set()
        writer.join()


def test_bytes_are_told_with_their_target_and_why_they_moved() -> None:
    process = ProcessId(1, 1)
    apart = an_outcome(process, pages={PageStatus.MOVED: 30}, moved_from={2: 10, 3: 20})
    targets = {NodeId(2): NodeId(0), NodeId(3): NodeId(1)}
    command = replace(apart, step=replace(apart.step, reason=Reason.COMMAND, target_of=targets))
    metrics = new_metrics()
    metrics.emit(a_report(outcomes=(command, an_outcome(process, pages={PageStatus.MOVED: 1}))))
    assert {k: v / 4096 for k, v in scrape(metrics).items() if "migrated_bytes" in k} == {
        'balancerd_migrated_bytes_total{from_node="2",reason="command",to_node="0"}': 10,
        'balancerd_migrated_bytes_total{from_node="3",reason="command",to_node="1"}': 20,
        'balancerd_migrated_bytes_total{from_node="1",reason="misplaced",to_node="0"}': 1,
    }


def test_pages_that_were_never_submitted_are_counted_apart_from_those_that_were() -> None:
    outcome = replace(an_outcome(ProcessId(1, 1)), passed_over=dict.fromkeys((*NEVER_SUBMITTED, PageStatus.ABSENT), 5))
    metrics = new_metrics()
    metrics.emit(a_report(outcomes=(outcome,)))
    samples = scrape(metrics)
    for status in NEVER_SUBMITTED:
        assert samples[f'balancerd_migration_passed_over_pages_total{{status="{status}"}}'] == 5
        assert f'balancerd_migration_pages_total{{status="{status}"}}' not in samples
        assert f'balancerd_migration_failed_pages_total{{status="{status}"}}' not in samples
    assert samples['balancerd_migration_passed_over_pages_total{status="enoent"}'] == 5
    assert samples['balancerd_migration_pages_total{status="enoent"}'] == 0


def test_retries_stalls_and_what_verification_found_add_up() -> None:
    found = replace(make_verified(100, elsewhere=3, absent=2), on_target_pages=91, unknown_pages=4)
    outcome = replace(an_outcome(ProcessId(1, 1)), retried_pages=7, stalls=2, verified=found)
    back = RunsNow(process=ProcessId(1, 1), runs=(), total=make_verified(256, elsewhere=40))
    metrics = new_metrics()
    for _ in range(2):
        metrics.emit(a_report(outcomes=(outcome, an_outcome(ProcessId(2, 1))), returns=(back,)))
    samples = scrape(metrics)
    name = "balancerd_migration_verified_pages_total"
    results = {"on-target": 182, "elsewhere": 6, "absent": 4, "unknown": 8}
    assert {r: samples[f'{name}{{result="{r}"}}'] for r in results} == results
    assert samples["balancerd_migration_checked_pages_total"] == 512
    assert samples["balancerd_migration_returned_pages_total"] == 80
    assert samples["balancerd_migration_retried_pages_total"] == 14
    assert samples["balancerd_migration_stalls_total"] == 4


def throttled(metrics: Metrics) -> dict[str, float]:
    name = 'balancerd_migration_throttled_seconds_total{cause="'
    return {k.removeprefix(name)[:-2]: v for k, v in scrape(metrics).items() if k.startswith(name)}


def test_time_spent_waiting_is_told_by_cause_and_a_held_tick_counts_once() -> None:
    first, second = a_process(1), a_process(2)
    outcome = replace(an_outcome(first.id), throttled_seconds={"duty-cycle": 0.5, "retry": 0.1})
    evicted = replace(an_eviction_outcome(second.id), throttled_seconds={"duty-cycle": 0.25})
    metrics = new_metrics()
    metrics.emit(a_report(outcomes=(outcome,), evictions=(evicted,)))
    assert throttled(metrics) == {"duty-cycle": 0.75, "retry": 0.1}
    held = [Skip(by="plan", process=p.id, reason=Reason.PRESSURE) for p in (first, second)]
    metrics.emit(a_report(rejected=held))  # a tick of two seconds
    metrics.emit(a_report(rejected=[*held, replace(held[0], reason=Reason.COOLDOWN)]))
    assert throttled(metrics) == {"duty-cycle": 0.75, "retry": 0.1, "pressure": 4.0}


@pytest.mark.parametrize(
    ("reason", "cause"),
    [
        (Reason.MIGRATION_BUDGET, "machine-budget"),
        (Reason.PROCESS_BUDGET, "process-budget"),
        (Reason.NODE_PAIR_BUDGET, "node-pair-budget"),
    ],
)
def test_an_empty_budget_is_time_that_a_decision_waits(reason: Reason, cause: str) -> None:
    process = a_process()
    skip = Skip(by="plan", process=process.id, reason=reason)
    metrics = new_metrics()
    metrics.emit(
        a_report(processes=(a_process_report(process, verdicts=(a_decision(process.id), skip)),), rejected=[skip])
    )
    assert throttled(metrics) == {cause: 2.0}


def test_evictions_are_counted_with_what_stayed() -> None:
    process = a_process()
    seen = a_process_report(process, verdicts=(an_eviction(process.id),))
    outcomes = (an_eviction_outcome(process.id), an_eviction_outcome(process.id, cold_only=True))
    skip = Skip(by="plan", process=process.id, reason=Reason.MIGRATION_BUDGET)
    metrics = new_metrics()
    metrics.emit(a_report(processes=(seen,), evictions=outcomes))
    metrics.emit(a_report(processes=(seen,), rejected=[skip]))
    samples = scrape(metrics)
    assert samples["balancerd_evicted_bytes_total"] == 900 * 4096
    assert samples["balancerd_eviction_kept_bytes_total"] == 100 * 4096
    assert samples['balancerd_decisions_total{action="evict",policy="home"}'] == 2
    assert samples['balancerd_decisions_suppressed_total{policy="home",reason="migration-budget"}'] == 1
    assert throttled(metrics) == {"evict-budget": 2.0}


def test_pressure_is_told_where_the_kernel_tells_it() -> None:
    metrics = new_metrics()
    metrics.emit(a_report(pressure=Pressure(cpu_ratio=None, memory_ratio=0.125)))
    gauges = {k: v for k, v in scrape(metrics).items() if "pressure_ratio" in k}
    assert gauges == {'balancerd_pressure_ratio{resource="memory"}': 0.125}


def test_every_other_manager_has_a_value_always_and_those_of_processes_a_count() -> None:
    metrics = new_metrics()
    report = a_moving_report()
    metrics.emit(report)
    quiet = scrape(metrics)
    assert {quiet[f'balancerd_conflicting_manager_active{{manager="{manager.value}"}}'] for manager in Manager} == {0.0}
    numad = ManagerFinding(manager=Manager.NUMAD, active=True, detail="running with pid 7", pids=(7,))
    guest = a_process_report(replace(a_process(), manager=Manager.LIBVIRT))
    metrics.emit(replace(report, survey=replace(report.survey, managers=(numad,)), processes=(guest,)))
    samples = scrape(metrics)
    active = {m for m in Manager if samples[f'balancerd_conflicting_manager_active{{manager="{m.value}"}}']}
    assert active == {Manager.NUMAD, Manager.LIBVIRT}
    assert samples['balancerd_managed_processes{manager="libvirt"}'] == 1
    assert samples['balancerd_managed_processes{manager="affinity"}'] == 0
    assert 'balancerd_managed_processes{manager="numad"}' not in samples


def test_each_part_that_a_policy_wants_is_pending_less_what_was_moved_to_its_node() -> None:
    process = a_process()
    wanted = tuple(a_decision(process.id, target=n, misplaced_bytes=10 * MIB) for n in (0, 1))
    moved = tuple(
        an_outcome(process.id, target=n, pages={PageStatus.MOVED: pages}) for n, pages in ((0, 256), (1, 512))
    )
    metrics = new_metrics()
    metrics.emit(replace(a_moving_report(), verdicts=wanted, outcomes=moved))
    assert scrape(metrics)['balancerd_plan_pending_bytes{policy="home"}'] == 17 * MIB
