"""Does each asset have the pools it should have? Findings over code locations, before any run.

This looks at definitions, at ``dagster.yaml`` and at which pools have a limit on the instance. It
executes and changes nothing.
"""
