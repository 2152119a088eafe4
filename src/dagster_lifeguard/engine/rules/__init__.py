"""The rules of admission and the values they judge, without Dagster or a database."""
