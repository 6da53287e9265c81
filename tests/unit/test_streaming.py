"""The newest item for a bounded number of listeners: what is missed, what is rendered, what ends a stream."""

import threading
from collections.abc import Callable

import pytest

from balancerd.streaming import KEEP_ALIVE, PREAMBLE, Broadcast, EventStream, FullError, Renderer, Told


def told(number: int, item: str, missed: int = 0) -> Told[str]:
    return Told(number=number, missed=missed, item=item)


def a_stream(
    broadcast: Broadcast[str],
    *,
    is_gone: Callable[[], bool] = lambda: False,
    data: Callable[[Told[str]], str] = lambda told: f"{told.item}-{told.missed}",
    keep_alive_seconds: float = 15.0,
    look_seconds: float = 5.0,
) -> EventStream[str]:
    return EventStream(
        broadcast.join(),
        event="tick",
        data=data,
        is_gone=is_gone,
        keep_alive_seconds=keep_alive_seconds,
        look_seconds=look_seconds,
    )


def test_a_listener_gets_the_newest_at_once_and_then_each_once() -> None:
    broadcast: Broadcast[str] = Broadcast(most_listeners=2)
    early = broadcast.join()
    assert early.wait(0.0) is None
    broadcast.publish("a")
    assert early.wait(0.0) == told(1, "a")
    assert early.wait(0.0) is None
    broadcast.publish("b")
    late = broadcast.join()
    assert late.wait(0.0) == told(2, "b")
    assert early.wait(0.0) == told(2, "b")


def test_a_slow_listener_gets_the_newest_and_how_many_it_missed() -> None:
    broadcast: Broadcast[str] = Broadcast(most_listeners=1)
    listener = broadcast.join()
    for item in "abcde":
        broadcast.publish(item)
        if item == "a":
            assert listener.wait(0.0) == told(1, "a")
    assert listener.wait(0.0) == told(5, "e", missed=3)
    broadcast.publish("f")
    assert listener.wait(0.0) == told(6, "f")


def test_no_more_listen_than_may_and_a_seat_that_is_left_is_free_once() -> None:
    broadcast: Broadcast[str] = Broadcast(most_listeners=2)
    first, _second = broadcast.join(), broadcast.join()
    with pytest.raises(FullError):
        broadcast.join()
    first.leave()
    first.leave()
    assert broadcast.listeners == 1
    broadcast.join()
    with pytest.raises(FullError):
        broadcast.join()


def test_who_waits_is_woken_by_an_item_and_by_the_end() -> None:
    broadcast: Broadcast[str] = Broadcast(most_listeners=1)
    listener = broadcast.join()
    heard: list[Told[str] | None] = []
    got = threading.Event()

    def listen() -> None:
        heard.append(listener.wait(60.0))
        got.set()
        heard.append(listener.wait(60.0))

    thread = threading.Thread(target=listen)
    thread.start()
    broadcast.publish("a")
    assert got.wait(10)
    broadcast.close()
    thread.join(10)
    assert not thread.is_alive()
    assert heard == [told(1, "a"), None]
    assert listener.is_over
    with pytest.raises(FullError):
        broadcast.join()


def test_an_item_is_rendered_once_for_each_key_and_the_one_before_is_forgotten() -> None:
    made: list[tuple[str, str]] = []

    def render(item: str, key: str) -> str:
        made.append((item, key))
        return item + key

    renderer = Renderer(render)
    answers = [renderer(told(n, item), key) for n, item, key in [(1, "a", "x"), (1, "a", "x"), (1, "a", "y")]]
    assert (answers, made) == (["ax", "ax", "ay"], [("a", "x"), ("a", "y")])
    assert [renderer(told(2, "b"), "x"), renderer(told(2, "b"), "x")] == ["bx", "bx"]
    assert renderer(told(1, "a"), "x") == "ax"  # one that came late
    assert renderer(told(2, "b"), "x") == "bx"
    assert made == [("a", "x"), ("a", "y"), ("b", "x"), ("a", "x")]


def test_publishing_waits_for_no_rendering_that_is_going_on() -> None:
    broadcast: Broadcast[str] = Broadcast(most_listeners=1)
    rendering, go_on = threading.Event(), threading.Event()

    def data(told: Told[str]) -> str:
        rendering.set()
        assert go_on.wait(10)
        return told.item

    stream = a_stream(broadcast, data=data)
    chunks = iter(stream)
    assert next(chunks) == PREAMBLE
    broadcast.publish("a")
    got: list[bytes] = []
    thread = threading.Thread(target=lambda: got.append(next(chunks)))
    thread.start()
    assert rendering.wait(10)
    broadcast.publish("b")  # would hang, were a lock held
    go_on.set()
    thread.join(10)
    assert got == [b"id: 1\nevent: tick\ndata: a\n\n"]
    assert next(chunks) == b"id: 2\nevent: tick\ndata: b\n\n"


def test_events_are_framed_with_their_number_and_name() -> None:
    broadcast: Broadcast[str] = Broadcast(most_listeners=1)
    chunks = iter(a_stream(broadcast))
    assert next(chunks) == PREAMBLE
    broadcast.publish("a")
    assert next(chunks) == b"id: 1\nevent: tick\ndata: a-0\n\n"
    broadcast.publish("b")
    broadcast.publish("c")
    assert next(chunks) == b"id: 3\nevent: tick\ndata: c-1\n\n"


def test_a_quiet_stream_says_that_it_is_there_and_looks_more_often_whether_the_client_is() -> None:
    broadcast: Broadcast[str] = Broadcast(most_listeners=1)
    looks: list[None] = []

    def is_gone() -> bool:
        looks.append(None)
        return len(looks) > 7

    stream = a_stream(broadcast, is_gone=is_gone, keep_alive_seconds=0.003, look_seconds=0.001)
    assert list(stream) == [PREAMBLE, KEEP_ALIVE, KEEP_ALIVE]
    assert len(looks) == 8


def test_a_stream_ends_with_the_broadcast_and_gives_its_seat_back_even_if_nobody_read_it() -> None:
    broadcast: Broadcast[str] = Broadcast(most_listeners=2)
    read, unread = a_stream(broadcast), a_stream(broadcast)
    broadcast.close()
    assert list(read) == [PREAMBLE]
    assert broadcast.listeners == 2
    for stream in (read, unread, unread):
        stream.close()
    assert broadcast.listeners == 0
