"""Fixtures for all tests, how hypothesis draws, a guard against testing another mergec than that of
this source tree, and the verifier of graphs, which is on in every test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import checkpoints
import mergec
import profiles
import pytest
from mergec.compiler import pipeline
from mergec.compiler.graph.verifier import verify
from stale_install import stale

ROOT = Path(__file__).resolve().parent.parent
EXTRAS = ROOT / "tests" / "extras"
SLOW = (
    "adapters/test_ordinary_sizes.py",
    "docs/test_python.py",
    "families/",
    "faults/",
    "fuzz/",
    "hostile/",
    "import/test_peer.py",
    "oracle/",
    "output/test_equivalence.py",
    "pickled/test_files.py",
    "pickled/test_keys.py",
    "primitives/test_kernel_code.py",
    "primitives/test_own_code.py",
    "properties/",
    "resume/test_changes.py",
    "resume/test_edited_folders.py",
    "resume/test_keys.py",
    "resume/test_killed.py",
    "runtime/test_concurrent.py",
    "runtime/test_accounting.py",
    "runtime/test_headers.py",
    "runtime/test_held_masks.py",
    "runtime/test_small.py",
    "together/test_factors.py",
    "test_demo.py",
    "test_examples.py",
    "verify/test_verify.py",
)
"""Where tests are that start processes, make large inputs or try each of many methods: `make quick`
leaves them out, and those that draw examples."""

profiles.load()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="write what the text cases of errors and passes expect"
    )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leaves `extras/` out where it is not named: what it needs is not among the dependencies."""
    named = any("extras" in Path(word.partition("::")[0]).parts for word in config.args)
    return True if collection_path == EXTRAS and not named else None


def pytest_configure() -> None:
    """Stops at once where the installed package is not this tree. Has every graph verified after
    each pass."""
    assert mergec.__file__ is not None
    found = stale(ROOT, Path(mergec.__file__).resolve().parent)
    if found:
        help = "run `make install`, or `make check TEST=…`, which needs no install"
        pytest.exit(f"the mergec that is found is not made of this source tree ({', '.join(found[:5])}): {help}", 4)
    pipeline.PASSES = tuple(run for each in pipeline.PASSES for run in (verify, each, verify))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what is slow."""
    tests = Path(__file__).parent
    for item in items:
        drawn = getattr(getattr(item, "obj", None), "is_hypothesis_test", False)
        if drawn or item.path.relative_to(tests).as_posix().startswith(SLOW):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`checkpoint(family, dtype=…, seed=…)`: a tiny checkpoint's folder, made once a session. Don't
    write into it."""
    root = tmp_path_factory.mktemp("checkpoints")

    def make(family: str, dtype: str = "float32", seed: int = 0) -> Path:
        folder = root / f"{family}-{dtype}-{seed}"
        if not folder.exists():
            checkpoints.make(family, folder, dtype=dtype, seed=seed)
        return folder

    return make


@pytest.fixture(scope="session")
def finetuned(checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`finetuned(family, seed, scale=…, dtype=…)`: a copy of `checkpoint(family)` with random
    deltas, made once."""
    root = tmp_path_factory.mktemp("finetuned")

    def make(family: str, seed: int, scale: float = 0.02, dtype: str = "float32") -> Path:
        folder = root / f"{family}-{dtype}-{seed}-{scale}"
        if not folder.exists():
            checkpoints.finetune(checkpoint(family, dtype=dtype), folder, seed=seed, scale=scale)
        return folder

    return make
