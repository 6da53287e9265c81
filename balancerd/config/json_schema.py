"""The settings as a JSON schema (draft 2020-12), for editors and for the manual.

Owns the file config/balancerd.schema.json, which is exactly `render_json_schema()`. Pure. It must not know any setting.
"""

import json
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from balancerd.config.schema import Config


class _Generator(GenerateJsonSchema):
    """Without the titles that repeat each key."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 -- pydantic's signature
        return False


def build_json_schema() -> dict[str, object]:
    """The schema as plain data. Defaults appear as they would be written ("2s"), hence the serialization mode."""
    schema = Config.model_json_schema(by_alias=True, mode="serialization", schema_generator=_Generator)
    return {"$schema": GenerateJsonSchema.schema_dialect, **schema, "title": "balancerd.yaml"}


def render_json_schema() -> str:
    """The schema as the text of config/balancerd.schema.json."""
    return json.dumps(build_json_schema(), indent=2, ensure_ascii=False) + "\n"
