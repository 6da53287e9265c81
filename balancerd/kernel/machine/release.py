"""Which kernel runs."""

import os
import re


def kernel_version() -> tuple[int, int]:
    """Return major and minor version of the running kernel; (0, 0) for a release that begins with no such numbers."""
    return parse_release(os.uname().release)


def parse_release(release: str) -> tuple[int, int]:
    """Parse what uname(2) tells, as in "6.12.117+deb12-amd64"."""
    found = re.match(r"(\d{1,9})\.(\d{1,9})", release)
    return (int(found[1]), int(found[2])) if found else (0, 0)
