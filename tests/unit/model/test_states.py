"""One word for what is done about a process, wherever it is told."""

import pytest

from balancerd.cli import words
from balancerd.model.decision import ACTION_REASONS, Reason
from balancerd.model.states import SKIPPED_STATES, STATES


def test_every_reason_means_a_state_and_what_acts_is_moving() -> None:
    assert set(STATES) == set(Reason)
    assert {reason for reason, state in STATES.items() if state == "moving"} == set(ACTION_REASONS)
    assert set(STATES.values()) > SKIPPED_STATES


@pytest.mark.parametrize(
    ("reason", "state", "is_skipped"),
    [
        (Reason.MISPLACED, "moving", False),
        (Reason.COOLDOWN, "held", False),
        (Reason.WELL_PLACED, "well-placed", False),
        (Reason.GAIN_BELOW_COST, "not-worth", False),
        (Reason.NO_HOME, "no-home", False),
        (Reason.NOT_SAMPLED, "unsampled", False),
        (Reason.BELOW_MIN_CPU, "unselected", True),
        (Reason.NEVER, "excluded", True),
        (Reason.BELOW_MIN_RSS, "small", True),
        (Reason.NO_ACCESS, "unreadable", True),
        (Reason.KERNEL_THREAD, "kernel-thread", True),
    ],
)
def test_commands_say_the_same_word_and_hide_who_is_no_candidate(reason: Reason, state: str, is_skipped: bool) -> None:
    assert words.state(reason.value) == state
    assert words.is_skipped(state) is is_skipped
