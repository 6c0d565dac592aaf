"""The command line: what was asked for, done; diagnostics printed; exit statuses.

Only here is anything printed. Modules that take time to import are imported by the commands that need them.
"""

from __future__ import annotations

import dataclasses
import gc
import itertools
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..grammar.diagnostic import Diagnostic, Exit, MergecError
from ..grammar.render import render, to_json
from .terminal.arguments import Arguments, UsageError, parse_arguments
from .terminal.streams import piped_recipe, prepare, say, silence, tell

if TYPE_CHECKING:
    from ..grammar.source import Source
    from ..runtime.api import Compiled
    from .import_mergekit.sheet import Imported

COMMANDS = ("fmt", "import", "inspect", "verify")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit status. Nothing but SystemExit for `--help` and `--version` is
    raised."""
    prepare()
    words = list(sys.argv[1:] if argv is None else argv)
    # asked for before the arguments are known to make sense, as that is what may have to be reported
    as_json = "--error-format=json" in words or ("--error-format", "json") in itertools.pairwise(words)
    color = "auto"
    try:
        _check_folder()
        if words and words[0] in COMMANDS:
            return _command(words[0], words[1:])
        arguments = parse_arguments(words)
        as_json, color = arguments.error_format == "json", arguments.color
        return _run(arguments)
    except MergecError as error:
        show(error.diagnostics, as_json, _color(color))
        return int(error.exit)
    except KeyboardInterrupt as interrupt:
        tell("\n  ".join(["mergec: interrupted", *getattr(interrupt, "__notes__", ())]))
        return int(Exit.INTERRUPTED)
    except BrokenPipeError:
        # the reader of our output is gone, as with `mergec --explain … | head`
        silence()
        return int(Exit.DONE)
    except MemoryError:
        show([Diagnostic("E0003", "out of memory", help=("give a budget: `--memory 1GiB`",))], as_json, False)
        return int(Exit.RUN)
    except (OSError, ImportError) as error:
        show([_refused(error)], as_json, _color(color))
        return int(Exit.RUN)
    except Exception as error:
        if os.environ.get("MERGEC_TRACEBACK"):
            traceback.print_exc()
        frames = traceback.extract_tb(error.__traceback__)
        where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "unknown"
        detail = f"{type(error).__name__}: {error}"
        help_ = ("please report it with the recipe; MERGEC_TRACEBACK=1 shows the details",)
        show(
            [Diagnostic("E0001", "this is a bug in mergec", notes=(f"{detail} ({where})",), help=help_)], as_json, False
        )
        return int(Exit.RUN)


def process() -> int:
    """`main` as all that a process does.

    At its end the interpreter would look through everything for garbage, three times over, which takes a tenth of a
    short run. What is frozen it leaves to the system.
    """
    try:
        return main()
    finally:
        gc.freeze()


def show(diagnostics: Iterable[Diagnostic], as_json: bool, color: bool) -> None:
    """Prints diagnostics on standard error."""
    found = list(diagnostics)
    if found:
        text = to_json(found) if as_json else render(found, color=color)
        tell(text.rstrip("\n"))


def _check_folder() -> None:
    """Relative paths mean nothing in a folder that has been removed, and libraries fail there in their own ways."""
    try:
        os.getcwd()
    except FileNotFoundError:
        raise UsageError("the current folder has been removed", "change to one that exists") from None


def _refused(error: OSError | ImportError) -> Diagnostic:
    """What the system refused where no code of its own is foreseen, or a library that it did not let us load."""
    if os.environ.get("MERGEC_TRACEBACK"):
        traceback.print_exc()
    if isinstance(error, ImportError):
        # some packages put a page of advice here
        said = next((line.strip() for line in str(error).splitlines() if line.strip()), "it gives no reason")
        help = ("see that it is installed for this Python, and that no limit on memory or files is in the way",)
        return Diagnostic("E0642", f"a library can't be loaded: {said}", help=help)
    path = error.filename if isinstance(error.filename, str) else None
    return Diagnostic("E0641", f"the system refuses: {(error.strerror or str(error)).lower()}", file=path)


def _color(choice: str) -> bool:
    if choice == "auto":
        return sys.stderr.isatty() and "NO_COLOR" not in os.environ
    return choice == "always"


def _command(name: str, words: list[str]) -> int:
    if name == "fmt":
        from .commands.fmt import format_files

        return format_files(words)
    if name == "import":
        from .import_mergekit.command import import_command

        return import_command(words)
    if name == "verify":
        from .commands.verify import verify_command

        return verify_command(words)
    from .commands.inspect import inspect_command

    return inspect_command(words)


def _run(arguments: Arguments) -> int:
    if arguments.explain is not None and arguments.method is not None:
        from .explain.method import explain_method

        say(explain_method(arguments.method).rstrip("\n"))
        return int(Exit.DONE)
    words = arguments.words
    if not words:
        raise UsageError("no recipe given", "`mergec recipe.mrg -o ./out`", "see `mergec --help`")
    if arguments.explain is not None and len(words) == 1 and words[0][:1] in "EW" and words[0][1:].isdigit():
        from .explain.code import explain_code

        say(explain_code(words[0]).rstrip("\n"))
        return int(Exit.DONE)
    if len(words) > (2 if arguments.explain else 1):
        raise UsageError(f"one recipe at a time, not also `{words[1]}`", *_meant(arguments), "see `mergec --help`")
    looks = arguments.check or arguments.explain is not None or arguments.emit is not None
    if arguments.output is None and not looks:
        raise UsageError(
            "no output given", f"`mergec {words[0]} -o ./out`", f"or only check it: `mergec --check {words[0]}`"
        )
    return _compile(arguments, looks)


def _meant(arguments: Arguments) -> tuple[str, ...]:
    """Help for someone who gave the words of another program's command line."""
    first, second, *more = arguments.words
    if not os.path.exists(first) and first.isalpha():
        out = arguments.output or (more[0] if more else "./out")
        return (f"there is no command `{first}`; to merge: `mergec {second} -o {out}`",)
    # what is there already was hardly meant to be written to
    return (f"`mergec {first} -o {second}`",) if arguments.output is None and not os.path.lexists(second) else ()


def _compile(arguments: Arguments, looks: bool) -> int:
    if arguments.emit == "ast":
        from .commands.emit import emit_syntax

        say(emit_syntax(_recipe(arguments.words[0])))
        return int(Exit.DONE)
    compiled = _compiled(arguments)
    as_json, color = arguments.error_format == "json", _color(arguments.color)
    if not looks:
        assert arguments.output is not None
        show(compiled.diagnostics, as_json, color)
        return _merge(compiled, arguments)
    if arguments.emit is not None:
        from .commands.emit import emit

        say(emit(compiled.compilation, arguments.emit))
    elif arguments.explain is not None:
        from .explain import explain

        place = arguments.words[1] if len(arguments.words) > 1 else None
        told = explain(compiled.compilation, arguments.explain, place, arguments.output).rstrip("\n")
        say(told, exact=arguments.explain == "json")
        if arguments.explain == "text":
            return int(Exit.DONE)  # warnings are part of the text
    show(compiled.diagnostics, as_json, color)
    if arguments.check and not arguments.quiet and arguments.explain is None:
        tensors = len(compiled.compilation.packing.tensors)
        say(f"{arguments.words[0]}: ok, {compiled.parameters:,} parameters in {tensors:,} tensors")
    return int(Exit.DONE)


def _recipe(word: str) -> Any:
    if is_yaml(word):
        return _imported(word, False)[0]
    return piped_recipe() if word == "-" else Path(word).expanduser()


def is_yaml(word: str) -> bool:
    """Whether a word of the command line names a mergekit configuration, to be imported first."""
    return word.endswith((".yml", ".yaml"))


def _imported(word: str, allow_pickle: bool) -> tuple[Source, Imported]:
    from ..runtime.catalog.local import LocalCatalog
    from .import_mergekit.command import import_file

    return import_file(word, LocalCatalog(allow_pickle=allow_pickle))


def _compiled(arguments: Arguments) -> Compiled:
    word = arguments.words[0]
    if not is_yaml(word):
        return _compiled_from(_recipe(word), arguments)
    source, imported = _imported(word, arguments.allow_pickle)
    show(imported.warnings, arguments.error_format == "json", _color(arguments.color))
    try:
        compiled = _compiled_from(source, arguments)
    except MergecError as error:
        raise MergecError(imported.traced(error.diagnostics), error.exit) from None
    found = dataclasses.replace(compiled.compilation, diagnostics=imported.traced(compiled.diagnostics))
    return dataclasses.replace(compiled, compilation=found)


def _compiled_from(recipe: Any, arguments: Arguments) -> Compiled:
    from ..runtime.api import compile

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


def _merge(compiled: Compiled, arguments: Arguments) -> int:
    from ..runtime.execute.executor import Cancelled
    from .commands.summary import summary
    from .numpy_threads import load_numpy
    from .terminal.progress import ProgressLine

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
        return int(Exit.INTERRUPTED)
    finally:
        if progress:
            progress.close()
        for number, handler in before.items():
            signal.signal(number, handler)
    if progress:
        say(summary(compiled.compilation, report))
    return int(Exit.DONE)


if __name__ == "__main__":
    sys.exit(process())
