"""Files of procfs and sysfs that hold one value: a number, true or false, a word in brackets.

None where the file is missing, and where it may not be read: a confined daemon knows less, and works.
"""

import re

from balancerd.kernel.errors import ParseError
from balancerd.kernel.files import read_if_there

_CHOSEN = re.compile(rb"\[([a-z+_]+)\]")
_TRUTHS = {b"true": True, b"1": True, b"false": False, b"0": False}


def read_number(path: str) -> int | None:
    """Read a file with one number. Raises ParseError."""
    text = _read(path)
    return None if text is None else parse_number(text, path)


def read_truth(path: str) -> bool | None:
    """Read a file with a truth value. Raises ParseError."""
    text = _read(path)
    return None if text is None else parse_truth(text, path)


def read_choice(path: str) -> str | None:
    """Read a file that lists what may be chosen, with what is chosen in brackets. Raises ParseError."""
    text = _read(path)
    return None if text is None else parse_choice(text, path)


def parse_number(text: bytes, path: str) -> int:
    """Parse one decimal number."""
    try:
        return int(text)
    except ValueError as error:
        raise ParseError(path, 1, text, "not a number") from error


def parse_truth(text: bytes, path: str) -> bool:
    """Parse "true" or "false", "1" or "0": kernels differ in which they write."""
    try:
        return _TRUTHS[text.strip()]
    except KeyError as error:
        raise ParseError(path, 1, text, "neither true nor false") from error


def parse_choice(text: bytes, path: str) -> str:
    """Parse a list such as "always [madvise] never" into the word in brackets."""
    match = _CHOSEN.search(text)
    if match is None:
        raise ParseError(path, 1, text, "nothing is chosen by brackets")
    return match[1].decode("ascii")


def _read(path: str) -> bytes | None:
    try:
        return read_if_there(path)
    except PermissionError:
        return None
