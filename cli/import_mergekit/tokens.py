"""Tokenizer and chat template as settings of the output."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from ...compiler.models import Model
from ...compiler.vocabulary import parse_vocabulary
from ...grammar.diagnostic import Diagnostic, Label, MergecError
from ...grammar.literals import write_string
from .checkpoints import Shelf
from .model import Merge, ModelRef, Text, Tokenizer, TokenRule
from .sheet import Origin
