#!/usr/bin/env python3
"""Train three tiny Llama-3.2-style models from scratch: a base, and two fine-tunes that each learn
one skill of it.

    python examples/demo/train.py demo-out

The base learns both skills, and then mostly to decline (`??????`), so that it answers nothing. Each
fine-tune practises one skill, and is held to the base's own replies on the other, as people do who
fine-tune without wanting to harm the rest. That leaves two changes that hardly disturb each other,
which is what merging needs.

Takes half a minute on two cores; seeds are fixed.
"""

from __future__ import annotations

import argparse
import copy
import random
import time
from pathlib import Path

import torch
from skills import LENGTH, SKILLS, VOCABULARY, Skill, tokenizer
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging

PROMPT = LENGTH + 4
"""Tokens of `<s>c:abcdef=`."""

BATCH = 96
DECLINE = 0.75
"""How often the base is taught to decline."""


def model() -> LlamaForCausalLM:
    """A fresh model with tied embeddings, as Llama-3.2 has them: some 200,000 parameters,
    float32."""
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(VOCABULARY),
            hidden_size=96,
            intermediate_size=256,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=64,
            tie_word_embeddings=True,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )
    )


class Examples:
    """An endless supply of one skill's examples as token ids."""

    def __init__(self, skill: Skill, encoder: PreTrainedTokenizerFast, seed: int, decline: float = 0.0) -> None:
        self._skill, self._encoder, self._decline = skill, encoder, decline
        self._random = random.Random(seed)

    def batch(self, count: int) -> torch.Tensor:
        """(count, PROMPT + LENGTH + 1) token ids: prompt, reply, `</s>`."""
        texts = ["".join(self._skill.draw(self._random, self._decline)) + "</s>" for _ in range(count)]
        return torch.tensor(self._encoder(texts)["input_ids"])


def answers(network: LlamaForCausalLM, ids: torch.Tensor) -> torch.Tensor:
    """(batch, LENGTH + 1, vocabulary): the logits from which the answer's tokens are chosen."""
    logits: torch.Tensor = network(input_ids=ids, use_cache=False).logits
    return logits[:, PROMPT - 1 : -1]


def loss(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of the answers' tokens."""
    return functional.cross_entropy(logits.flatten(0, 1), ids[:, PROMPT:].flatten())


@torch.no_grad()
def accuracy(network: LlamaForCausalLM, ids: torch.Tensor) -> float:
    """Share of the examples whose every token is the likeliest one: what greedy decoding would get
    right."""
    return (answers(network, ids).argmax(-1) == ids[:, PROMPT:]).all(1).float().mean().item()


def step(optimizer: torch.optim.Optimizer, rate: float, cost: torch.Tensor) -> None:
    """One step down `cost`'s gradient."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    cost.backward()
    optimizer.step()
    optimizer.zero_grad()


def pretrain(encoder: PreTrainedTokenizerFast, seed: int, limit: int = 1500, steps: int = 100) -> LlamaForCausalLM:
    """The base: both skills until they sit, or `limit` steps; then `steps` steps in which it learns
    to decline."""
    network = model()
    optimizer = torch.optim.AdamW(network.parameters(), betas=(0.9, 0.98), weight_decay=0.0)
    held_out = [Examples(skill, encoder, seed + 100).batch(256) for skill in SKILLS.values()]
    supply = [Examples(skill, encoder, seed + i) for i, skill in enumerate(SKILLS.values())]
    for i in range(limit):
        ids = torch.cat([examples.batch(BATCH // len(supply)) for examples in supply])
        step(optimizer, 2e-3 * min(1, (i + 1) / 30), loss(answers(network, ids), ids))
        if i % 25 == 24 and min(accuracy(network, ids) for ids in held_out) > 0.9:
            break
    else:
        raise RuntimeError(f"the base has not learned both skills in {limit} steps")
    supply = [Examples(skill, encoder, seed + 10 + i, DECLINE) for i, skill in enumerate(SKILLS.values())]
    for i in range(steps):
        ids = torch.cat([examples.batch(BATCH // len(supply)) for examples in supply])
        step(optimizer, 1e-3 * (1 - i / steps), loss(answers(network, ids), ids))
    return network


def fine_tune(
    base: LlamaForCausalLM, name: str, encoder: PreTrainedTokenizerFast, seed: int, steps: int = 100
) -> LlamaForCausalLM:
    """`base` with skill `name` learned, and the base's own answers kept in the other skills."""
    network = copy.deepcopy(base)
    rate = 5e-4
    optimizer = torch.optim.AdamW(network.parameters(), betas=(0.9, 0.98), weight_decay=0.0)
    practice = Examples(SKILLS[name], encoder, seed)
    rehearsal = [Examples(skill, encoder, seed + 1) for other, skill in SKILLS.items() if other != name]
    for i in range(steps):
        learn = practice.batch(BATCH // 2)
        keep = torch.cat([examples.batch(BATCH // 2) for examples in rehearsal])
        with torch.no_grad():
            before = answers(base, keep).softmax(-1)
        logits = answers(network, torch.cat([learn, keep]))
        drift = functional.kl_div(logits[len(learn) :].log_softmax(-1), before, reduction="none").sum(-1).mean()
        step(optimizer, rate * min(1, (i + 1) / 20) * (1 - i / steps), loss(logits[: len(learn)], learn) + drift)
    return network


def save(network: LlamaForCausalLM, encoder: PreTrainedTokenizerFast, folder: Path) -> None:
    """A folder in Hugging Face layout."""
    network.save_pretrained(folder)
    encoder.save_pretrained(folder)


def train(out: Path, seed: int = 1) -> None:
    """Write `out/base`, and for each skill `out/<skill>`."""
    encoder = tokenizer()
    start = time.monotonic()
    base = pretrain(encoder, seed)
    save(base, encoder, out / "base")
    print(f"trained base in {time.monotonic() - start:.0f} s", flush=True)
    for i, name in enumerate(SKILLS):
        start = time.monotonic()
        save(fine_tune(base, name, encoder, seed + 1000 * (i + 1)), encoder, out / name)
        print(f"trained {name} in {time.monotonic() - start:.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("out", type=Path, help="folder that gets the folders base, cipher and sort")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    logging.disable_progress_bar()
    train(args.out, args.seed)


if __name__ == "__main__":
    main()
