"""Write the dashboards anew."""

from pathlib import Path

from deploy.grafana import fleet, machine
from deploy.grafana.panels import render

FOLDER = Path(__file__).parent


def documents() -> dict[str, str]:
    """Return each dashboard's file as it should be, by its name."""
    return {"machine.json": render(machine.dashboard()), "fleet.json": render(fleet.dashboard())}


if __name__ == "__main__":
    for name, text in documents().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
