"""What to do about a pickle that can't be read: how PyTorch itself makes of it what can.

The commands do not spell the file's own name: that comes from a stranger, and this is pasted. So a
key is in them only where it is a plain word.
"""

from __future__ import annotations

from collections.abc import Sequence

_SAVE = "save_file({{k: {each} for k, v in t.items() if isinstance(v, torch.Tensor)}}, 'model.safetensors')"

PLAIN = "v.contiguous().clone()"
"""A tensor as it is stored in safetensors, in Python, of the tensor `v`."""

AGAIN = (
    'let PyTorch write it anew, which reads it without running code either: `python -c "import torch; '
    "torch.save(torch.load('FILE', map_location='cpu', weights_only=True), 'weights.pt')\"`, and name `weights.pt`",
    "where PyTorch refuses what else is in it, and you trust its maker: the same with `weights_only=False`",
)
"""Help for a file whose form alone is another: what is in it may be anything, and stays."""

CONVERT_SCRIPT = (
    'convert it where you trust it, as loading a program can run it: `python -c "import torch; '
    "from safetensors.torch import save_file; t = torch.jit.load('FILE', map_location='cpu').state_dict(); "
    f'{_SAVE.format(each=PLAIN)}"`',
)
"""Help for a program, of which PyTorch has no reader that runs nothing."""


def conversion(key: Sequence[str], unfamiliar: bool, each: str = PLAIN) -> tuple[str, ...]:
    """Help for a file with a state dict under `key` (one word a level) that holds what can't be
    read as it is; `each` is what makes it so. `unfamiliar`: it has objects of classes that PyTorch
    makes only where it may run code."""
    picked = "".join(f"['{word if word.isidentifier() else 'KEY'}']" for word in key)
    how = (
        "where you trust it, as loading it can run code" if unfamiliar else "which reads it without running code either"
    )
    load = f"t = torch.load('FILE', map_location='cpu', weights_only={not unfamiliar}){picked}"
    command = f"import torch; from safetensors.torch import save_file; {load}; {_SAVE.format(each=each)}"
    return (f'convert it with PyTorch, {how}: `python -c "{command}"`',)


def from_object(key: Sequence[str]) -> tuple[str, ...]:
    """Help for a file with a whole model as an object, under `key`."""
    picked = "".join(f"['{word if word.isidentifier() else 'KEY'}']" for word in key)
    command = f"import torch; torch.save(torch.load('FILE', weights_only=False){picked}.state_dict(), 'weights.pt')"
    return (
        "don't load it elsewhere unless you trust its maker; who does can save its state dict, with the program that"
        f' wrote it installed: `python -c "{command}"`, and name `weights.pt`',
    )
