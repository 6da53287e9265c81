"""The settings of what the daemon tells of itself and keeps for later: its log and its history.

Pure; it must not know files.
"""

from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, WithJsonSchema

from balancerd.config.fields import Bytes, Section, between
from balancerd.config.units import shorten, spell_bytes

_MIB: Final = 1024**2
_GIB: Final = 1024**3
_SUFFIX: Final = ".sqlite"


def _check_file(text: str) -> str:
    """Refuse a file that may be another one's: a damaged history is renamed, so it says by its name that it is one."""
    if not text.startswith("/") or "\0" in text or not text.endswith(_SUFFIX):
        raise ValueError(f"expected the absolute path of a file whose name ends in {_SUFFIX}, got {shorten(text)}")
    return text


HistoryFile = Annotated[
    str, AfterValidator(_check_file), WithJsonSchema({"type": "string", "pattern": r"^/.*\.sqlite$"})
]


class LogConfig(Section):
    """What is logged, and in which form."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info",
        description="The least important level that is logged.",
    )
    format: Literal["auto", "json", "console"] = Field(
        default="auto",
        description="json: one object a line; console: for people; auto: console on a terminal, entries with fields of "
        "their own in the journal of systemd, json elsewhere.",
    )


class HistoryConfig(Section):
    """What was decided and done, kept in a file for `balancerctl history`."""

    enabled: bool = Field(default=True, description="false: no history is kept, and the file stays as it is.")
    path: HistoryFile | None = Field(
        default=None,
        description="The file, an sqlite database; its name ends in .sqlite. null: history.sqlite in state_directory; "
        "where there is no such directory, no history is kept.",
    )
    max_rows: Annotated[int, between(1000, 10_000_000, str)] = Field(
        default=100_000,
        description="Keep so many events: decisions, moves and what they came to. The oldest go first.",
    )
    max_size_bytes: Annotated[Bytes, between(_MIB, 16 * _GIB, spell_bytes)] = Field(
        default=64 * _MIB,
        description="How large the file may become, with the log that sqlite keeps beside it. The oldest events go "
        "first.",
    )
