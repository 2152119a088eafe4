"""The read side: who holds, who waits, why, since when, and until when.

Everything is worked out from what a ``Deployment`` tells, so it is the same over the stock storage,
the engine and an endpoint. All values are frozen, and free of presentation: the command prints
them, ``--json`` is their fields, and the web page shows the same. Moments are seconds since the
epoch, durations seconds.
"""
