"""Python reads this as it starts, where it is on the path: a wall clock that is wrong.

The clock of ``time.time`` and ``time.time_ns`` is shifted by ``SHIFT_SECONDS``. Not shifted: the
monotonic clock, and ``datetime.now``, which the package does not use.
"""

import os
import time

SHIFT = int(os.environ["SHIFT_SECONDS"])
_time, _time_ns = time.time, time.time_ns
time.time = lambda: _time() + SHIFT
time.time_ns = lambda: _time_ns() + SHIFT * 10**9
