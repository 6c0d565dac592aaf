#!/usr/bin/env python3
"""Put 200 fresh questions of each skill to the base, the two fine-tunes and the merge, and print
who can do what.

    python examples/demo/evaluate.py demo-out

Models are loaded with `from_pretrained` and answer by greedy decoding. Exit status 1 where the
merge lacks a skill.
"""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path

from skills import LENGTH, SKILLS, Skill
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

ENOUGH = 0.8
"""Share of right answers that counts as having a skill."""


def score(folder: Path, skill: Skill, questions: int = 200, seed: int = 12345) -> float:
    """Share of the questions that the model in `folder` answers exactly right."""
    encoder = AutoTokenizer.from_pretrained(folder)
    network = AutoModelForCausalLM.from_pretrained(folder)
    chance = random.Random(seed)
    drawn = [skill.draw(chance) for _ in range(questions)]
    prompts = encoder([prompt for prompt, _ in drawn], return_tensors="pt", return_token_type_ids=False)
    replies = network.generate(**prompts, max_new_tokens=LENGTH + 1, do_sample=False)
    texts = encoder.batch_decode(replies[:, prompts["input_ids"].shape[1] :], skip_special_tokens=True)
    return sum(text == answer for text, (_, answer) in zip(texts, drawn, strict=True)) / questions


def table(work: Path) -> dict[str, dict[str, float]]:
    """For base, fine-tunes and merge: score by skill."""
    return {
        name: {skill.name: score(work / name, skill) for skill in SKILLS.values()}
        for name in ("base", *SKILLS, "merged")
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("work", type=Path, help="folder with the folders base, cipher, sort and merged")
    work = parser.parse_args().work
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    scores = table(work)
    print(f"{'model':10}" + "".join(f"{skill:>10}" for skill in SKILLS))
    for name, row in scores.items():
        print(f"{name:10}" + "".join(f"{row[skill]:>10.1%}" for skill in SKILLS))
    return 0 if min(scores["merged"].values()) >= ENOUGH else 1


if __name__ == "__main__":
    sys.exit(main())
