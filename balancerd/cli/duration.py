"""A span of time on the command line."""

import click

from balancerd.config.units import parse_duration


class DurationType(click.ParamType[float]):
    """A span such as 10m, in seconds; a minus before it, as others write "ago", is allowed."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return seconds."""
        try:
            return parse_duration(str(value).removeprefix("-"))
        except ValueError as error:
            self.fail(str(error), param, ctx)
