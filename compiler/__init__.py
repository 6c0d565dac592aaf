"""Recipe to plan, stage by stage; `pipeline.py` runs the stages in order.

Opens no file but its own data: everything else comes through a `Catalog`.
"""

__all__ = ["pipeline", "version"]
