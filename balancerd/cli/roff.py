"""Manual pages in roff, man(7): text made safe, and the few requests that our pages need. It must not know any page."""

from collections.abc import Iterable
from typing import Final

_PARAGRAPH: Final = ".PP\n"


def safe(text: str) -> str:
    """Return text that roff prints as it is: no escapes, no request at a line's start, hyphens that can be copied."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("^", "\\(ha").replace("~", "\\(ti")
    escaped = escaped.replace("`", "\\(ga").replace("'", "\\(aq").replace('"', "\\(dq")
    return "\n".join(f"\\&{line}" if line.startswith(".") else line for line in escaped.split("\n"))


def head(name: str, section: int, version: str, what: str) -> str:
    """Return a page's first lines."""
    return (
        '.\\" Written by python -m balancerd.cli.manual; do not edit.\n'
        f'.TH {name.upper()} {section} "" "balancerd {safe(version)}" "balancerd"\n'
        f".SH NAME\n{safe(name)} \\- {safe(what)}\n"
    )


def section(title: str, *parts: str) -> str:
    """Return a section of parts that are roff already; a title begins a paragraph by itself."""
    return f".SH {safe(title.upper())}\n" + "".join(parts).removeprefix(_PARAGRAPH)


def subsection(title: str, *parts: str) -> str:
    """Return a part of a section with a title of its own."""
    return f".SS {safe(title)}\n" + "".join(parts).removeprefix(_PARAGRAPH)


def paragraphs(text: str) -> str:
    r"""Return plain text as paragraphs; one that begins with a line of \b keeps its lines, as click has it."""
    told = []
    for paragraph in text.strip("\n").split("\n\n"):
        lines = paragraph.strip("\n").split("\n")
        if lines[0].strip() == "\b":
            told.append(as_written(lines[1:]))
        else:
            told.append(".PP\n" + safe(" ".join(line.strip() for line in lines)) + "\n")
    return "".join(told)


def as_written(lines: Iterable[str]) -> str:
    """Return lines that keep their breaks and blanks."""
    return ".PP\n.nf\n" + "".join(f"{safe(line)}\n" if line.strip() else ".sp\n" for line in lines) + ".fi\n"


def item(term: str, text: str) -> str:
    """Return a term, bold, with what is said of it."""
    return f".TP\n\\fB{safe(term)}\\fR\n{safe(' '.join(text.split())) or chr(92) + '&'}\n"
