"""Who may read and who may change."""

import pytest

from balancerd.control.access import Access, Peer

DAEMON, GROUP = 990, 880


@pytest.mark.parametrize(
    ("peer", "reader_gid", "read", "change"),
    [
        (Peer(uid=0, gid=0), None, True, True),
        (Peer(uid=DAEMON, gid=5), None, True, True),
        (Peer(uid=1000, gid=GROUP), GROUP, True, False),
        (Peer(uid=1000, gid=5, groups=frozenset({GROUP, 6})), GROUP, True, False),
        (Peer(uid=1000, gid=5, groups=frozenset({6})), GROUP, False, False),
        (Peer(uid=1000, gid=GROUP), None, False, False),
        (Peer(uid=1000, gid=0, groups=frozenset({0})), None, False, False),
        (Peer(uid=1000, gid=0), 0, True, False),
    ],
)
def test_root_and_the_daemon_do_everything_and_the_group_reads(
    peer: Peer, reader_gid: int | None, read: bool, change: bool
) -> None:
    access = Access(own_uid=DAEMON, reader_gid=reader_gid)
    assert (access.may_read(peer), access.may_change(peer)) == (read, change)
