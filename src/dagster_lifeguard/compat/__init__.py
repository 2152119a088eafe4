"""Everything taken from Dagster that Dagster does not promise to keep.

No other package may import ``dagster._*`` or touch a private attribute of a Dagster object. Each
function here says what it relies on; ``tests/test_compat.py`` fails when Dagster changes it. All
of it was tested on Dagster 1.10.0 (the oldest supported) and 1.13.27.
"""
