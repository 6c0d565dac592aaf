"""A sample of what `make sweep` checks over all model types: it comes out as the table says that it
did. Explored, others are drawn."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import transformers
from profiles import EXPLORE

from tools.small_models import Pair, pairs
from tools.sweep import results
from tools.sweep.checks import checked
from tools.sweep.columns import COLUMNS

SAMPLE = (
    "afmoe-CausalLM",  # the first layers dense, the others of experts
    "albert-MaskedLM",  # one block used by every layer
    "bart-Seq2SeqLM",  # embeddings shared by encoder, decoder and head
    "clip-Model",  # two towers
    "gemma3_text-CausalLM",  # kinds of layers by a pattern
    "gpt2-CausalLM",
    "llava-ImageTextToText",  # a text model, a vision tower and a projector
    "mamba-CausalLM",  # no attention
    "mimi-Model",  # numbered parts, some of which hold no tensor
    "modernbert-MaskedLM",  # a module called head that is none
    "moonshine-SpeechSeq2Seq",  # a tied head under another name
    "qwen2_moe-CausalLM",  # experts
    "resnet-ImageClassification",  # counts of batches
    "roberta-TokenClassification",
    "wav2vec2-CTC",  # a stack beside the main one
)
EVERY = {pair.name: pair for pair in pairs()}
VERSION, TABLE = results.read(results.PATH.read_text("utf-8"))
FOUND = {(result.kind, result.head): result for result in TABLE}


def drawn() -> list[str]:
    built = [f"{result.kind}-{result.head}" for result in TABLE if not result.not_built]
    return sorted({*SAMPLE, *random.sample(built, min(10 * EXPLORE, len(built)))})


@pytest.fixture(autouse=True)
def silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    transformers.logging.set_verbosity_error()


@pytest.mark.parametrize("name", drawn())
def test_a_pair_is_as_the_table_says(name: str, tmp_path: Path) -> None:
    pair = EVERY[name]
    stored = FOUND[pair.kind, pair.head]
    found = checked(pair, tmp_path / "work")
    assert found.not_built == ""
    statuses = {column: outcome.status for column, outcome in found.outcomes.items()}
    unlike = {c: (found.outcomes.get(c), o) for c, o in stored.outcomes.items() if statuses.get(c) is not o.status}
    assert unlike == {}, "`make sweep` checks anew"
    assert (found.known, statuses.keys()) == (stored.known, stored.outcomes.keys())


def test_the_table_has_every_pair() -> None:
    """That this transformers has; `make sweep` checks those that are new."""
    assert transformers.__version__ == VERSION
    assert set(FOUND) == {(pair.kind, pair.head) for pair in pairs()}


def test_every_column_is_told_of() -> None:
    assert {column for result in TABLE for column in result.outcomes} == set(COLUMNS)


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    results.write(tmp_path / "results.tsv", TABLE, VERSION)
    assert (tmp_path / "results.tsv").read_text("utf-8") == results.PATH.read_text("utf-8")


def test_a_pair_has_one_name() -> None:
    assert len(EVERY) == len(pairs())
    assert isinstance(EVERY[SAMPLE[0]], Pair)
