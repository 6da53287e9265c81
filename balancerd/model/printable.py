"""Names that others have chosen, made fit to show: whoever starts a process chooses what it is called.

Owns which characters may reach a terminal, a line of the log, a page, a picture or a label. Every room that shows
names asks here. Pure.
"""

import re
from typing import Final

_INVISIBLE: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
"""Letters and marks that Unicode counts as printable and that show nothing: fillers, joiners and variation selectors
(Default_Ignorable_Code_Point in DerivedCoreProperties.txt), and the blank of Braille. Two names that look the same
would be two."""


def is_printable(text: str) -> bool:
    """Return whether all of the text may be shown: no control, no mark of direction, nothing without a shape."""
    return text.isprintable() and (text.isascii() or _INVISIBLE.search(text) is None)


def printable(text: str) -> str:
    r"""Return the text on one line, safe to show: what is not printable becomes \n, \x1b or \u202e.

    A byte that was not UTF-8 and came through as a lone surrogate (PEP 383) becomes \xff. Backslashes stay single, so
    that systemd's "\x2d" reads as it is written: what must be exact is told as JSON.
    """
    return text if is_printable(text) else "".join(c if is_printable(c) else _escaped(c) for c in text)


def _escaped(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return char.encode("unicode_escape", "backslashreplace").decode("ascii")
