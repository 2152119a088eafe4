"""What other limits would have done: past executions, simulated with the rules of admission.

``history`` reads the past into a ``recording``. ``world`` simulates it. ``answer`` compares two
simulations, and a simulation with the real past. No module here asks for the time.
"""
