"""A span of time on the command line."""

import math

import click

from balancerd.config.units import format_duration, parse_duration


class DurationType(click.ParamType[float]):
    """A span such as 10m, in seconds, within bounds; a minus before it, as others write "ago", is allowed."""

    name = "duration"

    def __init__(self, *, least_seconds: float = 0.0, most_seconds: float = math.inf) -> None:
        self._least_seconds, self._most_seconds = least_seconds, most_seconds

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return seconds."""
        try:
            seconds = parse_duration(str(value).removeprefix("-"))
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if not self._least_seconds <= seconds <= self._most_seconds:
            bounds = f"{format_duration(self._least_seconds)} to {format_duration(self._most_seconds)}"
            self.fail(f"expected {bounds}, got {value}", param, ctx)
        return seconds
