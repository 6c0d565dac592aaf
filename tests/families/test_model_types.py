"""The generated table: it is that of the transformers that is installed, and says of models what
transformers says of them."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
import transformers
from mergec.compiler.checkpoint.agreement import disagreements
from mergec.compiler.checkpoint.model import Model
from mergec.compiler.family.family import family_for
from mergec.compiler.family.model_types import entry_of, model_types, transformers_version
from merging import compile_folders
from safetensors.torch import load_file, save_file

from tools.model_types.classes import architectures
from tools.model_types.generate import PATH, text
from tools.model_types.sections import section_of
from tools.small_models import build, small_config

SAMPLE = ("albert", "apertus", "bart", "falcon", "gpt_oss", "lfm2", "mistral3", "mixtral", "modernbert", "roberta")
"""Types that are generated anew."""


@pytest.fixture(autouse=True)
def silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    transformers.logging.set_verbosity_error()
    logging.getLogger("transformers").setLevel(logging.ERROR)


def test_it_is_that_of_the_installed_transformers() -> None:
    """Else: `make model-types`."""
    assert transformers_version() == transformers.__version__


@pytest.mark.parametrize("kind", SAMPLE)
def test_a_type_generated_anew_is_as_in_the_file(kind: str) -> None:
    section, _ = section_of(kind, list(architectures(kind)))
    assert section is not None
    anew = text({kind: section}).partition("\n\n")[2].rstrip("\n")
    whole = PATH.read_text("utf-8")
    start = whole.index("\n\n" + anew.partition("\n")[0] + "\n") + 2
    assert whole[start:].partition("\n\n")[0].rstrip("\n") == anew


def test_every_section_is_found_and_read() -> None:
    """Names in the first layer of each stack, and the embedding of a type that has none, lead to
    the section of the type, or to a table written by hand."""
    assert list(model_types()) == sorted(model_types())
    seen = 0
    for kind in model_types():
        entry = entry_of(kind, None)
        assert entry is not None
        prefixes = [stack["prefix"] for stack in entry.get("stacks", {}).values()]
        assert all(prefix.endswith("{i}") for prefix in prefixes), kind
        config = {"model_type": kind, "architectures": entry["architectures"][:1]}
        embed = f"{entry.get('places', {}).get('embed', 'x')}.weight"
        family = family_for(config, [embed, *(prefix.replace("{i}", "0") + ".x.weight" for prefix in prefixes)])
        assert not family.inferred, kind
        if prefixes and family.version is not None:
            assert family.name == kind
            assert [stack.prefix for stack in family.stacks] == prefixes
            seen += 1
    assert seen > 400


# --- models of the kinds that names alone tell wrong ----------------------------------------------


@dataclass(frozen=True)
class Case:
    """`places`: module by place; `None`: there is no such place. `aliases`: names that are not
    stored. `depths` by stack, and the key of each."""

    places: dict[str, str | None]
    depths: dict[str, tuple[int, str | None]]
    aliases: tuple[str, ...] = field(default=())


CASES = {
    "roberta-MaskedLM": Case(
        {"embed": "roberta.embeddings.word_embeddings", "head": "lm_head.decoder"},
        {"layers": (3, "num_hidden_layers")},
        ("lm_head.decoder.bias", "lm_head.decoder.weight"),
    ),
    "bart-Seq2SeqLM": Case(
        {"embed": "model.shared", "head": "lm_head", "encoder": "model.encoder"},
        {"encoder.layers": (2, "encoder_layers"), "decoder.layers": (3, "decoder_layers")},
        ("lm_head.weight", "model.decoder.embed_tokens.weight", "model.encoder.embed_tokens.weight"),
    ),
    "falcon-CausalLM": Case(
        {"embed": "transformer.word_embeddings", "head": "lm_head", "norm": "transformer.ln_f"},
        {"layers": (3, "num_hidden_layers")},
        ("lm_head.weight",),
    ),
    "falcon-SequenceClassification": Case({"head": None, "classifier": "score"}, {"layers": (3, "num_hidden_layers")}),
    "whisper-SpeechSeq2Seq": Case(
        {"embed": "model.decoder.embed_tokens", "head": "proj_out"},
        {"encoder.layers": (2, "encoder_layers"), "decoder.layers": (3, "decoder_layers")},
        ("proj_out.weight",),
    ),
    "wav2vec2-CTC": Case(
        {"head": "lm_head"},
        {"layers": (3, "num_hidden_layers"), "wav2vec2.feature_extractor.conv_layers": (7, "num_feat_extract_layers")},
    ),
    "albert-MaskedLM": Case(
        {"embed": "albert.embeddings.word_embeddings", "head": "predictions.decoder"},
        {},
        ("predictions.decoder.bias", "predictions.decoder.weight"),
    ),
    "mllama-ImageTextToText": Case({"text": ("language_model.model", "language_model.lm_head")}, {}),
    "lfm2-CausalLM": Case({"norm": "model.embedding_norm"}, {"layers": (3, "num_hidden_layers")}, ("lm_head.weight",)),
    "modernbert-MaskedLM": Case(
        {"norm": "model.final_norm", "head": "decoder"}, {"layers": (3, "num_hidden_layers")}, ("decoder.weight",)
    ),
    "mistral3-ImageTextToText": Case(
        {"norm": "language_model.model.norm", "projector": "multi_modal_projector", "vision": "vision_tower"},
        {
            "text.layers": (3, "text_config.num_hidden_layers"),
            "vision.layers": (4, "vision_config.num_hidden_layers"),
        },
        ("language_model.lm_head.weight",),
    ),
    "mimi-Model": Case({}, {}),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    def make(name: str) -> Path:
        folder = tmp_path_factory.mktemp(name)
        kind, _, head = name.rpartition("-")
        build(kind, head).save_pretrained(folder)
        return folder

    return make


def model_of(folder: Path) -> Model:
    (model,) = compile_folders("* = a", a=folder).compilation.recipe.models
    return model


@pytest.mark.parametrize("name", CASES)
def test_what_names_alone_tell_wrong(name: str, saved: Callable[[str], Path]) -> None:
    case = CASES[name]
    model = model_of(saved(name))
    assert (model.family.inferred, model.family.version) == (False, transformers.__version__)
    found = {place: model.family.places.get(place) for place in case.places}
    assert found == {place: (said,) if isinstance(said, str) else said for place, said in case.places.items()}
    keys = {stack.name: stack.depth_key for stack in model.family.stacks}
    depths = {stack: (depth, keys[stack]) for stack, depth in model.space.depths.items()}
    assert case.depths.items() <= depths.items()
    assert tuple(sorted(model.aliases)) == case.aliases
    assert disagreements(model) == []


def test_a_model_in_the_names_of_memory_is_read_as_one_in_those_of_files(tmp_path: Path) -> None:
    """Trainers store what they hold: experts in one tensor, other prefixes."""
    made = build("mixtral", "CausalLM")
    made.save_pretrained(tmp_path / "file")
    (tmp_path / "memory").mkdir()
    state = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    save_file(state, tmp_path / "memory" / "model.safetensors")
    config = json.loads((tmp_path / "file" / "config.json").read_text("utf-8"))
    config["architectures"] = ["MixtralForCausalLM"]
    (tmp_path / "memory" / "config.json").write_text(json.dumps(config), "utf-8")
    one, other = model_of(tmp_path / "file"), model_of(tmp_path / "memory")
    assert set(one.tensors) == set(other.tensors)
    stored = load_file(tmp_path / "file" / "model.safetensors")
    for name, view in other.tensors.items():
        flat = state[view.stored].reshape(-1)
        count = stored[name].numel()
        assert torch.equal(flat[view.first : view.first + count], stored[name].reshape(-1)), name


def test_a_bare_model_has_the_places_of_a_whole_one(tmp_path: Path) -> None:
    config = small_config("olmo2", "CausalLM")
    build("olmo2", "CausalLM", config).save_pretrained(tmp_path / "whole")
    transformers.Olmo2Model(config).save_pretrained(tmp_path / "bare")
    whole, bare = model_of(tmp_path / "whole"), model_of(tmp_path / "bare")
    assert bare.layout == "bare"
    assert set(bare.tensors) == {name for name in whole.tensors if name != "lm_head.weight"}
    assert "head" not in bare.family.places


def test_names_that_fit_no_section_lead_to_inference() -> None:
    names = [f"net.blocks.{i}.attn.wq.weight" for i in range(4)]
    assert family_for({"model_type": "olmo2", "architectures": ["Olmo2ForCausalLM"]}, names).inferred
