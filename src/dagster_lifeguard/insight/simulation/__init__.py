"""What other limits would have done: past executions played through the rules of admission.

``arrivals`` reads the past. ``world`` plays it. ``answer`` compares two plays, and a play with what
really happened. No module here asks for the time.
"""
