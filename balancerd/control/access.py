"""Who may ask on the control socket, judged by the credentials that the kernel vouches for, see unix(7).

Owns the rule; pure. The mode of the socket keeps most others out already: this is the second door. It must not know
how credentials are read.
"""

from dataclasses import dataclass

ROOT = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """The process at the other end of a unix socket at the moment it connected: SO_PEERCRED and SO_PEERGROUPS."""

    uid: int
    gid: int
    groups: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Root and the daemon's own user may do everything; None: there is no such group.

    Members of `changer_gid` may do everything, too, and members of `reader_gid` may read.
    """

    own_uid: int
    reader_gid: int | None
    changer_gid: int | None = None

    def may_change(self, peer: Peer) -> bool:
        """Return whether the peer may have the daemon do something."""
        return peer.uid in {ROOT, self.own_uid} or _is_member(peer, self.changer_gid)

    def may_read(self, peer: Peer) -> bool:
        """Return whether the peer may see what the daemon sees: command names and addresses of everyone."""
        return self.may_change(peer) or _is_member(peer, self.reader_gid)


def _is_member(peer: Peer, gid: int | None) -> bool:
    return gid is not None and gid in {peer.gid, *peer.groups}
