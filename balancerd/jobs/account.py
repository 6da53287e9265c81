"""Sums over slices: of a job's account, and of what a tick's report tells of it. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TypeVar

from balancerd.jobs.record import Account
from balancerd.model.migration import EvictionOutcome, MigrationOutcome, Verified

K = TypeVar("K")


def add_migration(account: Account, outcome: MigrationOutcome) -> Account:
    """Return the account with one more slice of moving in it."""
    return replace(
        _add_calls(account, outcome.call_seconds, outcome.throttled_seconds),
        looked_pages=account.looked_pages + outcome.looked_pages,
        on_target_pages=account.on_target_pages + outcome.on_target_pages,
        passed_over=_sum(account.passed_over, outcome.passed_over),
        submitted_pages=account.submitted_pages + outcome.submitted_pages,
        pages=_sum(account.pages, outcome.pages),
        moved_from=_sum(account.moved_from, outcome.moved_from),
        retried_pages=account.retried_pages + outcome.retried_pages,
        verified=add_verified(account.verified, outcome.verified),
        stalls=account.stalls + outcome.stalls,
    )


def add_eviction(account: Account, outcome: EvictionOutcome) -> Account:
    """Return the account with one more slice of evicting in it."""
    return replace(
        _add_calls(account, outcome.call_seconds, outcome.throttled_seconds),
        looked_pages=account.looked_pages + outcome.looked_pages,
        absent_pages=account.absent_pages + outcome.absent_pages,
        other_pages=account.other_pages + outcome.other_pages,
        advised_pages=account.advised_pages + outcome.advised_pages,
        evicted_pages=account.evicted_pages + outcome.evicted_pages,
        kept_pages=account.kept_pages + outcome.kept_pages,
    )


def add_waiting(account: Account, cause: str, seconds: float) -> Account:
    """Return the account with some time in it that the job spent waiting."""
    return replace(account, throttled_seconds=_sum_seconds(account.throttled_seconds, {cause: seconds}))


def add_verified(one: Verified | None, other: Verified | None) -> Verified | None:
    """Return the sum of two verifications; None is one that was not made."""
    if one is None or other is None:
        return one or other
    return Verified(
        asked_pages=one.asked_pages + other.asked_pages,
        on_target_pages=one.on_target_pages + other.on_target_pages,
        elsewhere_pages=one.elsewhere_pages + other.elsewhere_pages,
        absent_pages=one.absent_pages + other.absent_pages,
        unknown_pages=one.unknown_pages + other.unknown_pages,
    )


def merge_migrations(outcomes: Iterable[MigrationOutcome]) -> MigrationOutcome:
    """Return slices of one move as one outcome: the sums, how the last one ended, and no runs. ValueError for none."""
    slices = tuple(outcomes)
    if not slices:
        raise ValueError("no slices")
    last = slices[-1]
    total = Account()
    for each in slices:
        total = add_migration(total, each)
    return replace(
        last,
        step=replace(slices[0].step, budget_bytes=sum(each.step.budget_bytes for each in slices)),
        looked_pages=total.looked_pages,
        on_target_pages=total.on_target_pages,
        passed_over=total.passed_over,
        submitted_pages=total.submitted_pages,
        pages=total.pages,
        moved_from=total.moved_from,
        call_seconds=tuple(seconds for each in slices for seconds in each.call_seconds),
        query_seconds=sum(each.query_seconds for each in slices),
        retried_pages=total.retried_pages,
        moved_runs=(),
        failed_runs=(),
        unrecorded_pages=0,
        whole_folios=sum(each.whole_folios for each in slices),
        throttled_seconds=total.throttled_seconds,
        stalls=total.stalls,
        verified=total.verified,
    )


def merge_evictions(outcomes: Iterable[EvictionOutcome]) -> EvictionOutcome:
    """Return slices of one eviction as one outcome: the sums, and how the last one ended. ValueError for none."""
    slices = tuple(outcomes)
    if not slices:
        raise ValueError("no slices")
    total = Account()
    for each in slices:
        total = add_eviction(total, each)
    return replace(
        slices[-1],
        step=replace(slices[0].step, budget_bytes=sum(each.step.budget_bytes for each in slices)),
        looked_pages=total.looked_pages,
        absent_pages=total.absent_pages,
        other_pages=total.other_pages,
        advised_pages=total.advised_pages,
        evicted_pages=total.evicted_pages,
        kept_pages=total.kept_pages,
        call_seconds=tuple(seconds for each in slices for seconds in each.call_seconds),
        query_seconds=sum(each.query_seconds for each in slices),
        throttled_seconds=total.throttled_seconds,
    )


def _add_calls(account: Account, call_seconds: tuple[float, ...], throttled_seconds: Mapping[str, float]) -> Account:
    before = () if account.longest_call_seconds is None else (account.longest_call_seconds,)
    return replace(
        account,
        calls=account.calls + len(call_seconds),
        longest_call_seconds=max((*call_seconds, *before), default=None),
        call_seconds=account.call_seconds + sum(call_seconds),
        throttled_seconds=_sum_seconds(account.throttled_seconds, throttled_seconds),
    )


def _sum(one: Mapping[K, int], other: Mapping[K, int]) -> dict[K, int]:
    return dict(Counter(one) + Counter(other))


def _sum_seconds(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    return {cause: one.get(cause, 0.0) + other.get(cause, 0.0) for cause in (*one, *(c for c in other if c not in one))}
