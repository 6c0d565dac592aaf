"""Puts changed modules in the place of those on disk, in every Python process that has this folder
on PYTHONPATH.

No file of the package is touched, so that several mutants can be tested at once, and so that what
reads the package's own sources finds them as they are.

MUTANTS_SERVED: a folder of code objects, `NAME.code` for the module NAME, as `marshal` writes them.
MUTANTS_REACHED: a folder for what is reached, where that is asked for: a file a process, a byte a
place.
"""

import importlib.machinery
import marshal
import mmap
import os
import sys
import tempfile

SIZE = 1 << 17
"""Places that can be told apart."""


def _places():
    """A byte for each place, 1 where it was reached: in a file, so that it outlives a process that
    is killed."""
    folder = os.environ.get("MUTANTS_REACHED")
    if folder is None or not os.path.isdir(folder):
        return mmap.mmap(-1, SIZE)
    descriptor, _ = tempfile.mkstemp(dir=folder)
    try:
        os.ftruncate(descriptor, SIZE)
        return mmap.mmap(descriptor, SIZE)
    finally:
        os.close(descriptor)


class _Loader(importlib.machinery.SourceFileLoader):
    def get_code(self, fullname):
        with open(os.path.join(SERVED, f"{fullname}.code"), "rb") as file:
            return marshal.load(file)

    def exec_module(self, module):
        module.__dict__["__reached__"] = reached
        super().exec_module(module)


class _Finder:
    @staticmethod
    def find_spec(fullname, path=None, target=None):
        if fullname not in NAMES:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            spec.loader = _Loader(fullname, spec.loader.path)
        return spec


SERVED = os.environ.get("MUTANTS_SERVED", "")
NAMES = {n[:-5] for n in os.listdir(SERVED) if n.endswith(".code")} if os.path.isdir(SERVED) else set()
if NAMES:
    reached = _places()
    sys.meta_path.insert(0, _Finder)
