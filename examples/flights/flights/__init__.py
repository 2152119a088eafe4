"""Flights out of New York in 2013, loaded into one DuckDB file."""
