"""``python -m dagster_lifeguard`` is the command ``lifeguard``."""

from dagster_lifeguard.cli import main

main()
