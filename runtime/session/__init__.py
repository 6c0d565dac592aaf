"""One run, from a plan and a target to a finished output.

The parts of the runtime put together; what a run would have to do; where infinities and NaNs come
from.
"""

__all__ = ["outlook", "session"]
