"""Merged folders of sentence-transformers give the embeddings of a merge that was made by hand."""

from __future__ import annotations

import shutil
from pathlib import Path

import mergec
import numpy as np
import pytest
import torch
import transformers
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import (
    Dense,
    Normalize,
    Pooling,
    Router,
    StaticEmbedding,
    Transformer,
)
from tokenizers import Tokenizer, models, pre_tokenizers

WORDS = [f"w{k}" for k in range(40)]
TEXTS = ["w1 w2 w3", "w7 w8", "w39 w0 w0 w5 w12"]


def encoder(folder: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    config = transformers.BertConfig(
        vocab_size=44, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=32,
    )  # fmt: skip
    transformers.BertModel(config).save_pretrained(folder)
    vocabulary = {w: k for k, w in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    )
    fast.save_pretrained(folder)
    return folder


def saved(folder: Path, seed: int, dense: int = 8) -> Path:
    """A model of four modules in a folder."""
    transformer = Transformer(str(encoder(folder.parent / f"{folder.name}-encoder", seed)))
    torch.manual_seed(seed + 100)
    modules = [transformer, Pooling(16, "mean"), Dense(16, dense), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder))
    return folder


def by_hand(parts: list[Path], weights: list[float]) -> SentenceTransformer:
    """The mean of the models' weights, in float64, in the first one's modules."""
    opened = [SentenceTransformer(str(part), device="cpu") for part in parts]
    states = [model.state_dict() for model in opened]
    mean = {
        name: sum(w * state[name].double() for w, state in zip(weights, states, strict=True)).to(tensor.dtype)
        for name, tensor in states[0].items()
    }
    opened[0].load_state_dict(mean)
    return opened[0]


def embeddings(model: SentenceTransformer) -> np.ndarray:
    return model.encode(TEXTS, convert_to_numpy=True)


def test_a_merge_gives_the_embeddings_of_one_made_by_hand(tmp_path: Path) -> None:
    a, b = saved(tmp_path / "a", 1), saved(tmp_path / "b", 2)
    out = tmp_path / "out"
    recipe = f'let a = model("{a}")\nlet b = model("{b}")\n* = linear(a, b, weight=[0.3, 0.7])'
    compiled = mergec.compile(recipe, device="cpu")
    assert not compiled.diagnostics
    compiled.run(out)
    made = SentenceTransformer(str(out), device="cpu")
    assert len(made) == 4
    np.testing.assert_allclose(embeddings(made), embeddings(by_hand([a, b], [0.3, 0.7])), atol=1e-5)
    assert mergec.verify(out, rerun="all").ok


def test_a_dense_of_other_shape_is_the_templates(tmp_path: Path) -> None:
    a, b = saved(tmp_path / "a", 1), saved(tmp_path / "b", 2, dense=12)
    out = tmp_path / "out"
    compiled = mergec.compile(
        f'let a = model("{a}")\nlet b = model("{b}")\n* = linear(a, b)\noutput(like=a)', device="cpu"
    )
    assert [d.code for d in compiled.diagnostics] == ["W0596"]
    compiled.run(out)
    made, first = SentenceTransformer(str(out), device="cpu"), SentenceTransformer(str(a), device="cpu")
    assert torch.equal(made[2].linear.weight, first[2].linear.weight)
    assert not torch.equal(made[0].auto_model.pooler.dense.weight, first[0].auto_model.pooler.dense.weight)
    assert mergec.verify(out).ok


def test_a_pickled_dense_is_merged_where_pickles_are_allowed(tmp_path: Path) -> None:
    a, b = saved(tmp_path / "a", 1), saved(tmp_path / "b", 2)
    for folder in (a, b):
        dense = SentenceTransformer(str(folder), device="cpu")[2]
        torch.save(dense.state_dict(), folder / "2_Dense" / "pytorch_model.bin")
        (folder / "2_Dense" / "model.safetensors").unlink()
    recipe = f'let a = model("{a}")\nlet b = model("{b}")\n* = linear(a, b)'
    with pytest.raises(mergec.MergecError) as caught:
        mergec.compile(recipe, device="cpu")
    assert {d.code for d in caught.value.diagnostics} == {"E0405"}
    mergec.compile(recipe, device="cpu", allow_pickle=True).run(tmp_path / "out")
    made = SentenceTransformer(str(tmp_path / "out"), device="cpu")
    np.testing.assert_allclose(embeddings(made), embeddings(by_hand([a, b], [0.5, 0.5])), atol=1e-5)


def test_only_the_encoder_of_a_model_without_modules(tmp_path: Path) -> None:
    """A plain encoder has no modules: those are the template's."""
    a, plain = saved(tmp_path / "a", 1), encoder(tmp_path / "plain", 3)
    recipe = f'let a = model("{a}")\nlet b = model("{plain}")\noutput(like=a)\n* = linear(a, b)'
    compiled = mergec.compile(recipe, device="cpu")
    assert [d.code for d in compiled.diagnostics] == ["W0596"]
    compiled.run(tmp_path / "out")
    shutil.rmtree(plain)
    made = SentenceTransformer(str(tmp_path / "out"), device="cpu")
    assert embeddings(made).shape == (3, 8)


def test_two_encoders_between_which_a_router_chooses(tmp_path: Path) -> None:
    """Each lies in a folder that the router's own config names."""
    made = []
    for seed, name in enumerate("ab"):
        routes = {
            route: [Transformer(str(encoder(tmp_path / f"{name}-{route}", 10 * seed + k))), Pooling(16, "mean")]
            for k, route in enumerate(("query", "document"))
        }
        router = Router.for_query_document(routes["query"], routes["document"])
        SentenceTransformer(modules=[router, Normalize()], device="cpu").save(str(tmp_path / name))
        made.append(tmp_path / name)
    a, b = made
    recipe = f'let a = model("{a}")\nlet b = model("{b}")\n* = linear(a, b)'
    mergec.compile(recipe, device="cpu").run(tmp_path / "out")
    out, expected = SentenceTransformer(str(tmp_path / "out"), device="cpu"), by_hand([a, b], [0.5, 0.5])
    for encode in ("encode_query", "encode_document"):
        found, wanted = (getattr(model, encode)(TEXTS) for model in (out, expected))
        np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_static_embeddings(tmp_path: Path) -> None:
    """Without config.json: a table of words, with its tokenizer beside it."""
    words = Tokenizer.from_file(str(encoder(tmp_path / "words", 1) / "tokenizer.json"))
    for seed, name in enumerate("ab"):
        torch.manual_seed(seed)
        module = StaticEmbedding(words, embedding_weights=np.random.default_rng(seed).normal(size=(44, 6)))
        SentenceTransformer(modules=[module, Normalize()], device="cpu").save(str(tmp_path / name))
    a, b = tmp_path / "a", tmp_path / "b"
    mergec.compile(f'let a = model("{a}")\nlet b = model("{b}")\n* = linear(a, b)', device="cpu").run(tmp_path / "out")
    found = embeddings(SentenceTransformer(str(tmp_path / "out"), device="cpu"))
    np.testing.assert_allclose(found, embeddings(by_hand([a, b], [0.5, 0.5])), atol=1e-5)


def test_a_stack_of_layers_keeps_its_modules(tmp_path: Path) -> None:
    a, b = saved(tmp_path / "a", 1), saved(tmp_path / "b", 2)
    recipe = (
        f'let a = model("{a}")\nlet b = model("{b}")\n* = linear(a, b)\nlayers = stack(a.layers[0..1], b.layers[1])'
    )
    mergec.compile(recipe, device="cpu").run(tmp_path / "out")
    made = SentenceTransformer(str(tmp_path / "out"), device="cpu")
    one, two = (SentenceTransformer(str(path), device="cpu") for path in (a, b))
    layers = [model[0].auto_model.encoder.layer for model in (made, one, two)]
    assert len(layers[0]) == 3
    for found, wanted in zip(layers[0], (layers[1][0], layers[1][1], layers[2][1]), strict=True):
        assert all(torch.equal(found.state_dict()[name], t) for name, t in wanted.state_dict().items())
    wanted = (one[2].linear.weight.double() + two[2].linear.weight.double()) / 2
    torch.testing.assert_close(made[2].linear.weight.double(), wanted, atol=1e-6, rtol=0)
    assert mergec.verify(tmp_path / "out", rerun="all").ok
