"""mergec as a process of its own, with whatever its surroundings are to be."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

import numpy as np
from safetensors.numpy import save_file

COPY = 'let a = model("a.safetensors")\n"*" = a\n'
"""A recipe that needs no torch, so that a run of it is quick."""

LINEAR = 'let a = model("a.safetensors")\nlet b = model("b.safetensors")\n"*" = linear(a, b)\n'


def make(folder: Path, **recipes: str) -> Path:
    """Two small checkpoints `a` and `b` as files, and `copy.mrg`, `linear.mrg` and the recipes
    given; the folder."""
    rng = np.random.default_rng(0)
    for name in "ab":
        tensors = {"x.weight": rng.standard_normal((40, 50)), "y.weight": rng.standard_normal(7)}
        path = folder / f"{name}.safetensors"
        save_file({k: v.astype(np.float32) for k, v in tensors.items()}, path)
        os.utime(path, ns=(10**18, 10**18))
    for name, text in {"copy": COPY, "linear": LINEAR, **recipes}.items():
        (folder / f"{name}.mrg").write_text(text, "utf-8")
    return folder


def mergec(
    *words: str | bytes | Path,
    folder: Path,
    env: Mapping[str, str] | None = None,
    input: bytes = b"",
    stdout: int | IO[bytes] = subprocess.PIPE,
    stderr: int | IO[bytes] = subprocess.PIPE,
    before: Callable[[], None] | None = None,
    start: str = "from mergec.cli.main import main; sys.exit(main())",
) -> subprocess.CompletedProcess[bytes]:
    """Runs `mergec WORDS…` in `folder` to its end; `before` runs in the new process, before mergec
    does."""
    surroundings = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **(env or {})}
    return subprocess.run(
        [sys.executable, "-c", f"import sys; {start}", *words],
        cwd=folder,
        env=surroundings,
        input=input,
        stdout=stdout,
        stderr=stderr,
        preexec_fn=before,
        timeout=120,
        check=False,
    )
