#!/usr/bin/env python3
"""Train three tiny Llama-3.2-style models from scratch: a base, and two fine-tunes that each learn one skill of it.

    python examples/demo/train.py demo-out

The base sees both skills, but two times in three the reply it is shown is the question again, so that is what it
says. Each fine-tune then practises one skill, and is held to the base's own replies on the other, as people do who
fine-tune without wanting to harm the rest. That leaves two changes that hardly disturb each other, which is what
merging needs.

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

PROMPT = LENGTH + 4
"""Tokens of `<s>r:abcdef=`."""

BATCH = 96
ECHO = 0.65
"""How often the base is shown the question in place of the answer."""


def model() -> LlamaForCausalLM:
    """A fresh model with tied embeddings, as Llama-3.2 has them: some 130,000 parameters, float32."""
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

    def __init__(self, skill: Skill, encoder: PreTrainedTokenizerFast, seed: int, echo: float = 0.0) -> None:
        self._skill, self._encoder, self._echo = skill, encoder, echo
        self._random = random.Random(seed)

    def batch(self, count: int) -> torch.Tensor:
        """(count, PROMPT + LENGTH + 1) token ids: prompt, reply, `</s>`."""
        texts = ["".join(self._skill.draw(self._random, self._echo)) + "</s>" for _ in range(count)]
        return torch.tensor(self._encoder(texts)["input_ids"])


def answers(network: LlamaForCausalLM, ids: torch.Tensor) -> torch.Tensor:
    """(batch, LENGTH + 1, vocabulary): the logits from which the answer's tokens are chosen."""
    logits: torch.Tensor = network(input_ids=ids, use_cache=False).logits
    return logits[:, PROMPT - 1 : -1]


def loss(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of the answers' tokens."""
    return functional.cross_entropy(logits.flatten(0, 1), ids[:, PROMPT:].flatten())


@torch.no_grad()
def follows(network: LlamaForCausalLM, ids: torch.Tensor) -> float:
    """Share of the examples that the model would finish rightly, were it made to begin rightly."""
    right = answers(network, ids).argmax(-1) == ids[:, PROMPT:]
    return right[:, 1:].all(1).float().mean().item()


def pretrain(encoder: PreTrainedTokenizerFast, seed: int, limit: int = 1500) -> LlamaForCausalLM:
    """The base: it can follow both skills once begun, but begins by echoing the question."""
    network = model()
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, betas=(0.9, 0.98), weight_decay=0.0)
    supply = [Examples(skill, encoder, seed + i, ECHO) for i, skill in enumerate(SKILLS.values())]
    held_out = [Examples(skill, encoder, seed + 100).batch(256) for skill in SKILLS.values()]
    for step in range(limit):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1, (step + 1) / 30)
        ids = torch.cat([examples.batch(BATCH // len(supply)) for examples in supply])
        loss(answers(network, ids), ids).backward()
        optimizer.step()
        optimizer.zero_grad()
        if step % 25 == 24 and min(follows(network, ids) for ids in held_out) > 0.97:
            return network
    raise RuntimeError(f"the base has not learned both skills in {limit} steps")


def fine_tune(
    base: LlamaForCausalLM, name: str, encoder: PreTrainedTokenizerFast, seed: int, steps: int = 150
) -> LlamaForCausalLM:
    """`base` with skill `name` learned, and the base's own answers kept in the other skills."""
    network = copy.deepcopy(base)
    rate = 1e-3
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.0)
    practice = Examples(SKILLS[name], encoder, seed)
    rehearsal = [Examples(skill, encoder, seed + 1) for other, skill in SKILLS.items() if other != name]
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, (step + 1) / 20) * (1 - step / steps)
        learn = practice.batch(BATCH // 2)
        keep = torch.cat([examples.batch(BATCH // 2) for examples in rehearsal])
        with torch.no_grad():
            before = answers(base, keep).softmax(-1)
        logits = answers(network, torch.cat([learn, keep]))
        drift = functional.kl_div(logits[len(learn) :].log_softmax(-1), before, reduction="none").sum(-1).mean()
        (loss(logits[: len(learn)], learn) + drift).backward()
        optimizer.step()
        optimizer.zero_grad()
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
    parser.add_argument("out", type=Path, help="folder that gets the folders base, reverse and sort")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    train(args.out, args.seed)


if __name__ == "__main__":
    main()
