"""The door of a listener: clients are heard out here, and answers leave from here, so that none of them holds a thread.

Owns the connections, their bounds, and one thread for all of them. What is whole goes to those who answer, few at a
time and by turns; what they answer comes back and is sent as fast as the client reads. A client that is not whole, or
has not read its answer, within the time given is let go, and sooner when its seat is needed: whoever has been waited
for longest goes first. It must not know HTTP beyond where a request ends (see whole), nor who answers.
"""

import contextlib
import functools
import os
import select
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from enum import StrEnum, unique
from typing import Final

from balancerd.control.allowance import Allowance
from balancerd.control.caller import Caller
from balancerd.control.credentials import read_peer
from balancerd.control.taking import Taker
from balancerd.control.turns import Turns
from balancerd.control.whole import CONTINUE, awaits_continue, measure

ACCEPTED_AT_ONCE: Final = 32
LONGEST_PAUSE_SECONDS: Final = 0.1
"""Of the thread that has used more than its allowance: a stop is noticed as soon."""


@unique
class TurnedAway(StrEnum):
    """Why a client was let go before it had what it came for."""

    SLOW_REQUEST = "slow-request"
    SLOW_READER = "slow-reader"
    NO_SEAT = "no-seat"
    TOO_MUCH_UNREAD = "too-much-unread"
    NOT_HTTP = "not-http"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What clients may have of a listener: `each` is for those who are the same, by address or user."""

    body_bytes: int
    head_bytes: int = 8192
    request_seconds: float = 5.0
    """For a request from its first byte, or the end of the answer before, to its last."""
    answer_seconds: float = 5.0
    """For reading an answer."""
    seats: int = 256
    seats_each: int = 224
    unread_bytes: int = 16 << 20
    """Of all answers that wait to be read; a single one may be larger."""
    answering: int = 3
    """Requests that are answered at a time."""


class Door:
    """Serves `listener` from start() to stop(), which closes it.

    `answer(caller)` is called with a caller whose request is whole, must return at once, and is followed by told() in
    any thread. While `answers` is in debt nobody is called, and while `own` is, nobody is heard. `turned_away(reason)`
    counts; `give_way()` returns when nobody is disturbed by what comes next; `on_error()` is called where an exception
    is at hand that nobody expected.
    """

    def __init__(
        self,
        listener: socket.socket,
        *,
        bounds: Bounds,
        answer: Callable[[Caller], None],
        answers: Allowance,
        own: Allowance,
        turned_away: Callable[[TurnedAway], None],
        give_way: Callable[[], None],
        on_error: Callable[[], None],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._listener, self._bounds, self._answer, self._now = listener, bounds, answer, now
        self._answers, self._own, self._turned_away = answers, own, turned_away
        self._on_error, self._give_way = on_error, give_way
        self._has_peers = listener.family == socket.AF_UNIX
        self._epoll = select.epoll()
        self._watched: dict[int, Callable[[int], None]] = {}
        """By descriptor, what to call with the events when something happens."""
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._lock = threading.Lock()
        """Between told() and the end, after which the number of the descriptor may be another's."""
        self._told: deque[tuple[Caller, Iterable[bytes], bool, Taker | None]] = deque()
        self._callers: set[Caller] = set()
        self._seats: Counter[Hashable] = Counter()
        """By who has them."""
        self._unheard: dict[Caller, None] = {}
        """Those who are not whole yet, who has been waited for longest first."""
        self._unread: dict[Caller, None] = {}
        """Those who have not read their answers, likewise."""
        self._unread_bytes = 0
        self._whole: Turns[Caller] = Turns()
        self._parting: Turns[Caller] = Turns()
        """Those who are whole, too, and have closed their end: most have gone altogether."""
        self._n_answering = 0
        self._is_open = False
        self._is_closing = self._is_over = False

    def serve(self) -> None:
        """Serve in this thread, until stop()."""
        self._listener.setblocking(False)
        self._watch(self._wake_fd, select.EPOLLIN, self._look_up)
        self._open()
        try:
            while not self._is_over:
                begin = time.thread_time()
                try:
                    self._do_round()
                except Exception:  # noqa: BLE001 -- there is no other door: it stays open whatever a round meets
                    self._on_error()
                self._own.charge(time.thread_time() - begin)
                self._pause()
        finally:
            self._end()

    def told(self, caller: Caller, pieces: Iterable[bytes], *, stays: bool, taker: Taker | None = None) -> None:
        """Take what is to be sent to a caller, which may ask again when it `stays`; for `taker` see taking.

        For any thread.
        """
        self._told.append((caller, pieces, stays, taker))
        self._wake()

    def close(self) -> None:
        """Let nobody in any more, and those go who are not being answered yet. For any thread."""
        self._is_closing = True
        self._wake()

    def stop(self) -> None:
        """Let everybody go, and end serve(). For any thread."""
        self._is_over = True
        self._wake()

    def _wake(self) -> None:
        with self._lock, contextlib.suppress(BlockingIOError):  # the counter is full, so the thread is awake
            if self._wake_fd >= 0:
                os.eventfd_write(self._wake_fd, 1)

    def _do_round(self) -> None:
        happened = self._epoll.poll(self._patience_seconds())
        self._give_way()
        for descriptor, events in happened:
            if descriptor in self._watched:  # else it was let go in this round
                self._watched[descriptor](events)
        self._take_answers()
        self._let_overdue_go()
        if self._is_closing:
            self._close()
        self._call_next()

    def _pause(self) -> None:
        """Do nothing while more was used than the allowance."""
        while (seconds := self._own.wait_seconds()) and not self._is_over:
            time.sleep(min(seconds, LONGEST_PAUSE_SECONDS))

    def _look_up(self, _events: int) -> None:
        os.eventfd_read(self._wake_fd)

    def _patience_seconds(self) -> float | None:
        """Return when there is something to do though nothing happens; None: never."""
        now, waits = self._now(), []
        for waited_for, seconds in self._deadlines():
            if waited_for:
                waits.append(next(iter(waited_for)).since + seconds - now)
        if self._is_somebody_next():
            waits.append(self._answers.wait_seconds())
        return max(0.0, min(waits)) if waits else None

    def _deadlines(self) -> tuple[tuple[dict[Caller, None], float], ...]:
        return (self._unheard, self._bounds.request_seconds), (self._unread, self._bounds.answer_seconds)

    def _watch(self, descriptor: int, events: int, act: Callable[[int], None]) -> None:
        """Have `act(events)` called on these events, and when the connection breaks, instead of what was before."""
        change = self._epoll.modify if descriptor in self._watched else self._epoll.register
        change(descriptor, events)
        self._watched[descriptor] = act

    def _unwatch(self, descriptor: int) -> None:
        if self._watched.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    # who comes in

    def _open(self) -> None:
        if not (self._is_open or self._is_closing):
            self._watch(self._listener.fileno(), select.EPOLLIN, self._let_in)
            self._is_open = True

    def _shut(self) -> None:
        if self._is_open:
            self._unwatch(self._listener.fileno())
            self._is_open = False

    def _let_in(self, _events: int) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            if self._is_full() and not (self._parting or self._unheard or self._unread):
                self._shut()  # until somebody leaves; the kernel holds those who come
                return
            try:
                connection, address = self._listener.accept()
            except BlockingIOError:
                return
            except ConnectionAbortedError:
                continue
            except OSError:  # no descriptor is left, or no memory
                self._make_room()
                return
            if self._is_full():
                self._make_room()
            self._seat(connection, address)

    def _is_full(self) -> bool:
        return len(self._callers) >= self._bounds.seats

    def _seat(self, connection: socket.socket, address: object) -> None:
        connection.setblocking(False)
        peer = read_peer(connection) if self._has_peers else None
        who = (None if peer is None else peer.uid) if self._has_peers else _host(address)
        if self._seats[who] >= self._bounds.seats_each and not self._make_room(who):
            self._turned_away(TurnedAway.NO_SEAT)
            connection.close()
            return
        caller = Caller(connection, who=who, peer=peer, since=self._now())
        self._callers.add(caller)
        self._seats[who] += 1
        self._await(caller)
        self._hear(caller, select.EPOLLIN)  # it has mostly sent everything by now, and so is never in the way

    def _make_room(self, who: Hashable = ...) -> bool:
        """Let go one that seems gone, or whom the door has waited for longest, of `who` if given; False: nobody."""
        for in_the_way in (self._parting, self._unheard, self._unread):
            found = next((caller for caller in in_the_way if who in {..., caller.who}), None)
            if found is not None:
                self._let_go(found, TurnedAway.NO_SEAT)
                return True
        return False

    # what they say

    def _await(self, caller: Caller) -> None:
        """Wait for a request."""
        caller.since, caller.request, caller.may_go_on = self._now(), None, False
        self._unheard[caller] = None
        self._watch(caller.connection.fileno(), select.EPOLLIN, functools.partial(self._hear, caller))

    def _hear(self, caller: Caller, _events: int) -> None:
        if caller.hear(self._bounds.head_bytes + self._bounds.body_bytes + 1):
            self._judge(caller)
        else:
            self._let_go(caller)

    def _judge(self, caller: Caller) -> None:
        """See whether a request is whole; then its client waits for its turn."""
        bounds = self._bounds
        caller.request = measure(caller.heard, most_head_bytes=bounds.head_bytes, most_body_bytes=bounds.body_bytes)
        if caller.request is not None:
            del self._unheard[caller]
            self._whole.add(caller.who, caller)
            self._watch(caller.connection.fileno(), select.EPOLLRDHUP, functools.partial(self._lose, caller))
        elif not caller.may_go_on and awaits_continue(caller.heard):
            caller.may_go_on = True
            with contextlib.suppress(OSError):
                caller.connection.send(CONTINUE)

    def _lose(self, caller: Caller, events: int) -> None:
        """Let go whose connection broke before its turn; who only says no more may read still, but others go first."""
        if events & (select.EPOLLHUP | select.EPOLLERR):
            self._let_go(caller)
            return
        self._whole.discard(caller.who, caller)
        self._parting.add(caller.who, caller)
        self._watch(caller.connection.fileno(), 0, functools.partial(self._lose, caller))

    def _call_next(self) -> None:
        while self._is_somebody_next() and not self._answers.wait_seconds():
            caller = self._whole.take() if self._whole else self._parting.take()
            self._unwatch(caller.connection.fileno())
            self._n_answering += 1
            self._answer(caller)

    def _is_somebody_next(self) -> bool:
        return bool(self._whole or self._parting) and self._n_answering < self._bounds.answering

    # what they are told

    def _take_answers(self) -> None:
        while self._told:
            caller, pieces, stays, taker = self._told.popleft()
            self._n_answering -= 1
            caller.will_tell(pieces, stays=stays, taker=taker)
            caller.since = self._now()
            self._unread[caller] = None
            self._unread_bytes += caller.unsent_bytes
            self._tell(caller, select.EPOLLOUT)
            if caller in self._unread:
                self._watch(caller.connection.fileno(), select.EPOLLOUT, functools.partial(self._tell, caller))
        while self._unread_bytes > self._bounds.unread_bytes and len(self._unread) > 1:
            self._let_go(next(iter(self._unread)), TurnedAway.TOO_MUCH_UNREAD)

    def _tell(self, caller: Caller, _events: int) -> None:
        before = caller.unsent_bytes
        is_there = caller.tell()
        self._unread_bytes -= before - caller.unsent_bytes
        if not is_there:
            self._let_go(caller)
        elif not caller.unsent_bytes:
            self._finish(caller)

    def _finish(self, caller: Caller) -> None:
        """Go on with a client that has its answer."""
        if caller.taker is not None:
            self._unseat(caller)
            caller.taker(caller.connection)
        elif caller.stays and not self._is_closing:
            del self._unread[caller]
            self._await(caller)
            self._judge(caller)
        else:
            self._let_go(caller)

    # who leaves

    def _let_overdue_go(self) -> None:
        now = self._now()
        reasons = TurnedAway.SLOW_REQUEST, TurnedAway.SLOW_READER
        for (waited_for, seconds), reason in zip(self._deadlines(), reasons, strict=True):
            while waited_for:
                caller = next(iter(waited_for))
                if caller.since + seconds > now:
                    break
                self._let_go(caller, reason)

    def _let_go(self, caller: Caller, reason: TurnedAway | None = None) -> None:
        is_idle = caller.was_answered and not (caller.heard or caller.unsent_bytes)
        if reason is not None and not is_idle:
            self._turned_away(reason)
        self._unseat(caller)
        if caller.taker is None:
            caller.connection.close()
            return
        with contextlib.suppress(OSError):
            caller.connection.shutdown(socket.SHUT_RDWR)  # it lacks a part of the answer
        caller.taker(caller.connection)

    def _unseat(self, caller: Caller) -> None:
        self._unheard.pop(caller, None)
        if caller in self._unread:
            del self._unread[caller]
            self._unread_bytes -= caller.unsent_bytes
        for waiting in (self._whole, self._parting):
            waiting.discard(caller.who, caller)
        self._unwatch(caller.connection.fileno())
        self._callers.discard(caller)
        self._seats[caller.who] -= 1
        if not self._seats[caller.who]:
            del self._seats[caller.who]
        self._open()

    def _close(self) -> None:
        self._shut()
        self._listener.close()
        for caller in (*self._unheard, *self._whole, *self._parting):
            self._let_go(caller)

    def _end(self) -> None:
        self._is_closing = True
        self._close()
        for caller in tuple(self._callers):
            self._let_go(caller)
        self._epoll.close()
        with self._lock:
            os.close(self._wake_fd)
            self._wake_fd = -1


def _host(address: object) -> Hashable:
    return address[0] if isinstance(address, tuple) else None
