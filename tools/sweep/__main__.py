from __future__ import annotations

import argparse
import functools
import importlib
import os
import signal
import sys
import tempfile
import time
import warnings
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
import transformers

from ..small_models import Pair, pairs
from . import __doc__ as about
from . import results
from .checks import checked, failures
from .results import Result
from .workers import each_apart

IMPORTED = ("generation.utils", "modeling_utils", "models.clip.modeling_clip", "models.llama.modeling_llama")
"""What most models import, once for all processes."""


def main() -> int:
    given = arguments()
    os.nice(max(0, 10 - os.nice(0)))
    # an end by a signal is an exit like others, that ends the processes too
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    quiet()
    done = stored(given.out) if not given.only and not given.heads and not given.anew else []
    have = {(result.kind, result.head) for result in done}
    todo = [p for p in chosen(given.only, given.heads) if (p.kind, p.head) not in have]
    with tempfile.TemporaryDirectory(prefix="sweep-", dir=given.work) as work:
        warm(Path(work))
        started = time.monotonic()
        run = functools.partial(one, work=Path(work))
        for number, (pair, answer) in enumerate(each_apart(run, todo, given.jobs, given.seconds), 1):
            result = answer if isinstance(answer, Result) else Result(pair.kind, pair.head, not_built=str(answer))
            done = [*(r for r in done if (r.kind, r.head) != (pair.kind, pair.head)), result]
            print(f"{number}/{len(todo)} {time.monotonic() - started:.0f}s {pair.name}: {failures(result)}", flush=True)
            if number % 20 == 0 or number == len(todo):
                results.write(given.out, merged_with(given.out, done), transformers.__version__)
            if given.only:
                for column, outcome in result.outcomes.items():
                    print(f"    {column:11} {outcome.status.value:8} {outcome.why}")
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="sweep", description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", metavar="TYPES", help="model types, with commas: done anew, and shown in full")
    parser.add_argument("--heads", metavar="HEADS", help="heads, with commas, such as CausalLM,Model: done anew")
    parser.add_argument("--anew", action="store_true", help="all of them, also those that the file has")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="processes at once (2)")
    parser.add_argument("--out", type=Path, default=results.PATH, metavar="FILE", help="the table (the project's)")
    parser.add_argument("--seconds", type=float, default=150, metavar="S", help="for one pair (150)")
    parser.add_argument("--work", metavar="FOLDER", help="where models are written, in a folder of its own")
    return parser.parse_args()


def chosen(only: str | None, heads: str | None) -> list[Pair]:
    kinds, heads_ = (set(said.split(",")) if said else None for said in (only, heads))
    return [p for p in pairs() if (not kinds or p.kind in kinds) and (not heads_ or p.head in heads_)]


def stored(path: Path) -> list[Result]:
    return results.read(path.read_text("utf-8"))[1] if path.exists() else []


def merged_with(path: Path, done: list[Result]) -> list[Result]:
    """What the file has, with what was done now in its place."""
    now = {(result.kind, result.head): result for result in done}
    return [*now.values(), *(r for r in stored(path) if (r.kind, r.head) not in now)]


def one(pair: Pair, work: Path) -> Result:
    return checked(pair, work / pair.name)


def quiet() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def warm(work: Path) -> None:
    """Loads here what each process would have to load for itself."""
    for module in IMPORTED:
        importlib.import_module(f"transformers.{module}")
    checked(next(p for p in pairs() if p.kind == "llama"), work / "warm")


if __name__ == "__main__":
    sys.exit(main())
