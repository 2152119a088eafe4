"""What other limits would have done: past executions, simulated with the rules of admission.

``history`` reads the past into a ``recording``, and ``world`` plays it. ``answer`` compares two
plays, and a play with the real past. ``advising`` finds limits by many plays. Only ``history`` asks
for the time.
"""
