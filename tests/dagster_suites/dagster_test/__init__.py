"""Stands in for Dagster's package of this name, which its tests import and which is on no index."""
