"""Who may read and who may change."""

import pytest

from balancerd.control.access import Access, Peer

DAEMON, GROUP, CHANGERS = 990, 880, 881


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


@pytest.mark.parametrize("reader_gid", [None, GROUP])
def test_members_of_the_group_that_may_change_do_everything_too(reader_gid: int | None) -> None:
    access = Access(own_uid=DAEMON, reader_gid=reader_gid, changer_gid=CHANGERS)
    changer = Peer(uid=1000, gid=5, groups=frozenset({6, CHANGERS}))
    assert (access.may_read(changer), access.may_change(changer)) == (True, True)
    assert not access.may_change(Peer(uid=1000, gid=GROUP))
    assert not access.may_read(Peer(uid=1000, gid=6))
