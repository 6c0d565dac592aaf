"""The command line's words: options, modes, and values given as `name=value`."""

from __future__ import annotations

import argparse
import os
import re
from typing import Any, NoReturn

from ...compiler.version import __version__
from ...grammar.diagnostic import MergecError, finding
from ...grammar.literals import LiteralError, parse_size, read_number, read_string
from ...grammar.records import dataclass
from ...grammar.suggest import near

USAGE = """\
mergec RECIPE -o OUT           merge
       mergec --check RECIPE          compile only, from headers
       mergec --explain RECIPE        the plan, for people
       mergec --explain RECIPE PLACE  one tensor's whole story
       mergec --explain RECIPE FILE   what depends on a weight file of an input
       mergec --explain E0203         a page about an error
       mergec --explain --method M    the source of a merge method
       mergec fmt [--check] FILE…     format recipes
       mergec import CONFIG.yml       a configuration of mergekit as a recipe
       mergec inspect MODEL           family, layout, ties and parameters of a checkpoint
       mergec verify OUT [--rerun]    whether an output is what its record says"""

EPILOG = """\
A recipe that is called like a command is written as a path: `mergec ./verify -o OUT`.

exit status: 0 done, 1 the recipe is wrong, 2 usage, 3 an input can't be read or is corrupt,
4 the run failed (disk, memory, device), 130 interrupted"""

ELSEWHERE = {
    "--threads": "--lanes",
    "--jobs": "--lanes",
    "--workers": "--lanes",
    "-j": "--lanes",
    "--cuda": "--device cuda",
    "--gpu": "--device cuda",
    "--overwrite": "--force",
    "--dry-run": "--check",
    "-n": "--check",
}
"""What other programs call some of the options."""

WEIGHTY = ("--force", "--allow-pickle")
"""Options that replace or trust something: they are suggested only for a slip of a finger in their
own names."""

MOST_LANES = 256
"""Blocks worked on at once: beyond the cores of any machine more of them only cost memory."""

ALLOW_PICKLE = "read weights that PyTorch pickled (.bin, .pt, .pth, .ckpt) as data; no code of theirs is run"
"""Help of `--allow-pickle`, which several commands have."""

COMMANDS = ("fmt", "import", "inspect", "verify")
"""What the first word may be instead of a recipe. A recipe of such a name is written as a path:
`./verify`."""

FORMATS = ("text", "json", "dot", "mermaid")
STAGES = ("ast", "graph", "schedule")


@dataclass(frozen=True, slots=True)
class Arguments:
    """What was asked for; see `--help`."""

    words: tuple[str, ...]
    output: str | None
    force: bool
    fresh: bool
    check: bool
    explain: str | None
    method: str | None
    emit: str | None
    defines: dict[str, Any]
    sets: dict[str, Any]
    device: str
    lanes: int | None
    memory: int | None
    device_memory: int | None
    strict: bool
    allow_pickle: bool
    quiet: bool
    error_format: str
    color: str


class UsageError(MergecError):
    """A command line that makes no sense: exit status 2."""

    def __init__(self, message: str, *help: str) -> None:
        super().__init__(finding("E0002", message, help=help))


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are UsageErrors, with the option that may have been meant; no
    abbreviations, as a later option could make them mean something else."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, **settings)

    def shared(self) -> None:
        """Adds the options that every command has."""
        add = self.add_argument
        add("--error-format", choices=("text", "json"), default="text", help="diagnostics for people or for editors")
        add("--color", choices=("auto", "always", "never"), default="auto")

    def error(self, message: str) -> NoReturn:
        kind, _, rest = message.partition(": ")
        help: tuple[str, ...] = ()
        if kind == "unrecognized arguments":
            unknown = next((word for word in rest.split() if word.startswith("-")), rest)
            message, help = f"unknown option `{unknown}`", self._meant(unknown.partition("=")[0])
            if not unknown.startswith("-"):
                message = f"one thing too many: `{unknown}`"
        if os.path.isfile(command := self.prog.partition(" ")[2]):
            help = (*help, f"the recipe of that name is `mergec ./{command}`")
        raise UsageError(message, *help, f"see `{self.prog} --help`")

    def _meant(self, unknown: str) -> tuple[str, ...]:
        known = [option for action in self._actions for option in action.option_strings if option.startswith("--")]
        if (meant := ELSEWHERE.get(unknown)) and meant.partition(" ")[0] in known:
            return (f"did you mean `{meant}`?",)
        harmless = [option for option in known if option not in WEIGHTY]
        likely = near(unknown, [o for o in WEIGHTY if o in known], 1, 0.85) or near(unknown, harmless, 1, 0.5)
        return (f"did you mean `{likely[0]}`?",) if likely else ()


def parse_arguments(argv: list[str]) -> Arguments:
    """The arguments of a merge, a check or an explanation. Raises UsageError; `--help` and
    `--version` raise SystemExit."""
    p = _parser()
    # `--explain` takes a format only after `=`, so that a recipe may follow it
    given = p.parse_intermixed_args(["--explain=text" if a == "--explain" else a for a in argv])
    read = {
        "words": tuple(given.words),
        "output": _path(given.output, "--output"),
        "defines": dict(_pair(text, "-D") for text in given.defines),
        "sets": dict(_setting(text) for text in given.sets),
        "memory": _bytes(given.memory, "--memory"),
        "device_memory": _bytes(given.device_memory, "--device-memory"),
    }
    return Arguments(**{**vars(given), **read})


def _parser() -> Parser:
    p = Parser(
        prog="mergec",
        usage=USAGE,
        description="Merges neural-network checkpoints as a recipe says.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = p.add_argument
    add("words", nargs="*", metavar="RECIPE", help="a recipe (*.mrg; `-` is standard input)")
    add("-o", "--output", metavar="OUT", help="folder of the output, or a file that ends in .safetensors")
    add("--force", action="store_true", help="replace an existing output, once the new one is complete")
    add("--fresh", action="store_true", help="compute everything, also what an earlier or unfinished output has")
    add("--check", action="store_true", help="compile only: find every mistake, read no weight")
    add("--explain", metavar="FORMAT", choices=FORMATS, help="show the plan: =text, =json, =dot or =mermaid")
    add("--method", metavar="NAME", help="with --explain: the source of a merge method")
    add("--emit", metavar="STAGE", choices=STAGES, help="print the compiler's ast, graph or schedule")
    add("-D", dest="defines", action="append", default=[], metavar="NAME=VALUE", help="replace a `let` of the recipe")
    add(
        "--set",
        dest="sets",
        action="append",
        default=[],
        metavar="output.KEY=VALUE",
        help="replace a setting of the output",
    )
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps, or several: cuda:0,cuda:1 (default: auto)")
    add("--lanes", type=_lanes, metavar="N", help="blocks worked on at once (default: the usable cores and one)")
    add("--memory", metavar="SIZE", help="budget of host memory, such as 2GiB")
    add("--device-memory", metavar="SIZE", help="budget of device memory")
    add("--strict", action="store_true", help="warnings are errors")
    add("--allow-pickle", action="store_true", help=ALLOW_PICKLE)
    add("-q", "--quiet", action="store_true", help="no progress, no summary")
    p.shared()
    add("--version", action="version", version=f"mergec {__version__}")
    return p


def _lanes(text: str) -> int:
    if not re.fullmatch(r"\d{1,9}", text, re.ASCII) or not 1 <= int(text) <= MOST_LANES:
        raise argparse.ArgumentTypeError(f"`{text}` is not a number from 1 to {MOST_LANES}")
    return int(text)


def _path(text: str | None, option: str) -> str | None:
    """The path, its `~` for the home folder replaced where the shell has left it, as in
    `--output=~/out`."""
    if text == "":
        raise UsageError(f"`{option}` is given an empty path")
    return text if text is None else os.path.expanduser(text)


def _bytes(text: str | None, option: str) -> int | None:
    if text is None:
        return None
    size = parse_size(text)
    if not size:
        raise UsageError(f"`{option} {text}` is not a size", "write it as `2GiB` or `500MB`")
    return size


def _setting(text: str) -> tuple[str, Any]:
    if not text.startswith("output."):
        raise UsageError(f"`--set {text}`: only settings of the output can be set", "`--set output.dtype=float16`")
    return _pair(text.removeprefix("output."), "--set output.")


def _pair(text: str, option: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z_]\w*", name):
        raise UsageError(f"`{option}{' ' if option == '-D' else ''}{text}` is not of the form NAME=VALUE")
    return name, _literal(_text(value, f"{option} {name}" if option == "-D" else f"{option}{name}"))


def _text(value: str, option: str) -> str:
    """A value's characters, where the system handed over bytes that its locale could not read."""
    try:
        return os.fsencode(value).decode("utf-8")
    except UnicodeDecodeError:
        raise UsageError(f"the value of `{option}` is not UTF-8 text") from None


def _literal(text: str) -> Any:
    """A number, a boolean or `none` as the language writes them; anything else is a string, with or
    without quotes."""
    words = {"true": True, "false": False, "none": None}
    if text in words:
        return words[text]
    try:
        if re.fullmatch(r"-?\d[\d_]*(\.\d[\d_]*)?([eE][+-]?\d+)?", text):
            number = read_number(text.removeprefix("-"))
            return -number if text.startswith("-") else number
        if re.fullmatch(r'"(?:[^"\\]|\\.)*"', text):
            return read_string(text)
    except LiteralError as error:
        raise UsageError(f"`{text}`: {error}") from None
    return text
