"""`verify` where config.json says nothing of ties: the family's default holds, and is held against
the tensors."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import checkpoints
import mergec
import pytest

EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"
KEY = "tie_word_embeddings"
BROKEN = f"`{HEAD}` and `{EMBED}` are tied, but hold different bytes"
MISSING = f"`{KEY}` is not set, which says that `{HEAD}` is a tensor of its own, but it is not stored"


def verified(out: Path) -> tuple[str, list[str], list[str]]:
    """How config.json is judged, the codes of what is wrong, and the messages."""
    found = mergec.verify(out)
    (check,) = [c for c in found.checks if c.name == "config"]
    return check.verdict.value, [d.code for d in check.findings], [d.message for d in check.findings]


@pytest.mark.parametrize(
    ("family", "stored", "said"),
    [
        # gemma ties unless told otherwise, llama doesn't
        ("gemma2", False, []),
        ("gemma2", True, [f"`{HEAD}` and `{EMBED}` are tied, but hold different bytes"]),
        ("llama", True, []),
        (
            "llama",
            False,
            [f"`{KEY}` is not set, which says that `{HEAD}` is a tensor of its own, but it is not stored"],
        ),
    ],
)
def test_silence_is_the_default_of_the_family(
    family: str, stored: bool, said: list[str], checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(checkpoint(family), tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text("utf-8"))
    recipe = "* = 2*a\n" + ("head = 3*a.embed\n" if stored else "head = tie(embed)\n")
    mergec.compile(f'let a = model("{folder}")\n{recipe}', device="cpu").run(tmp_path / "out")
    assert (HEAD in checkpoints.load(tmp_path / "out")) == stored
    # as it is written it is right, and after the key is gone it says what the family says
    assert verified(tmp_path / "out") == ("ok", [], [])
    made = json.loads((tmp_path / "out" / "config.json").read_text("utf-8"))
    assert made.pop(KEY, config.get(KEY)) is not None or family == "gemma2"
    (tmp_path / "out" / "config.json").write_text(json.dumps(made), "utf-8")
    verdict, codes, messages = verified(tmp_path / "out")
    assert messages == said
    assert (verdict, codes) == (("failed", ["E0653"]) if said else ("ok", []))
