"""Limits as code: what is declared beside what is live, and the edits of three YAML files."""
