"""The plan as plain frozen data, and what it costs.

In: steps, from the schedule. Out: all that the executor gets, also as JSON. What follows from a
finished plan alone is here too: memory, bytes read and written, what may run side by side, and
plans with less to do.
"""

__all__ = ["codec", "concurrency", "costs", "liveness", "machine", "owners", "plan", "prune", "scratch", "split"]
