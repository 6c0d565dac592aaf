"""A bounded run of every fuzz target, and what longer runs (`python tests/fuzz/run.py`) have
found."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from profiles import examples

sys.path.insert(0, str(Path(__file__).parent))

from targets import TARGETS

EXAMPLES = {"recipe": 60, "format": 80, "header": 200, "folder": 40, "tokenizer": 100, "pickle": 200, "yaml": 80}


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_but_diagnostics_comes_out(name: str) -> None:
    target = TARGETS[name]

    @examples(EXAMPLES[name], *HealthCheck)
    @given(st.randoms(use_true_random=False))
    def run(rng: random.Random) -> None:
        target.check(target.make(rng))

    run()


FOUND = {
    # IndexError of PyYAML: an integer without digits. Its other tags fail in ways of their own.
    "yaml integer": ("yaml", "merge_method: !!int ''\nmodels: [{model: a}]\n"),
    "yaml boolean": ("yaml", "merge_method: !!bool x\nmodels: [{model: a}]\n"),
    "yaml date": ("yaml", "merge_method: !!timestamp x\nmodels: [{model: a}]\n"),
    "yaml float": ("yaml", "merge_method: " + ":".join(["59"] * 400) + ".0\nmodels: [{model: a}]\n"),
    # a document of the output that could not be written
    "half of a character": ("recipe", 'let a = model("a")\nlet x = "\ud800"\n* = a\n'),
    # KeyError in the call of a def whose parameter has a kind that there is not
    "odd kind": ("recipe", 'let a = model("a")\ndef f(*rest: range) = sum(rest)\n* = f(a)\n'),
    # OverflowError where a whole number became a tensor's
    "long whole number": ("recipe", 'let a = model("a")\n* = a * 10 ** 400\n'),
    # KeyError in the inference of families: a key that looks like a path
    "key with a dot": ("folder", '{"config": "{\\"model_type\\": \\"odd\\", \\"a.layers\\": [1]}"}'),
    # OverflowError: an id that is no number of a row
    "id beyond numbers": ("tokenizer", '{"model": {}, "added_tokens": [{"content": "x", "id": 1e999}]}'),
}
"""What fuzzing and looking for trouble have found, as target and input."""


@pytest.mark.parametrize("find", FOUND)
def test_what_was_found(find: str) -> None:
    name, text = FOUND[find]
    TARGETS[name].check(text)
