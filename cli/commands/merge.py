"""`mergec RECIPE`: merges; with `--check`, `--explain` or `--emit` only looks."""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...grammar.diagnostic import MergecError
from ...grammar.error_codes import Exit
from ...grammar.suggest import near
from ..terminal.arguments import COMMANDS, Arguments, UsageError, parse_arguments
from ..terminal.reporter import Reporter
from ..terminal.streams import piped_recipe, say, tell

if TYPE_CHECKING:
    from ...grammar.source import Source
    from ...runtime.api import Compiled
    from ..import_mergekit.recipe_text import Imported

parse_words = parse_arguments


def run(arguments: Arguments, reporter: Reporter) -> Exit:
    if arguments.explain is not None and arguments.method is not None:
        from ..explain.method import explain_method

        say(explain_method(arguments.method).rstrip("\n"))
        return Exit.DONE
    words = arguments.words
    if not words:
        raise UsageError("no recipe given", "`mergec recipe.mrg -o ./out`", "see `mergec --help`")
    if arguments.explain is not None and len(words) == 1 and words[0][:1] in "EW" and words[0][1:].isdigit():
        from ..explain.code import explain_code

        say(explain_code(words[0]).rstrip("\n"))
        return Exit.DONE
    if arguments.explain is not None and len(words) > 2:
        raise UsageError(f"one recipe and one place or file, not also `{words[2]}`", "see `mergec --help`")
    if arguments.explain is None and len(words) > 1:
        raise UsageError(f"one recipe at a time, not also `{words[1]}`", *_meant(arguments), "see `mergec --help`")
    looks = arguments.check or arguments.explain is not None or arguments.emit is not None
    if arguments.output is None and not looks:
        raise UsageError(
            "no output given", f"`mergec {words[0]} -o ./out`", f"or only check it: `mergec --check {words[0]}`"
        )
    if arguments.output is not None:
        _check_ending(arguments.output)
    return _compile(arguments, looks, reporter)


_ENDINGS = (".bin", ".pt", ".pth", ".ckpt", ".gguf", ".onnx", ".npz", ".h5", ".msgpack", ".st", ".sft")
"""How weight files are called that mergec does not write."""


def _check_ending(output: str) -> None:
    """Sees that nobody who meant one file gets a folder. Raises UsageError."""
    stem, ending = os.path.splitext(output)
    if ending == ".safetensors" or not (ending in _ENDINGS or near(ending, [".safetensors"], 1, 0.8)):
        return
    raise UsageError(
        f"`{output}` is called as a weight file is, and only one that ends in `.safetensors` is written as such",
        f"one file: `-o {stem}.safetensors`",
        f"a folder of that name: `-o {output}{os.sep}`",
    )


def _meant(arguments: Arguments) -> tuple[str, ...]:
    """Help for someone who gave the words of another program's command line."""
    first, second, *more = arguments.words
    if first in COMMANDS:
        return (f"a command comes first: `mergec {first} {second}`",)
    if not os.path.exists(first) and first.isalpha():
        out = arguments.output or (more[0] if more else "./out")
        return (f"there is no command `{first}`; to merge: `mergec {second} -o {out}`",)
    # what is there already was hardly meant to be written to
    return (f"`mergec {first} -o {second}`",) if arguments.output is None and not os.path.lexists(second) else ()


def _compile(arguments: Arguments, looks: bool, reporter: Reporter) -> Exit:
    if arguments.emit == "ast":
        from .emit import emit_syntax

        say(emit_syntax(_recipe(arguments.words[0])))
        return Exit.DONE
    compiled = _compiled(arguments, reporter)
    if not looks:
        assert arguments.output is not None
        reporter.show(compiled.diagnostics)
        return _merge(compiled, arguments)
    if arguments.emit is not None:
        from .emit import emit

        say(emit(compiled.compilation, arguments.emit))
    elif arguments.explain is not None:
        from ..explain import explain

        place = arguments.words[1] if len(arguments.words) > 1 else None
        text = explain(compiled.compilation, arguments.explain, place, arguments.output).rstrip("\n")
        say(text, exact=arguments.explain == "json")
        if arguments.explain == "text":
            return Exit.DONE  # warnings are part of the text
    reporter.show(compiled.diagnostics)
    if arguments.check and arguments.output is not None:
        from ...runtime.output.conditions import check_parent

        check_parent(os.path.abspath(arguments.output))
    if arguments.check and not arguments.quiet and arguments.explain is None:
        tensors = len(compiled.compilation.packing.tensors)
        say(f"{arguments.words[0]}: ok, {compiled.parameters:,} parameters in {tensors:,} tensors")
    return Exit.DONE


def _recipe(word: str) -> Any:
    if _is_yaml(word):
        return _imported(word, False)[0]
    return piped_recipe() if word == "-" else Path(word).expanduser()


def _is_yaml(word: str) -> bool:
    """Whether a word of the command line names a mergekit configuration, to be imported first."""
    return word.endswith((".yml", ".yaml"))


def _imported(word: str, allow_pickle: bool) -> tuple[Source, Imported]:
    from ...runtime.catalog.local import LocalCatalog
    from ..import_mergekit.command import import_file

    return import_file(word, LocalCatalog(allow_pickle=allow_pickle))


def _compiled(arguments: Arguments, reporter: Reporter) -> Compiled:
    word = arguments.words[0]
    if not _is_yaml(word):
        return _compiled_from(_recipe(word), arguments)
    source, imported = _imported(word, arguments.allow_pickle)
    reporter.show(imported.warnings)
    try:
        compiled = _compiled_from(source, arguments)
    except MergecError as error:
        raise error.retold(imported.traced(error.diagnostics)) from None
    found = dataclasses.replace(compiled.compilation, diagnostics=imported.traced(compiled.diagnostics))
    return dataclasses.replace(compiled, compilation=found)


def _compiled_from(recipe: Any, arguments: Arguments) -> Compiled:
    from ...runtime.api import compile

    return compile(
        recipe,
        device=arguments.device,
        lanes=arguments.lanes,
        memory=arguments.memory,
        device_memory=arguments.device_memory,
        defines=arguments.defines,
        settings=arguments.sets,
        strict=arguments.strict,
        single=(arguments.output or "").endswith(".safetensors"),
        allow_pickle=arguments.allow_pickle,
    )


def _merge(compiled: Compiled, arguments: Arguments) -> Exit:
    from ...runtime.execute.executor import Cancelled
    from ..terminal.progress import ProgressLine
    from .numpy_threads import load_numpy
    from .summary import summary

    assert arguments.output is not None
    cancel = threading.Event()
    before = {s: signal.signal(s, lambda *_: cancel.set()) for s in (signal.SIGINT, signal.SIGTERM)}
    progress = None if arguments.quiet else ProgressLine(compiled.plan)
    try:
        load_numpy(compiled.plan)
        report = compiled.run(
            arguments.output, force=arguments.force, fresh=arguments.fresh, progress=progress, cancel=cancel
        )
    except Cancelled as stop:
        left = getattr(stop, "__notes__", ("nothing is left behind",))
        tell("\n  ".join(["mergec: interrupted", *left]))
        return Exit.INTERRUPTED
    finally:
        if progress:
            progress.close()
        for number, handler in before.items():
            signal.signal(number, handler)
    if progress:
        say(summary(compiled.compilation, report))
    return Exit.DONE
