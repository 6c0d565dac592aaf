"""mergec: a compiler for a small declarative language that merges neural-network checkpoints.

>>> import mergec
>>> merge = mergec.compile('''
... let base = model("base")
... let tuned = model("tuned")
... * = base + 0.7*(tuned - base)
... ''', catalog=mergec.MemoryCatalog({
...     "base": {"tensors": {"embed.weight": ("BF16", (64, 32))}},
...     "tuned": {"tensors": {"embed.weight": ("BF16", (64, 32))}},
... }), device="cpu")
>>> merge.parameters
2048
"""

from .compiler.catalog import Catalog, CatalogError, MemoryCatalog
from .compiler.plan import Plan
from .compiler.version import __version__
from .grammar.diagnostic import Diagnostic, Exit, Label, MergecError, Severity
from .runtime.api import Compiled, compile, parse, run
from .runtime.catalog import LocalCatalog
from .runtime.session import Report

__all__ = [
    "Catalog",
    "CatalogError",
    "Compiled",
    "Diagnostic",
    "Exit",
    "Label",
    "LocalCatalog",
    "MemoryCatalog",
    "MergecError",
    "Plan",
    "Report",
    "Severity",
    "__version__",
    "compile",
    "parse",
    "run",
]
