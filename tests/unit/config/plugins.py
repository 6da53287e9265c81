"""Options models of two made-up policies, one in the project's style and one in a stranger's."""

from typing import Annotated

from pydantic import BaseModel, Field

from balancerd.config.fields import Duration, Ratio, Section


class HomeOptions(Section):
    home_share_ratio: Ratio = 0.9
    dwell_seconds: Duration = 5.0
    eager: bool = False


class PlainOptions(BaseModel, extra="forbid"):
    """As a third party may write it, without the Section of this project."""

    nodes: Annotated[list[int], Field(min_length=1)]
    factor: Annotated[float, Field(gt=1)] = 2.0


PLUGINS: dict[str, type[BaseModel]] = {"follow-cpu": HomeOptions, "static-rules": PlainOptions}
