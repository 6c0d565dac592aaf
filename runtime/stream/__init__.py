"""What both backends share.

Sweeps over the blocks of a pass, as often as its reductions need; ranges of files; the order of
sums; small tensors many at a time; and the interfaces through which a run sees files and people.
Needs no torch.
"""

__all__ = ["batching", "interfaces", "nonfinite", "passes", "ranges", "summation"]
