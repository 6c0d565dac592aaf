"""What the compiler knows of the world: checkpoints by their headers, handed in through a
`Catalog`.

`runtime/catalog/local.py` reads real files; tests use `MemoryCatalog` on plain dicts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any, Protocol

from ...grammar.records import dataclass
from .dtypes import SIZES


@dataclass(frozen=True, slots=True)
class InputFile:
    """A weight file as it was when it was looked at; the run refuses one that has changed.

    `path` is absolute (or `memory:…`), `size` in bytes, `mtime_ns`, `ctime_ns`, `device` and
    `inode` as `os.stat` gives them; 0 for what is not known. The time of the last change of status
    can't be set, unlike that of writing: it shows that another model was copied or moved over this
    one with its times kept. It changes with the file's names, owner and mode too, which do no harm.
    But nothing short of reading every byte tells one from the other, not even the header, which all
    models of one shape share; so a file with another time of change is taken for another file.
    Files that were made within one tick of the clock have the same times; when two such trade
    places, only their numbers (`inode`, on the file system `device`) show it.
    """

    path: str
    size: int
    mtime_ns: int
    ctime_ns: int = 0
    device: int = 0
    inode: int = 0

    @property
    def identity(self) -> str:
        """What says that the file holds the same bytes as before, without reading them."""
        return f"{self.path!r} {self.size} {self.mtime_ns} {self.ctime_ns} {self.device} {self.inode}"

    def change(self, now: InputFile) -> str | None:
        """How the file that is `now` at this path differs from this one, in a few words; None where
        it doesn't."""
        if now.size != self.size:
            return f"it had {self.size} bytes when the plan was made and has {now.size} now"
        if now.mtime_ns != self.mtime_ns:
            return "it has been written to since the plan was made"
        if self.inode and (now.device, now.inode) != (self.device, self.inode):
            return "another file has taken its place"
        if self.ctime_ns not in (0, now.ctime_ns):
            return "another file has taken its place, or it was given another name, owner or mode"
        return None


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor as a header lists it: row-major, bytes `[start, end)` of its file (absolute
    offsets)."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: int
    start: int
    end: int

    @property
    def nbytes(self) -> int:
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Part:
    """Weight files that lie together: in `folder`, relative to the checkpoint's (empty: there
    itself), called `stem`, and by `variant` where that is none of None. `index` and `files` are
    their names, `folder` included.

    The names of tensors in a folder below begin with it: `2_Dense.linear.weight`.
    """

    folder: str
    stem: str = "model"
    variant: str | None = None
    index: str | None = None
    files: tuple[str, ...] = ()

    @property
    def prefix(self) -> str:
        return prefix_of(self.folder)


def prefix_of(folder: str) -> str:
    """What the names of tensors begin with that lie in a folder below a checkpoint's."""
    return folder.replace("/", ".") + "." if folder else ""


OWN = Part("")
"""The weights of a checkpoint that has one part, and no name of its own for it."""


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """Everything about a checkpoint that can be known without reading a weight.

    `location` is the absolute folder or file (or `memory:…`), `config` the parsed config.json or
    None (a raw file), `metadata` the headers' `__metadata__` merged, `extras` the names of the
    other files beside the weights. `shared`: two names may stand for the very same bytes of a file,
    as in a pickle. `passed_over` names what is in the weight files beside tensors. `parts`: where
    its weight files lie; those of a pipeline are all in folders below. `below`: config.json of
    each part in a folder below, by folder. `chosen`: what `key` and `variant` were asked for.
    """

    location: str
    files: tuple[InputFile, ...]
    tensors: Mapping[str, StoredTensor]
    config: Mapping[str, Any] | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    extras: tuple[str, ...] = ()
    revision: str | None = None
    shared: bool = False
    passed_over: tuple[str, ...] = ()
    parts: tuple[Part, ...] = (OWN,)
    below: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    chosen: tuple[str | None, str | None] = (None, None)

    @property
    def is_pipeline(self) -> bool:
        """Whether its weights lie in folders below alone, each a model of its own."""
        return bool(self.parts) and all(part.folder for part in self.parts)

    @property
    def is_folder(self) -> bool:
        """Whether the whole of a folder was named, and not one weight file."""
        return self.location not in {file.path for file in self.files}


class CatalogError(Exception):
    """A checkpoint that can't be used: missing, unreadable or corrupt.

    Carries the diagnostic's parts; the compiler adds the place in the recipe. `code` is E04xx;
    `file` the one that is corrupt or unreadable (exit status 3), None where the recipe asks for
    what is not there (exit status 1).
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        file: str | None = None,
        notes: tuple[str, ...] = (),
        help: tuple[str, ...] = (),
    ) -> None:
        self.code, self.message, self.file = code, message, file
        self.notes, self.help = notes, help
        super().__init__(message)


def refuse_revision(source: str, revision: str | None) -> None:
    """Sees that no revision is asked for of what has none. Raises CatalogError (E0464)."""
    if revision is not None:
        raise CatalogError(
            "E0464",
            f"`{source}` is local, and what is local has no revisions",
            help=("leave `revision` out; where another revision is meant, download that and name its folder",),
        )


class Catalog(Protocol):
    """Answers the compiler's questions about the world outside the recipe."""

    def open(
        self,
        source: str,
        *,
        revision: str | None,
        subfolder: str | None,
        near: str,
        key: str | None = None,
        variant: str | None = None,
    ) -> Checkpoint:
        """The checkpoint that `model(source)` names, `near` being the recipe's own path. `key` and
        `variant` say which of several weights in a pickle, or in a folder, are meant.

        Raises CatalogError.
        """
        ...

    def adapter(self, source: str, *, revision: str | None, subfolder: str | None, near: str) -> Checkpoint:
        """The adapter that `lora(source)` names; its `config` is adapter_config.json. Raises
        CatalogError."""
        ...

    def same_bytes(
        self,
        checkpoint: Checkpoint,
        first: str,
        second: str,
        *,
        other: Checkpoint | None = None,
        turned: bool = False,
    ) -> bool | None:
        """Whether two stored tensors hold equal bytes; None where that can't be told without a
        download.

        `second` is one of `other`, where that is given. `turned`: whether the second is the
        transpose of the first, both being matrices once all axes but the first of `first`, and but
        the last of `second`, are flattened.
        """
        ...

    def document(self, checkpoint: Checkpoint, name: str) -> str | None:
        """The text of a small file beside the weights (tokenizer.json, LICENSE); None where there
        is none."""
        ...

    def beginning(self, checkpoint: Checkpoint, name: str, nbytes: int) -> str | None:
        """The text of the first bytes of such a file, whatever its size; None where there is
        none."""
        ...

    def library(self, path: str, *, near: str) -> tuple[str, str]:
        """Resolved name and text of a `use`d recipe, `path` being relative to the file `near`.

        Raises CatalogError.
        """
        ...


class MemoryCatalog:
    """A catalog over plain dicts, for tests and for compiling without files.

    >>> MemoryCatalog({"a": {"tensors": {"embed.weight": ("BF16", (64, 32))}}}).open(
    ...     "a", revision=None, subfolder=None, near="r.mrg").tensors["embed.weight"].nbytes
    4096

    Each checkpoint is a dict with `tensors` (name to (dtype, shape)) and optionally `config`,
    `metadata`, `equal` (pairs of names that hold the same bytes; None: that can't be told),
    `documents` (name to text), `passed_over` (names of what is beside the tensors), `parts`.
    `libraries` maps paths to texts.
    """

    def __init__(
        self, checkpoints: Mapping[str, Mapping[str, Any]], libraries: Mapping[str, str] | None = None
    ) -> None:
        self._specs = checkpoints
        self._libraries = dict(libraries or {})
        self._open: dict[str, Checkpoint] = {}

    def open(
        self,
        source: str,
        *,
        revision: str | None,
        subfolder: str | None,  # noqa: ARG002
        near: str,  # noqa: ARG002
        key: str | None = None,  # noqa: ARG002
        variant: str | None = None,  # noqa: ARG002
    ) -> Checkpoint:
        if source not in self._specs:
            raise CatalogError("E0401", f"no checkpoint at `{source}`")
        refuse_revision(source, revision)
        if source not in self._open:
            spec = self._specs[source]
            tensors, offset = {}, 0
            for name, (dtype, shape) in spec["tensors"].items():
                size = SIZES[dtype]
                for n in shape:
                    size *= n
                tensors[name] = StoredTensor(name, dtype, tuple(shape), 0, offset, offset + size)
                offset += size
            self._open[source] = Checkpoint(
                location=f"memory:{source}",
                files=(InputFile(f"memory:{source}", offset, 0),),
                tensors=tensors,
                config=spec.get("config"),
                metadata=spec.get("metadata", {}),
                extras=tuple(spec.get("documents", {})),
                passed_over=tuple(spec.get("passed_over", ())),
                parts=tuple(spec.get("parts", (OWN,))),
            )
        return self._open[source]

    def adapter(self, source: str, *, revision: str | None, subfolder: str | None, near: str) -> Checkpoint:
        return self.open(source, revision=revision, subfolder=subfolder, near=near)

    def same_bytes(
        self,
        checkpoint: Checkpoint,
        first: str,
        second: str,
        *,
        other: Checkpoint | None = None,
        turned: bool = False,  # noqa: ARG002
    ) -> bool | None:
        if other is not None and other is not checkpoint:
            return None
        equal = self._specs[checkpoint.location.removeprefix("memory:")].get("equal", ())
        return None if equal is None else (first, second) in equal or (second, first) in equal

    def document(self, checkpoint: Checkpoint, name: str) -> str | None:
        documents: Mapping[str, str] = self._specs[checkpoint.location.removeprefix("memory:")].get("documents", {})
        return documents.get(name)

    def beginning(self, checkpoint: Checkpoint, name: str, nbytes: int) -> str | None:
        text = self.document(checkpoint, name)
        return None if text is None else text.encode()[:nbytes].decode(errors="ignore")

    def library(self, path: str, *, near: str) -> tuple[str, str]:  # noqa: ARG002
        if path not in self._libraries:
            raise CatalogError("E0402", f"no file `{path}`")
        return path, self._libraries[path]
