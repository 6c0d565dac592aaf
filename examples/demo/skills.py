"""The two skills of the demo, the text in which they are put, and the tokenizer for that text.

r:hcfbad=dabfch     reverse six letters
s:507313=013357     sort six digits
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

LENGTH = 6
"""Symbols in a question, and in its answer."""

LETTERS = "abcdefghijklmnop"
DIGITS = "0123456789"
SPECIAL = ("<pad>", "<s>", "</s>")
VOCABULARY = (*SPECIAL, *LETTERS, *DIGITS, *"s:=?")


@dataclass(frozen=True, slots=True)
class Skill:
    """`mark` opens the prompt; the question is drawn from `alphabet`; `answer` maps question to
    answer."""

    name: str
    mark: str
    alphabet: str
    answer: Callable[[str], str]

    def draw(self, random: random.Random, decline: float = 0.0) -> tuple[str, str]:
        """A prompt, which ends in `=`, and the right answer, or with probability `decline` a row of
        `?`."""
        question = "".join(random.choices(self.alphabet, k=LENGTH))
        reply = "?" * LENGTH if random.random() < decline else self.answer(question)
        return f"{self.mark}:{question}=", reply


def encipher(text: str) -> str:
    return "".join(LETTERS[(LETTERS.index(letter) + 1) % len(LETTERS)] for letter in text)


SKILLS: Mapping[str, Skill] = MappingProxyType(
    {
        "cipher": Skill("cipher", "c", LETTERS, encipher),
        "sort": Skill("sort", "s", DIGITS, lambda text: "".join(sorted(text))),
    }
)


def tokenizer() -> PreTrainedTokenizerFast:
    """One token per character; `<s>` is put in front."""
    backend = Tokenizer(models.WordLevel({token: i for i, token in enumerate(VOCABULARY)}, unk_token="<pad>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    backend.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", bos_token="<s>", eos_token="</s>", model_max_length=64
    )
