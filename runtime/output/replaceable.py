"""What may be replaced: checked without following a link, so that nothing is lost that is no
output.

A folder may be, where it is empty, or where every file in it is one that mergec has written there
(its record says so), or one of those that a checkpoint's folder consists of. One file may be, where
it is sound. What could not be removed once it is replaced is reported before anything is made.
"""

from __future__ import annotations

import fnmatch
import os
import re
import stat
from collections.abc import Iterator, Sequence

from ...compiler.checkpoint.catalog import CatalogError
from ...compiler.emit.card import PROVENANCE
from ...grammar.records import dataclass
from ..files.faults import reason, show
from ..formats.outputs import reader_of
from ..resume.record import found_record
from .trees import within

MOUNTS = "/proc/self/mountinfo"
"""Where Linux lists what is mounted."""

_WEIGHTS = re.compile(
    r"(model|pytorch_model|diffusion_pytorch_model|consolidated)(\.\w+)?(-\d+-of-\d+)?\.safetensors(\.index\.json)?"
)
"""Names of weight files and of their index. Whatever else ends in `.safetensors` may be anybody's
collection, an adapter, or the state of an optimizer."""

_BESIDE = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "tokenizer.model.v[0-9]*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "bpe.codes",
    "dict.txt",
    "spiece.model",
    "spm.model",
    "sentencepiece.model",
    "sentencepiece.bpe.model",
    "*.tiktoken",
    "chat_template.jinja",
    "chat_template.json",
    "additional_chat_templates/*.jinja",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
    "quantization_config.json",
    "quantize_config.json",
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
    "modules.json",
    "[0-9]_*/config.json",
    "normalizer.json",
    "vocab.bpe",
    "encoder.json",
    "source.spm",
    "target.spm",
    "params.json",
    "tekken.json",
    "configuration_*.py",
    "modeling_*.py",
    "tokenization_*.py",
    "processing_*.py",
    "image_processing_*.py",
    "README.md",
    "LICENSE",
    "LICENSE.txt",
    "LICENSE.md",
    "NOTICE",
    "NOTICE.txt",
    "USE_POLICY.md",
    ".gitattributes",
    ".DS_Store",
)
"""Names of a checkpoint's other files, in folders of its own too. They are matched exactly, while
`TOKENIZER` in `compiler/emit/companions.py` is wide: copying a file needlessly does no harm,
deleting one does."""

_KINDS = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISCHR, "a device"),
)

_MOST = 3
"""Names that are listed; of the others only their number is given."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What stands at a path: which file of the system it is, and why it may not be replaced (None:
    it may)."""

    device: int
    inode: int
    why_not: str | None

    def same(self, other: Standing | None) -> bool:
        """Whether both are the same file or folder, whatever has become of what is in it."""
        return other is not None and (self.device, self.inode) == (other.device, other.inode)


def look(path: str, *, single: bool) -> Standing | None:
    """What stands at `path`, an absolute path, where an output is to go that is a `single` file or
    a folder; None where there is nothing. Follows no link. Raises OSError."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None
    return Standing(status.st_dev, status.st_ino, _why_not(path, status, single))


def _why_not(path: str, status: os.stat_result, single: bool) -> str | None:
    mode = status.st_mode
    if stat.S_ISLNK(mode):
        return f"it is a link, to `{show(os.readlink(path))}`"
    for has, kind in _KINDS:
        if has(mode):
            return f"it is {kind}"
    mounted = next(_mounts(path), None)
    if mounted is not None:
        return "something is mounted there" if mounted == path else f"something is mounted at `{show(mounted)}` in it"
    if stat.S_ISREG(mode):
        return _of_a_file(path) if single else "it is a file, and the output is a folder"
    return "it is a folder, and the output is one file" if single else _of_a_folder(path)


def _of_a_file(path: str) -> str | None:
    reader = reader_of(path)
    try:
        reader.header(path)
    except CatalogError as error:
        return f"it is no {reader.format.name} file ({error.message})"
    return None


def _of_a_folder(path: str) -> str | None:
    if within(os.path.realpath(os.curdir), os.path.realpath(path)):
        return "it is the folder you are in, or holds it"
    try:
        names = sorted(os.listdir(path))
        strange = list(_strange(path, names, frozenset()))
        # most outputs have nothing that other checkpoints lack, and the record may be long
        if strange and (record := found_record(path)) is not None:
            strange = list(_strange(path, names, record.files))
    except OSError as error:
        return f"it can't be looked through: {reason(error)}"
    if strange:
        listed = ", ".join(f"`{show(name)}`" for name in strange[:_MOST])
        more = f" and {len(strange) - _MOST:,} more" if strange[_MOST:] else ""
        return f"it holds what no checkpoint consists of: {listed}{more}"
    if names and not any(_makes_a_checkpoint(name) for name in names):
        return "it holds no checkpoint"
    closed = next(_closed(path), None)
    return f"it can't be removed: `{show(closed)}` is not writable" if closed is not None else None


def _strange(folder: str, names: Sequence[str], own: frozenset[str]) -> Iterator[str]:
    """What in a folder is no part of a checkpoint, and none of `own`. Raises OSError."""
    for name in names:
        path = os.path.join(folder, name)
        mode = os.lstat(path).st_mode
        if stat.S_ISDIR(mode):
            if _is_folder_beside(name) or any(file.startswith(f"{name}/") for file in own):
                yield from _strange(folder, [f"{name}/{below}" for below in sorted(os.listdir(path))], own)
            else:
                yield f"{name}/"
        elif not stat.S_ISREG(mode) or not (name in own or _makes_a_checkpoint(name) or _is_beside(name)):
            yield name


def _closed(folder: str) -> Iterator[str]:
    """Which folders, from this one on, nothing may be taken out of."""
    return (place for place, _, _ in os.walk(folder) if not os.access(place, os.W_OK | os.X_OK))


def _makes_a_checkpoint(name: str) -> bool:
    return name in (PROVENANCE, "config.json") or _WEIGHTS.fullmatch(name) is not None


def _is_folder_beside(name: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern.rpartition("/")[0]) for pattern in _BESIDE)


def _is_beside(name: str) -> bool:
    parts = name.split("/")
    for pattern in _BESIDE:
        wanted = pattern.split("/")
        if len(parts) == len(wanted) and all(map(fnmatch.fnmatchcase, parts, wanted)):
            return True
    return False


def _mounts(path: str) -> Iterator[str]:
    """Where something is mounted at `path` or below; as far as the system says."""
    place = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
    try:
        with open(MOUNTS, encoding="utf-8", errors="surrogateescape") as file:
            points = [line.split(" ")[4] for line in file]
    except (OSError, IndexError):
        points = [place] if os.path.ismount(place) else []
    for point in points:
        mounted = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), point)
        if within(mounted, place):
            yield path + mounted.removeprefix(place)
