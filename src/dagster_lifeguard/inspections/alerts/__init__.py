"""Alerts about pools: one list of rules, for Prometheus and for a Dagster sensor."""
