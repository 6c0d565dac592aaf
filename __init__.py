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

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .compiler.version import __version__

if TYPE_CHECKING:
    from .compiler.checkpoint.catalog import Catalog, CatalogError, MemoryCatalog
    from .compiler.evaluate.calls import Parameter
    from .compiler.evaluate.extensions import Primitive
    from .compiler.plan.plan import Plan
    from .grammar.diagnostic import Diagnostic, Label, MergecError, Severity
    from .runtime.api import Compiled, compile, parse, run
    from .runtime.catalog.local import LocalCatalog
    from .runtime.session.session import Report
    from .runtime.verify.check import verify
    from .runtime.verify.report import Verification

_HOMES = {
    "Catalog": "compiler.checkpoint.catalog",
    "CatalogError": "compiler.checkpoint.catalog",
    "Compiled": "runtime.api",
    "Diagnostic": "grammar.diagnostic",
    "Exit": "grammar.error_codes",
    "Label": "grammar.diagnostic",
    "LocalCatalog": "runtime.catalog.local",
    "MemoryCatalog": "compiler.checkpoint.catalog",
    "MergecError": "grammar.diagnostic",
    "Parameter": "compiler.evaluate.calls",
    "Plan": "compiler.plan.plan",
    "Primitive": "compiler.evaluate.extensions",
    "Report": "runtime.session.session",
    "Severity": "grammar.diagnostic",
    "Verification": "runtime.verify.report",
    "compile": "runtime.api",
    "parse": "runtime.api",
    "run": "runtime.api",
    "verify": "runtime.verify.check",
}

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
    "Parameter",
    "Plan",
    "Primitive",
    "Report",
    "Severity",
    "Verification",
    "__version__",
    "compile",
    "parse",
    "run",
    "verify",
]


def __getattr__(name: str) -> Any:
    """Loads what is asked for: `mergec --help` goes through this package, and should not wait for
    the compiler."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
