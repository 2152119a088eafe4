"""Concurrency limits for Dagster assets: every asset its own pool, in one line."""

from __future__ import annotations

__all__: list[str] = []
