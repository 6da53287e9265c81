"""Writing a picture to a file that somebody has named: whole, or not at all. It must not know what is drawn."""

import os
from pathlib import Path

from balancerd.cli.exits import CommandError
from balancerd.cli.screen import escape, write
from balancerd.kernel.whole_file import replace_file


def write_picture(path: Path, text: str) -> None:
    """Write a text to `path` and say so; a device or a pipe is written to. Raises CommandError."""
    try:
        if path.exists() and not path.is_file():
            path.write_text(text, encoding="utf-8")
        else:
            there = path.resolve()
            beside = there.with_name(f".{there.name[:200]}.{os.getpid()}.new")
            replace_file(there, text.encode("utf-8"), beside=beside, mode=0o666)
    except OSError as error:
        raise CommandError(f"{escape(str(path))} cannot be written: {error.strerror}") from error
    write(f"written to {escape(str(path))}", err=True)
