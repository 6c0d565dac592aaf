"""What to do about a pickle that can't be read: how PyTorch itself turns it into safetensors."""

from __future__ import annotations

_SAVE = "save_file({k: v.contiguous().clone() for k, v in tensors.items()}, 'model.safetensors')"

CONVERT = (
    'convert it with PyTorch, which reads it without running code either: `python -c "import torch; '
    "from safetensors.torch import save_file; tensors = torch.load('FILE', weights_only=True); "
    f'{_SAVE}"`',
)
"""Help for a file of weights. It does not spell the file's own name: that comes from a stranger,
and this is pasted."""

CONVERT_SCRIPT = (
    'convert it where you trust it, as loading a program can run it: `python -c "import torch; '
    f"from safetensors.torch import save_file; tensors = torch.jit.load('FILE').state_dict(); {_SAVE}\"`",
)
"""The same for a program, of which PyTorch has no reader that runs nothing."""
