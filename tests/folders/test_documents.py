"""Which documents in folders below go along, and which do not."""

from __future__ import annotations

import os
from pathlib import Path

import mergec
import torch
from safetensors.torch import save_file

GO_ALONG = [
    "additional_chat_templates/rag.jinja",
    "qformer_tokenizer/tokenizer.json",
    "qformer_tokenizer/special_tokens_map.json",
    "question_encoder_tokenizer/tokenizer_config.json",
    "question_encoder_tokenizer/vocab.txt",
    "image_processor/preprocessor_config.json",
    "video/video_preprocessor_config.json",
    "code/layers.py",
    "code/deeper/__init__.py",
    "modeling_own.py",
    "video_preprocessor_config.json",
    "processor_config.json",
    "chat_template.jinja",
    "spk_dict.pt",
]
STAY = [
    "checkpoint-500/tokenizer_config.json",
    "checkpoint-500/model.safetensors",
    "runs/events.out.tfevents",
    "onnx/model.onnx",
    "onnx/tokenizer.json",
    "state/tokenizer.json",
    "state/trainer_state.json",
    "notes/thesis.txt",
    "original/params.json",
    "original/consolidated.00.pth",
    ".cache/tokenizer.json",
    "__pycache__/modeling_own.cpython-311.py",
    "code/data.csv",
    "qformer_tokenizer/README.md",
]


def test_documents_of_tokenizers_processors_and_code_go_along(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    for name in (*GO_ALONG, *STAY):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    save_file({"w": torch.ones(2, 2)}, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text('{"model_type": "odd"}')
    mergec.compile(f'let a = model("{folder}")\n* = a', device="cpu").run(tmp_path / "out")
    out = tmp_path / "out"
    found = {os.path.relpath(Path(at) / n, out) for at, _, names in os.walk(out) for n in names}
    assert found == {*GO_ALONG, "README.md", "config.json", "mergec.json", "model.safetensors"}
    assert mergec.verify(out).ok
