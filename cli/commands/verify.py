"""`mergec verify OUT`: whether an output is what its provenance says."""

from __future__ import annotations

import argparse
import json
import re
from argparse import Namespace
from dataclasses import replace

from ...grammar.diagnostic import Diagnostic, MergecError
from ...grammar.error_codes import Exit
from ...grammar.render import escape
from ...grammar.render import to_json as diagnostics_json
from ...runtime.verify.check import SAMPLE, Sample, verify
from ...runtime.verify.report import Check, Verification
from ..terminal.arguments import ALLOW_PICKLE, Parser
from ..terminal.columns import columns
from ..terminal.reporter import Reporter
from ..terminal.streams import say

MOST = 10
"""Errors of one check that are shown to people; JSON has all of them."""


def parse_words(words: list[str]) -> Namespace:
    """The arguments of `mergec verify`. Raises UsageError."""
    parser = Parser(
        prog="mergec verify",
        description="Whether an output is what its provenance says: tensors, checksums, config, inputs, recipe.",
        epilog="exit status: 0 all that could be checked is right, 1 no output there, 2 usage, 3 something is wrong",
    )
    add = parser.add_argument
    add("output", metavar="OUT", help="folder of an output, or a file that ends in .safetensors")
    add(
        "--rerun",
        nargs="?",
        type=_sample,
        const=SAMPLE,
        metavar="N",
        help=f"make N tensors again from the inputs and compare their bytes (`all`: every one; default: {SAMPLE})",
    )
    add("--seed", type=int, default=0, metavar="N", help="which tensors `--rerun` draws (default: 0)")
    add("--folder", metavar="FOLDER", help="where the recipe lay: its relative paths begin there")
    add("--allow-pickle", action="store_true", help=ALLOW_PICKLE)
    add("--format", choices=("text", "json"), default="text")
    parser.shared()
    return parser.parse_args(words)


def run(given: Namespace, _: Reporter) -> Exit:
    """Prints what was checked of an output.

    Returns 0 where all that could be checked is right. Raises MergecError with what is wrong, of
    exit status 3; with `--format json` that is a part of what is printed, and the status is
    returned.
    """
    found = verify(
        given.output, rerun=given.rerun, seed=given.seed, folder=given.folder, allow_pickle=given.allow_pickle
    )
    if given.format == "json":
        say(verification_json(found).rstrip("\n"))
        return Exit.DONE if found.ok else Exit.INPUT
    say(verification_text(found).rstrip("\n"))
    if not found.ok:
        raise MergecError([d for check in found.checks for d in _some(check)], Exit.INPUT)
    return Exit.DONE


def _sample(text: str) -> Sample:
    if text == "all":
        return "all"
    if not re.fullmatch(r"\d{1,9}", text, re.ASCII) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"`{text}` is neither a number of tensors nor `all`")
    return int(text)


def _some(check: Check) -> tuple[Diagnostic, ...]:
    """The first of a check's findings, the last of them with the number of the others."""
    if len(check.findings) <= MOST:
        return check.findings
    *first, last = check.findings[:MOST]
    more = f"{len(check.findings) - MOST:,} more of the check `{check.name}`: `--format json` lists them"
    return (*first, replace(last, notes=(*last.notes, more)))


def verification_text(found: Verification) -> str:
    """The checks for people, one per line: name, how it ended, what was looked at."""
    rows = [(check.name, check.verdict.value, check.detail) for check in found.checks]
    return "\n".join([escape(found.path), *columns(rows)]) + "\n"


def verification_json(found: Verification) -> str:
    """The same as a JSON object, with all findings."""
    checks = [
        {
            "name": check.name,
            "verdict": check.verdict.value,
            "detail": check.detail,
            "findings": [json.loads(line) for line in diagnostics_json(check.findings).splitlines()],
        }
        for check in found.checks
    ]
    return json.dumps({"path": found.path, "ok": found.ok, "checks": checks}, indent=2) + "\n"
