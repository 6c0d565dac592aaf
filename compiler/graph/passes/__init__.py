"""Passes over the graph: one a module, with one public function of the same name, graph in and
graph out.

`graph/verifier.py` sees that what comes out is still a graph.
"""

__all__ = ["simplify"]
