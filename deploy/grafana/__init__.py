"""The dashboards for Grafana: `machine.json` and `fleet.json` are written from here by `python -m deploy.grafana`.

`panels` knows what Grafana wants to read; `machine` and `fleet` know what is shown, and what stands first.
"""
