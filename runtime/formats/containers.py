"""Weights in containers that are not read, recognised by the names in their folder: what each is,
and what converts it."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterable

from ...compiler.checkpoint.catalog import CatalogError
from ...grammar.records import dataclass
from ..files.faults import show


@dataclass(frozen=True, slots=True)
class Container:
    """A format: globs of names, any of which shows it, what it is called, and how to get
    safetensors from it.

    `training`: it is the weights, whatever pickles of training state are next to it.
    """

    patterns: tuple[str, ...]
    title: str
    convert: str
    training: bool = False


_SAVE = "load it with the program that wrote it, and save it as safetensors"

_NPZ = (
    'convert them: `python -c "import numpy; from safetensors.numpy import save_file; '
    "save_file(dict(numpy.load('FILE')), 'model.safetensors')\"`; codes and scales of MLX's quantisation stay such"
)

CONTAINERS = (
    Container(
        ("*.distcp", ".metadata"),
        "a distributed checkpoint of PyTorch (DCP, as FSDP saves it)",
        "convert it: `python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER model.pt`, with the"
        " folder in which the `.distcp` files are, and name `model.pt` with `--allow-pickle`; or"
        " `accelerate merge-weights FOLDER OUTPUT` writes safetensors",
        training=True,
    ),
    Container(
        ("zero_to_fp32.py", "global_step*", "*zero_pp_rank_*", "*_optim_states.pt", "mp_rank_*_model_states.pt"),
        "a training checkpoint of DeepSpeed",
        "convert it: `python zero_to_fp32.py . OUTPUT --safe_serialization` writes safetensors, in the folder that"
        " DeepSpeed has put that script in, above `global_step…`",
        training=True,
    ),
    Container(
        ("mp_rank_*", "latest_checkpointed_iteration.txt"),
        "a checkpoint of Megatron-LM",
        "convert it with Megatron's own `tools/checkpoint/convert.py`, which can write transformers' format",
        training=True,
    ),
    Container(("*.nemo",), "an archive of NVIDIA NeMo", "unpack it with `tar -xf`, and convert the weights in it"),
    Container(
        ("*.gguf", "*.ggml"),
        "a GGUF file, as llama.cpp runs it",
        "name the model that it was made of; or load it with transformers,"
        ' `AutoModelForCausalLM.from_pretrained(FOLDER, gguf_file="NAME.gguf")`, and `save_pretrained`',
    ),
    Container(
        ("manifest.ocdbt", "_CHECKPOINT_METADATA", "checkpoint.orbax-checkpoint-tmp*"),
        "a checkpoint of Orbax (JAX)",
        _SAVE,
    ),
    Container(
        ("*.msgpack",),
        "weights of Flax",
        "convert them with transformers before version 5: `from_pretrained(FOLDER, from_flax=True)`, then"
        " `save_pretrained`",
    ),
    Container(
        ("*.h5", "*.keras", "*.ckpt.index", "*.ckpt.data-*", "saved_model.pb"),
        "weights of TensorFlow",
        "convert them with transformers before version 5: `from_pretrained(FOLDER, from_tf=True)`, then"
        " `save_pretrained`",
    ),
    Container(("*.onnx",), "a graph of ONNX", "name the model that it was exported from"),
    Container(("openvino_model.*",), "a model of OpenVINO", "name the model that it was exported from"),
    Container(("*.mlmodel", "*.mlpackage"), "a model of Core ML", "name the model that it was exported from"),
    Container(("*.engine", "*.plan"), "an engine of TensorRT", "name the model that it was built from"),
    Container(("*.npz",), "arrays of NumPy, as older versions of MLX saved them", _NPZ),
    Container(("*.npy",), "an array of NumPy", "save it with `safetensors.numpy.save_file`"),
    Container(("rust_model.ot", "*.ot"), "weights of rust-bert", _SAVE),
)
"""The most specific first. Folders inside count by their names as files do."""


def container_of(names: Iterable[str], training: bool = False) -> tuple[Container, str] | None:
    """The first format that one of the names shows, with the name; of those of `training` alone on
    request."""
    listed = sorted(names)
    for container in (c for c in CONTAINERS if c.training or not training):
        for pattern in container.patterns:
            found = fnmatch.filter(listed, pattern)
            if found:
                return container, found[0]
    return None


def container_error(folder: str, training: bool) -> CatalogError | None:
    """The refusal of a folder without weights that are read: what it holds instead, one folder
    further down too.

    `training`: it may be nothing but a format of `training`.
    """
    found = container_of(_names(folder), training)
    if found is None:
        for below in sorted(e for e in _names(folder) if os.path.isdir(os.path.join(folder, e))):
            inner = container_of(_names(os.path.join(folder, below)), training)
            if inner is not None:
                found = inner[0], f"{below}/{inner[1]}"
                break
    if found is None:
        return None
    container, name = found
    message = f"this is {container.title} (`{show(name)}`), which is not read"
    return CatalogError("E0462", message, file=folder, help=(container.convert,))


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []
