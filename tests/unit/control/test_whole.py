"""Where a request ends, in whatever pieces it comes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancerd.control.whole import Extent, awaits_continue, measure, without_expectation

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello"


def extent(heard: bytes, most_head_bytes: int = 100, most_body_bytes: int = 10) -> tuple[int, bool] | None:
    found = measure(heard, most_head_bytes=most_head_bytes, most_body_bytes=most_body_bytes)
    return None if found is None else (found.n_bytes, found.is_last)


@pytest.mark.parametrize("request_bytes", [GET, POST, b"\r\n" + GET, POST.replace(b"Content-L", b"content-l")])
def test_a_request_is_whole_with_its_last_byte_and_what_follows_is_not_part_of_it(request_bytes: bytes) -> None:
    assert [extent(request_bytes[:n]) for n in range(len(request_bytes))] == [None] * len(request_bytes)
    for more in (b"", b"G", GET, b"\x00" * 50):
        assert extent(request_bytes + more) == (len(request_bytes), False)


@pytest.mark.parametrize(
    "fields",
    [
        b"Transfer-Encoding: chunked",
        b"Content-Length: 11",
        b"Content-Length: x",
        b"Content-Length: -1",
        b"Content-Length: +5",
        b"Content-Length: 5, 5",
        b"Content-Length:",
        b"Content-Length: " + b"9" * 40,
        b"Content-Length: 5\r\nContent-Length: 6",
        b"Content-Length: 5\r\nTransfer-Encoding : chunked",
        "Content-Length: ²".encode("latin-1"),
    ],
)
def test_a_body_without_a_length_within_bounds_is_not_waited_for_and_nothing_can_follow(fields: bytes) -> None:
    head = b"POST / HTTP/1.1\r\n" + fields + b"\r\n\r\n"
    assert extent(head + b"hello") == (len(head), True)


def test_a_length_of_more_digits_than_python_converts_is_none() -> None:
    head = b"POST / HTTP/1.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n"
    assert extent(head, most_head_bytes=8192) == (len(head), True)


def test_lengths_that_agree_are_one() -> None:
    head = b"POST / HTTP/1.1\r\nContent-Length: 5\r\ncontent-length:5 \r\n\r\n"
    assert extent(head + b"hello") == (len(head) + 5, False)


def test_a_head_may_be_as_long_as_the_bound_and_no_longer() -> None:
    assert extent(GET, most_head_bytes=len(GET)) == (len(GET), False)
    assert extent(GET, most_head_bytes=len(GET) - 1) == (len(GET), True)
    assert extent(b"x" * 100) is None
    assert extent(b"x" * 101) == (101, True)


def test_lines_that_end_as_http_does_not_are_hopeless_at_once() -> None:
    assert extent(b"GET / HTTP/1.0\n") == (15, True)
    assert extent(b"\n") == (1, True)
    assert extent(b"\r\n") is None


@pytest.mark.parametrize("expectation", [b"Expect: 100-continue", b"expect :100-continue"])
def test_who_waits_to_be_told_to_continue_is_known_by_the_head(expectation: bytes) -> None:
    waiting = POST.replace(b"\r\n\r\n", b"\r\n" + expectation + b"\r\n\r\n")
    head_bytes = waiting.index(b"\r\n\r\n") + 4
    assert not any(awaits_continue(waiting[:n]) for n in range(head_bytes))
    assert awaits_continue(waiting[:head_bytes])
    assert without_expectation(waiting) == POST
    assert not awaits_continue(POST + b"\r\nExpect: 100-continue\r\n\r\n")


@given(
    st.lists(
        st.sampled_from([b"\r\n", b"\n", b"Content-Length: ", b"3", b"x", b":", b"\r", b"\x00", b" "]), max_size=30
    )
)
def test_whatever_comes_the_extent_is_within_what_was_heard_and_never_none_beyond_the_bounds(
    pieces: list[bytes],
) -> None:
    heard = b"".join(pieces)
    found = measure(heard, most_head_bytes=20, most_body_bytes=4)
    if len(heard) > 24:
        assert found is not None
    assert found is None or isinstance(found, Extent)
    assert found is None or 0 < found.n_bytes <= len(heard)
