"""The dashboards as they are shipped."""

import json
from collections.abc import Iterator
from typing import Any

from deploy.grafana.__main__ import FOLDER

SHIPPED: dict[str, Any] = {
    path.name: json.loads(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.json"))
}


def panels(document: Any) -> Iterator[Any]:
    """Every panel that asks for something, also in folded rows."""
    for panel in document["panels"]:
        yield from panel.get("panels", ())
        if panel["type"] != "row":
            yield panel
