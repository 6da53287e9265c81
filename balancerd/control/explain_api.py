"""Why a process is treated as it is, down to the line of the configuration: parts of GET /v1/processes/PID.

    verdicts    each has besides: setting (the key of the configuration behind it, such as "select.min_rss" or
                "policies.home", null for none), at ("FILE:LINE" where that is written; null: a default), and those that
                leave it alone needs (what would have to change, "" when it is not known), wanted (null, or what the
                policy would do otherwise: {target, misplaced_bytes, gain_cores, cost_seconds})
    policies    of the stack, in their order: [{name, kind, observing, at, disabled (a sentence, or null), verdicts (how
                many of those above are its)}]
    judged      null, or what the last move of it that was judged came to: {age_seconds, policy, to, result ("improved",
                "neutral", "worse"), moved_bytes, fallen_bytes, is_trial, detail}
    deciding    null, or which verdict gives the reason: {by, reason, setting, at, needs}

Pure. It must not know HTTP.
"""

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from balancerd.config.places import Places
from balancerd.control.state import View
from balancerd.model.decision import Reason, Skip, Verdict
from balancerd.model.ids import ProcessId
from balancerd.model.report import ProcessReport

Json: TypeAlias = dict[str, Any]

SETTING_OF: Final[Mapping[Reason, str]] = {
    Reason.BELOW_MIN_RSS: "select.min_rss",
    Reason.BELOW_MIN_AGE: "select.min_age",
    Reason.BELOW_MIN_CPU: "select.min_cpu",
    Reason.SCAN_BUDGET: "select.scan_budget",
    Reason.NOT_INCLUDED: "select.include",
    Reason.BLOCKED: "select.read_timeout",
    Reason.MANAGED: "yield_to",
    Reason.OTHER_MANAGER: "yield_to",
    Reason.COOLDOWN: "migrate.cooldown",
    Reason.STALLED: "migrate.stall_limit",
    Reason.TARGET_FULL: "migrate.watermark",
    Reason.MIGRATION_BUDGET: "migrate.rate_limit",
    Reason.PROCESS_BUDGET: "migrate.process_rate_limit",
    Reason.NODE_PAIR_BUDGET: "migrate.node_pair_rate_limit",
    Reason.NO_SWAP: "evict.max_swap_used",
    Reason.OBSERVE_MODE: "mode",
}
"""What an operator would change, of the settings that are no policy's."""

OPTION_OF: Final[Mapping[Reason, str]] = {
    Reason.HOME_TOO_YOUNG: "min_home_age",
    Reason.SEVERAL_HOMES: "home_share",
    Reason.NOT_MATCHED: "match",
}
"""The same of options of a policy, where they are written."""


def why(verdict: Verdict, places: Places) -> Json:
    """Return what is told of a verdict beside what it says."""
    setting, at = _setting(verdict, places)
    told: Json = {"setting": setting, "at": at}
    if isinstance(verdict, Skip):
        wanted = verdict.wanted
        told["needs"] = verdict.needs
        told["wanted"] = (
            None
            if wanted is None
            else {
                "target": wanted.target,
                "misplaced_bytes": wanted.misplaced_bytes,
                "gain_cores": round(wanted.gain_cores, 6),
                "cost_seconds": round(wanted.cost_seconds, 6),
            }
        )
    return told


def policies(view: View, report: ProcessReport) -> list[Json]:
    """Return the stack, and how much each policy of it said of a process."""
    disabled = {} if view.report is None else view.report.disabled_policies
    return [
        {
            "name": policy.name,
            "kind": policy.kind,
            "observing": policy.observing,
            "at": policy.place,
            "disabled": disabled[policy.name].detail if policy.name in disabled else None,
            "verdicts": sum(_by(verdict) == policy.name for verdict in report.verdicts),
        }
        for policy in view.places.policies
    ]


def deciding(view: View, report: ProcessReport) -> Json | None:
    """Return the verdict that gives the reason; None when none does, as when a step of its move ended early."""
    found = [v for v in report.verdicts if v.reason is report.reason and v.detail == report.detail]
    found = found or [v for v in report.verdicts if v.reason is report.reason]
    if not found:
        return None
    verdict = found[-1]
    setting, at = _setting(verdict, view.places)
    return {
        "by": _by(verdict),
        "reason": verdict.reason.value,
        "setting": setting,
        "at": at,
        "needs": verdict.needs if isinstance(verdict, Skip) else "",
    }


def judged(view: View, process: ProcessId, now: float) -> Json | None:
    """Return what the last move of a process came to."""
    found = next((each for each in reversed(view.judged) if each.process == process), None)
    if found is None:
        return None
    return {
        "age_seconds": round(max(0.0, now - found.at), 6),
        "policy": found.policy,
        "to": found.target,
        "result": found.result.value,
        "moved_bytes": found.moved_bytes,
        "fallen_bytes": found.fallen_bytes,
        "is_trial": found.is_trial,
        "detail": found.detail,
    }


def _by(verdict: Verdict) -> str:
    return verdict.by if isinstance(verdict, Skip) else verdict.policy


def _setting(verdict: Verdict, places: Places) -> tuple[str | None, str | None]:
    """Return the key behind a verdict, and where it is written."""
    by, reason, named = _by(verdict), verdict.reason, verdict.detail.partition(": ")[0]
    if by in places.by_name:
        rule = named.removeprefix(f"{by}.") if named.startswith(f"{by}.") else OPTION_OF.get(reason, "")
        at = places.of_policy(by, rule) if rule else None
        return (f"policies.{by}.{rule}" if rule else f"policies.{by}"), at or places.of_policy(by)
    if reason is Reason.EXCLUDED:
        return named, places.of_setting(named)
    if reason is Reason.PRESSURE:
        setting = "migrate.max_memory_pressure" if named.startswith("memory") else "migrate.max_cpu_pressure"
        return setting, places.of_setting(setting)
    key = SETTING_OF.get(reason)
    return key, None if key is None else places.of_setting(key)
