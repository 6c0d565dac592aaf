"""Small models of every model type that the installed transformers builds, for the tools and tests
that ask what holds for all of them. Deterministic; on the CPU, or on `meta` without weights.

    for kind, head, _ in pairs():
        model = build(kind, head, device="meta")

The main stack is 3 deep, a vision tower 4, an audio tower 5, an encoder 2 (where the class allows),
so that the depth of one never passes for another's. What the rules don't find for a type is in
overrides.toml.
"""

from .build import ABSENT, NotBuilt, build, small_config
from .pairs import BARE, Pair, auto_class, is_encoder, pair, pairs

__all__ = ["ABSENT", "BARE", "NotBuilt", "Pair", "auto_class", "build", "is_encoder", "pair", "pairs", "small_config"]
