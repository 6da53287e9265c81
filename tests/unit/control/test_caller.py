"""One connection as the door sees it: how much of what a client sends is taken."""

import socket

from balancerd.control.caller import Caller


def test_no_more_is_taken_of_a_client_than_it_may_have_sent_in_all() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        caller = Caller(ours, who="x", peer=None, since=0.0)
        theirs.sendall(b"x" * 60)
        assert caller.hear(100)
        theirs.sendall(b"x" * 1000)
        assert caller.hear(100)
        assert len(caller.heard) == 100
