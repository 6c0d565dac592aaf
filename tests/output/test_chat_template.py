"""`output(chat_template=…)`: a model's, one known by name, or a text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mergec
import numpy as np
import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment
from safetensors.numpy import save_file
from small_tokenizers import llama, word_level, words
from transformers import AutoTokenizer

MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "Bye"},
]
RENDERED = {
    "chatml": "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
    "<|im_start|>assistant\nHello.<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n",
    "llama3": "<s><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\nHello.<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nBye<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    "alpaca": "Be brief.\n\n### Instruction:\nHi\n\n### Response:\nHello.\n\n### Instruction:\nBye\n\n### Response:\n",
    "mistral": "<s>[INST] Be brief.\n\nHi [/INST] Hello.</s>[INST] Bye [/INST]",
}


def made(tmp_path: Path, setting: str) -> str:
    for name in ("a", "b"):
        (tmp_path / name).mkdir(exist_ok=True)
        save_file({"x.weight": np.ones(3, np.float32)}, tmp_path / name / "model.safetensors")
        (tmp_path / name / "config.json").write_text("{}")
    (tmp_path / "b" / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ 'from b' }}"}))
    lets = f'let a = model("{tmp_path / "a"}")\nlet b = model("{tmp_path / "b"}")\n'
    compiled = mergec.compile(f'{lets}output(like=a, chat_template={setting})\n"*" = linear(a, b)\n', device="cpu")
    compiled.run(tmp_path / "out", force=True)
    return (tmp_path / "out" / "chat_template.jinja").read_text()


@pytest.mark.parametrize("name", RENDERED)
def test_by_name(tmp_path: Path, name: str) -> None:
    template = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(
        made(tmp_path, f'"{name}"')
    )
    shown = template.render(messages=MESSAGES, add_generation_prompt=True, bos_token="<s>", eos_token="</s>")
    assert shown == RENDERED[name]


def test_of_a_model_and_as_text(tmp_path: Path) -> None:
    assert made(tmp_path, "b") == "{{ 'from b' }}"
    assert made(tmp_path, "\"{{ messages[0]['content'] }}\"") == "{{ messages[0]['content'] }}"


def test_a_name_that_is_not_known(tmp_path: Path) -> None:
    with pytest.raises(mergec.MergecError) as caught:
        made(tmp_path, '"chatlm"')
    assert [d.code for d in caught.value.diagnostics] == ["E0208"]


# --- the only one that is there

OLD = "OLD {{ messages[0]['content'] }}"
PLACES: dict[str, dict[str, Any]] = {
    "chat_template.jinja": {"chat_template.jinja": OLD},
    "chat_template.json": {"chat_template.json": {"chat_template": OLD}},
    "tokenizer_config.json": {"tokenizer_config.json": {"chat_template": OLD, "eos_token": "</s>"}},
    "a list": {"tokenizer_config.json": {"chat_template": [{"name": "default", "template": OLD}]}},
    "processor_config.json": {"processor_config.json": {"chat_template": OLD, "image_seq_length": 3}},
    "named ones": {"chat_template.jinja": OLD, "additional_chat_templates/tool_use.jinja": "OLD TOOL"},
}
NEW = "NEW {{ messages[0]['content'] }}"


def models(tmp_path: Path, **files: dict[str, Any]) -> None:
    for seed, (name, own) in enumerate(files.items()):
        llama(tmp_path / name, seed, word_level(words(9)), files=own)


def merged(tmp_path: Path, settings: str) -> Path:
    lets = "".join(f'let {p.name} = model("{p}")\n' for p in sorted(tmp_path.iterdir()) if p.name != "out")
    mergec.compile(f"{lets}output(like=a, {settings})\n* = a\n", device="cpu").run(tmp_path / "out", force=True)
    return tmp_path / "out"


def everywhere(folder: Path) -> dict[str, Any]:
    """All chat templates of a folder, wherever they are."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.suffix == ".jinja":
            found[name] = path.read_text()
        elif path.suffix == ".json" and "chat_template" in (said := json.loads(path.read_text())):
            found[name] = said["chat_template"]
    return found


def shown(folder: Path, **more: Any) -> str:
    """What transformers makes of a message with the folder's template."""
    message = [{"role": "user", "content": "hello"}]
    return str(AutoTokenizer.from_pretrained(folder).apply_chat_template(message, tokenize=False, **more))


@pytest.mark.parametrize("place", PLACES)
def test_a_written_one_leaves_no_other_behind(tmp_path: Path, place: str) -> None:
    models(tmp_path, a=PLACES[place], b={"chat_template.jinja": NEW})
    for setting, text in (("b", NEW), (f'"{NEW}"', NEW), ('"chatml"', None)):
        out = merged(tmp_path, f"chat_template={setting}")
        assert list(everywhere(out)) == ["chat_template.jinja"]
        assert text is None or shown(out) == "NEW hello"
    kept = [name for name in PLACES[place] if name.endswith("config.json")]
    for name in kept:
        rest = {k: v for k, v in PLACES[place][name].items() if k != "chat_template"}
        assert json.loads((out / name).read_text()) == rest


@pytest.mark.parametrize("place", PLACES)
def test_one_of_a_model_is_found_wherever_it_is(tmp_path: Path, place: str) -> None:
    models(tmp_path, a={"chat_template.jinja": NEW, "additional_chat_templates/old.jinja": "NEW"}, b=PLACES[place])
    out = merged(tmp_path, "chat_template=b")
    wanted = {"chat_template.jinja": OLD}
    if place == "named ones":
        wanted = {"additional_chat_templates/tool_use.jinja": "OLD TOOL", **wanted}
    assert everywhere(out) == wanted
    assert shown(out) == "OLD hello"


def test_named_ones_in_one_file(tmp_path: Path) -> None:
    named = [{"name": "default", "template": OLD}, {"name": "tool_use", "template": "TOOL"}]
    models(tmp_path, a={}, b={"tokenizer_config.json": {"chat_template": named}})
    out = merged(tmp_path, "chat_template=b")
    assert everywhere(out) == {"additional_chat_templates/tool_use.jinja": "TOOL", "chat_template.jinja": OLD}
    assert (shown(out), shown(out, chat_template="tool_use")) == ("OLD hello", "TOOL")


@pytest.mark.parametrize("name", ["../../evil", "a/b", "", ".", "..", "a\\b", "a\0b"])
def test_names_that_lead_elsewhere(tmp_path: Path, name: str) -> None:
    models(tmp_path, a={}, b={"tokenizer_config.json": {"chat_template": [{"name": name, "template": "x"}]}})
    with pytest.raises(mergec.MergecError) as caught:
        merged(tmp_path, "chat_template=b")
    assert [d.code for d in caught.value.diagnostics] == ["E0436"]


@pytest.mark.parametrize("settings", ["", "tokenizer=a", "pad_vocab_to=16"])
@pytest.mark.parametrize("place", PLACES)
def test_the_templates_own_go_along(tmp_path: Path, place: str, settings: str) -> None:
    models(tmp_path, a=PLACES[place])
    assert everywhere(merged(tmp_path, settings)) == everywhere(tmp_path / "a")


@pytest.mark.parametrize("place", PLACES)
def test_those_of_the_tokenizers_model_go_along_and_no_others(tmp_path: Path, place: str) -> None:
    everything: dict[str, Any] = {name: content for files in PLACES.values() for name, content in files.items()}
    models(tmp_path, a=everything, b=json.loads(json.dumps(PLACES[place]).replace("OLD", "NEW")))
    for settings in ("tokenizer=b", "tokenizer=union(b, a)"):
        out = merged(tmp_path, settings)
        found = everywhere(out)
        assert found
        assert "OLD" not in json.dumps(found)
        assert place == "chat_template.json" or shown(out) == "NEW hello"  # that file is for processors alone
        assert json.loads((out / "processor_config.json").read_text()) == {"image_seq_length": 3}


def test_a_tokenizer_without_one_brings_none(tmp_path: Path) -> None:
    models(tmp_path, a={**PLACES["named ones"], **PLACES["processor_config.json"]}, b={})
    assert everywhere(merged(tmp_path, "tokenizer=b")) == {}


def test_none_to_take(tmp_path: Path) -> None:
    models(tmp_path, a=PLACES["chat_template.jinja"], b={})
    with pytest.raises(mergec.MergecError) as caught:
        merged(tmp_path, "chat_template=b")
    assert [d.code for d in caught.value.diagnostics] == ["E0318"]
