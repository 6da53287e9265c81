"""What a moving call costs that moves nothing."""

from balancerd.native import idle_call


def test_an_idle_call_takes_a_while_and_not_long() -> None:
    assert 0 < idle_call() < 1
