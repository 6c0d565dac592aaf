"""How families of models name their tensors.

In: tensor names, and a config's `model_type`. Out: canonical names, stacks, layers and roles, and
what the places of a recipe cover. `families/` holds a table for each family that is known.
"""

__all__ = [
    "config_keys",
    "config_rules",
    "expected",
    "family",
    "folding",
    "layer_facts",
    "parts",
    "patterns",
    "place",
    "space",
]
