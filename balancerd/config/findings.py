"""What is wrong with a configuration, and where: the records that every complaint is made of.

Owns the one format in which findings are printed. It must not know YAML, pydantic or any setting.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a key or a value was written: a file with 1-based line and column, or a `--set KEY` with neither."""

    path: str
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        return ":".join(str(part) for part in (self.path, self.line, self.column) if part is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One complaint. line and column are 1-based and None where there is no such position (an unreadable file)."""

    path: str
    line: int | None
    column: int | None
    severity: Literal["error", "warning"]
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.severity}: {self.message}"

    @property
    def place(self) -> Place:
        """Where it is, without what it is."""
        return Place(path=self.path, line=self.line, column=self.column)


class ConfigError(Exception):
    """The configuration cannot be used. `findings` holds every complaint, warnings too; str() prints one a line."""

    def __init__(self, findings: Iterable[Finding]) -> None:
        """Keep the findings in the order given."""
        self.findings = tuple(findings)
        super().__init__("\n".join(str(finding) for finding in self.findings))


def error(place: Place, message: str) -> Finding:
    """A finding that makes the configuration unusable."""
    return Finding(path=place.path, line=place.line, column=place.column, severity="error", message=message)


def warning(place: Place, message: str) -> Finding:
    """A finding that an operator should read, about a configuration that works."""
    return Finding(path=place.path, line=place.line, column=place.column, severity="warning", message=message)


def in_reading_order(findings: Iterable[Finding], files: Iterable[str] = ()) -> tuple[Finding, ...]:
    """The findings sorted by position; `files` come first, in their order, others in that in which they appear."""
    listed = tuple(findings)
    order = list(dict.fromkeys((*files, *(finding.path for finding in listed))))
    return tuple(sorted(listed, key=lambda each: (order.index(each.path), each.line or 0, each.column or 0)))
