"""The columns of results.tsv."""

from __future__ import annotations

from collections.abc import Mapping

COLUMNS: Mapping[str, str] = {
    "stacks": "`inspect` tells the depth of each main stack under a documented name",
    "ties": "`inspect` tells what is tied",
    "linear": "`* = linear(a, b)`: names, shapes, dtypes; values against float64",
    "config": "config.json of that output is the model's",
    "verify": "`mergec verify` finds nothing in it",
    "load": "transformers loads it with no key missing or left over, and finds the mean",
    "command": "the command line makes the same bytes (one pair in forty)",
    "slerp": "`* = slerp(a, b, t=0.5)`: names, shapes, dtypes; values against float64",
    "layer": "`layers[0] = b`, in each main stack: just the tensors of block 0",
    "embed": "`embed = b`: just the input embedding",
    "norm": "`norm = b`: just the norm beside the main stack",
    "head": "`head = b`: just the output head, which is untied where it was tied",
    "depth": "`stack(a.layers[0..1], a.layers[0..1])`: loads at that depth, right blocks, right logits",
    "kinds": "the same of the whole stack twice, and of all layers but the first",
    "lean": "inspect and linear alike under a config without what transformers completes",
    "lean kinds": "depth and kinds where kinds of layers follow from a rule, under a config with the rule alone",
}
"""What each check is about, in the order of the columns. The check `linear` fills those up to
`command`."""
