"""`output(chat_template=…)`: a model's, one known by name, or a text."""

from __future__ import annotations

import json
from pathlib import Path

import mergec
import numpy as np
import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment
from safetensors.numpy import save_file

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
