"""Write the alerts for Prometheus from the list of rules: python monitoring/generate_alerts.py."""

from __future__ import annotations

import io
from pathlib import Path

from ruamel.yaml import YAML

from dagster_lifeguard.inspections.alerts.rules import for_prometheus

FILE = Path(__file__).with_name("alerts.yaml")
HEAD = (
    "# Alerts about pools, from the metrics of `lifeguard serve`. Load it with `rule_files`.\n"
    "# Written by monitoring/generate_alerts.py: change the rules in\n"
    "# src/dagster_lifeguard/inspections/alerts/rules.py.\n"
)


def text() -> str:
    """What the file is to hold."""
    yaml = YAML()
    yaml.width = 100
    yaml.indent(mapping=2, sequence=4, offset=2)
    stream = io.StringIO()
    yaml.dump(for_prometheus(), stream)
    return HEAD + stream.getvalue()


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
